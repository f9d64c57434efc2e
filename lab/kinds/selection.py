"""What the security and telemetry kinds share: which workloads they are for."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from lab.resources.istio import IstioModel, Text, refused
from lab.resources.resource import Path, Problem

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
    """istiod's checks of a selector."""
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
