"""Selection of pods by policies: the fields of a selector, its checks, and the policies for a pod.

Istio looks for policies in the root namespace, in the pod's namespace, and there among those that
select the pod by labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import Field

from lab import names
from lab.model import Pod, Snapshot
from lab.resources.istio import IstioModel, Text, refused
from lab.resources.resource import Path, Problem, Resource

SECURITY_VERSIONS = ("v1", "v1beta1")
"""The versions of security.istio.io that Istio 1.30 serves."""

TARGET_REFS = (
    "it attaches a policy to a Gateway API gateway or a waypoint, which the lab doesn't have; "
    "select the pods with selector.matchLabels"
)


class PolicyTargetReference(IstioModel):
    group: Text | None = None
    kind: Text
    name: Text
    namespace: Text | None = None


class WorkloadSelector(IstioModel):
    match_labels: dict[Text, Text] = Field(default_factory=dict)


class Selecting(IstioModel):
    """A spec that is for the workloads of its namespace, or for those with certain labels."""

    selector: WorkloadSelector | None = None
    target_ref: PolicyTargetReference | None = refused(TARGET_REFS)
    target_refs: list[PolicyTargetReference] | None = refused(TARGET_REFS)


def selector_problems(spec: Selecting, path: Path) -> Iterator[Problem]:
    """Yields the problems that istiod finds in a selector."""
    attachments = [spec.selector, spec.target_ref, spec.target_refs or None]
    if sum(attachment is not None for attachment in attachments) > 1:
        yield Problem(path, "only one of targetRefs or selector can be set")
    if spec.selector is None:
        return
    where: Path = (*path, "selector", "matchLabels")
    for key, value in spec.selector.match_labels.items():
        if not key:
            yield Problem(where, f'empty key is not supported in selector: "{key}={value}"')
        if "*" in key or "*" in value:
            yield Problem((*where, key), f'wildcard is not supported in selector: "{key}={value}"')
    if not spec.selector.match_labels:
        yield Problem((*path, "selector"), "workload selector specified without labels", "warning")


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


def of_workload(snapshot: Snapshot, kind: str, pod: Pod) -> list[Resource]:
    """Returns the resources of a pod's namespace that select it by labels, oldest first."""
    return [
        resource
        for resource in snapshot.of(kind)
        if resource.namespace == pod.namespace
        and labels(resource)
        and names.selects(labels(resource), pod.labels)
    ]
