"""Selection of pods by policies: the checks of a selector, and the policies for a pod.

Istio looks for policies in the root namespace, in the pod's namespace, and there among those that
select the pod by labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from lab import names
from lab.model import Pod, Snapshot
from lab.resources.checks import refused
from lab.resources.resource import Check, Problem, Resource

_TARGET_REFS = (
    "it attaches a policy to a Gateway API gateway or a waypoint, which the lab doesn't have; "
    "select the pods with selector.matchLabels"
)
TARGET_REFS = refused("spec.targetRef|targetRefs", _TARGET_REFS)


def _one_attachment(spec: Any) -> bool:
    attachments = [spec.selector, spec.target_ref, spec.target_refs or None]
    return sum(attachment is not None for attachment in attachments) <= 1


def _labels(labels: dict[str, str]) -> Iterator[Problem]:
    for key, value in labels.items():
        if not key:
            yield Problem((), f'empty key is not supported in selector: "{key}={value}"')
        if "*" in key or "*" in value:
            yield Problem((key,), f'wildcard is not supported in selector: "{key}={value}"')


def selector(
    field: str, text: str = "workload selector specified without labels"
) -> tuple[Check, ...]:
    """Returns the checks of a selector; `text` warns of one that has no labels."""
    return (
        Check(f"{field}.matchLabels|labels", _labels),
        Check(field, lambda selector: any(dict(selector).values()), text, "warning"),
    )


SELECTOR = selector("spec.selector")
SELECTION = (
    TARGET_REFS,
    Check("spec", _one_attachment, "only one of targetRefs or workloadSelector can be set"),
    *SELECTOR,
)


def labels(resource: Resource) -> Mapping[str, str]:
    """Returns the labels that a resource selects pods by; none when it holds for all of them."""
    spec = resource.spec
    selector = spec.selector if hasattr(spec, "selector") else spec.workload_selector
    if selector is None:
        return {}
    found: Mapping[str, str] = (
        selector.match_labels if hasattr(selector, "match_labels") else selector.labels
    )
    return found


class Workload(Protocol):
    """A pod, or an endpoint without one."""

    @property
    def namespace(self) -> str: ...

    @property
    def labels(self) -> Mapping[str, str]: ...


def for_pod(snapshot: Snapshot, kind: str, pod: Pod) -> list[Resource]:
    """Returns the resources of the root namespace and the pod's for this pod, oldest first."""
    return [
        resource
        for resource in snapshot.of(kind)
        if resource.namespace in (snapshot.root_namespace, pod.namespace)
        and names.selects(labels(resource), pod.labels)
    ]


def of_namespace(snapshot: Snapshot, kind: str, namespace: str) -> Resource | None:
    """Returns the oldest resource of a namespace that holds for all of its pods.

    In the root namespace it holds for the whole mesh.
    """
    found = (one for one in snapshot.of(kind) if one.namespace == namespace and not labels(one))
    return next(found, None)


def of_workload(snapshot: Snapshot, kind: str, workload: Workload) -> list[Resource]:
    """Returns the resources of a workload's namespace that select it by labels, oldest first."""
    return [
        resource
        for resource in snapshot.of(kind)
        if resource.namespace == workload.namespace
        and labels(resource)
        and names.selects(labels(resource), workload.labels)
    ]
