"""Steps of EnvoyFilters: the patches that change a proxy's configuration."""

from __future__ import annotations

from collections.abc import Callable

from lab.envoy.translate import generated
from lab.explain.steps import Step
from lab.kinds.envoy_filter import matching
from lab.kinds.envoy_filter.becomes import PatchOf, applicable, effective
from lab.kinds.envoy_filter.checks import LISTENER_CLASS, ROUTE_CLASS
from lab.kinds.envoy_filter.matching import Context
from lab.kinds.visible import View
from lab.model import Json


def of_listeners(view: View, context: Context, listener: Json) -> list[Step]:
    """Returns the patches of one of a proxy's listeners and of its filters."""

    def concerned(patch: PatchOf) -> bool:
        return patch.config.apply_to in LISTENER_CLASS and matching.listener(listener, patch.match)

    return _steps(view, context, concerned)


def of_routes(view: View, context: Context, host: Json) -> list[Step]:
    """Returns the patches of a virtual host, its routes and its configuration."""

    def concerned(patch: PatchOf) -> bool:
        return patch.config.apply_to == "ROUTE_CONFIGURATION" or (
            patch.config.apply_to in ROUTE_CLASS and matching.virtual_host(host, patch.match)
        )

    return _steps(view, context, concerned)


def of_cluster(view: View, cluster: Json) -> list[Step]:
    """Returns the patches of one cluster."""

    def concerned(patch: PatchOf) -> bool:
        return (
            patch.config.apply_to == "CLUSTER"
            and patch.operation != "ADD"
            and matching.cluster(cluster, patch.match, view.snapshot, view.pod)
        )

    return _steps(view, matching.cluster_context(view.pod, cluster), concerned)


def _steps(view: View, context: Context, concerned: Callable[[PatchOf], bool]) -> list[Step]:
    if not applicable(view.snapshot, view.pod):
        return []
    patches = effective(view.snapshot, view.pod, generated(view))
    chosen = (patch for patch in patches if patch.match.context in ("ANY", context))
    return [_step(patch) for patch in chosen if concerned(patch)]


def _step(patch: PatchOf) -> Step:
    resource = patch.filter
    value = patch.config.patch.value
    named = f" {value['name']}" if value and isinstance(value.get("name"), str) else ""
    return Step(
        "EnvoyFilter",
        f"{resource.namespace}/{resource.name}: {patch.operation} {patch.config.apply_to}{named}",
        resource.source.at("spec", "configPatches", patch.index),
    )
