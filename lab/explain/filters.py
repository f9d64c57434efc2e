"""The part of an explanation that EnvoyFilters change: their patches, and rate limits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from lab.envoy.translate import generated
from lab.explain.interpret import Request
from lab.explain.steps import Step
from lab.kinds.envoy_filter import becomes as envoy_filter
from lab.kinds.envoy_filter import matching as envoy_filter_match
from lab.kinds.envoy_filter.checks import LISTENER_CLASS, ROUTE_CLASS
from lab.kinds.envoy_filter.matching import Context
from lab.kinds.visible import View
from lab.model import Json

RATE_LIMIT = "envoy.filters.http.ratelimit"


def of_listeners(seen: View, context: Context) -> list[Step]:
    """The patches of a proxy's listeners and filters in one direction."""
    return [
        _step(patch)
        for patch in _effective(seen, context)
        if patch.config.apply_to in LISTENER_CLASS
    ]


def of_routes(seen: View, context: Context, host: Json) -> list[Step]:
    """The patches of a virtual host, its routes and its configuration."""
    return [
        _step(patch)
        for patch in _effective(seen, context)
        if patch.config.apply_to in ROUTE_CLASS
        and (
            patch.config.apply_to == "ROUTE_CONFIGURATION"
            or envoy_filter_match.virtual_host(host, patch.match, context)
        )
    ]


def of_cluster(seen: View, cluster: Json) -> list[Step]:
    """The patches of one cluster."""
    context = envoy_filter_match.cluster_context(seen.pod, cluster)
    return [
        _step(patch)
        for patch in _effective(seen, context)
        if patch.config.apply_to == "CLUSTER"
        and patch.operation != "ADD"
        and envoy_filter_match.cluster(cluster, patch.match, seen.snapshot, seen.pod)
    ]


def _effective(seen: View, context: Context) -> list[envoy_filter.PatchOf]:
    if not envoy_filter.applicable(seen.snapshot, seen.pod):
        return []
    found = envoy_filter.effective(seen.snapshot, seen.pod, generated(seen))
    return [patch for patch in found if patch.match.context in ("ANY", context)]


def _step(patch: envoy_filter.PatchOf) -> Step:
    resource = patch.filter
    value = patch.config.patch.value if patch.config.patch is not None else None
    named = f" {value['name']}" if value and isinstance(value.get("name"), str) else ""
    return Step(
        "EnvoyFilter",
        f"{resource.namespace}/{resource.name}: {patch.operation} {patch.config.apply_to}{named}",
        resource.source.at("spec", "configPatches", patch.index),
    )


def rate_limits(
    filters: Iterable[Json], host: Json, route: Json, request: Request
) -> Iterator[Step]:
    """What the rate limit service is asked about a request, for each filter that asks it."""
    own = route.get("route", {}).get("rate_limits", [])
    shared = host.get("rate_limits", [])
    included = route.get("route", {}).get("include_vh_rate_limits")
    limits = [*own, *(shared if included or not own else [])]
    for item in filters:
        if item["name"] != RATE_LIMIT:
            continue
        config = item["typed_config"]
        domain, stage = config["domain"], config.get("stage", 0)
        asked = [
            descriptor
            for limit in limits
            if limit.get("stage", 0) == stage
            and (descriptor := _descriptor(limit.get("actions", ()), request)) is not None
        ]
        says = " and ".join(", ".join(entries) for entries in asked)
        yield Step(
            "rate limit",
            f"domain {domain} is asked about {says}; 429 when it is used up"
            if asked
            else f"domain {domain} is not asked: the request has no descriptor",
        )


def _descriptor(actions: Iterable[Mapping[str, Json]], request: Request) -> list[str] | None:
    """The entries of a descriptor; None when the request lacks what one of them is made of."""
    entries: list[str] = []
    for action in actions:
        if (header := action.get("request_headers")) is not None:
            value = request.header(header["header_name"])
            if value is not None:
                entries.append(f"{header['descriptor_key']}={value}")
            elif not header.get("skip_if_absent"):
                return None
        elif (generic := action.get("generic_key")) is not None:
            key = generic.get("descriptor_key", "generic_key")
            entries.append(f"{key}={generic['descriptor_value']}")
        else:
            entries += [f"{kind} (known only to Envoy)" for kind in action]
    return entries
