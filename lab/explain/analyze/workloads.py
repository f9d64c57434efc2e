"""Sidecars, Telemetries and policies: the pods that they select."""

from __future__ import annotations

from collections.abc import Iterator

from lab import names
from lab.explain.analyze.finding import Finding, about, shown
from lab.kinds import selection
from lab.model import Pod, Snapshot
from lab.resources.resource import Path, Resource


def policies(snapshot: Snapshot) -> Iterator[Finding]:
    """Yields policies that hold for no pod with a proxy (IST0127)."""
    meshed = [pod for pod in snapshot.pods if pod.proxy != "none"]
    kinds = ("AuthorizationPolicy", "RequestAuthentication", "PeerAuthentication")
    for policy in (found for kind in kinds for found in snapshot.of(kind)):
        labels = selection.labels(policy)
        everywhere = policy.namespace == snapshot.root_namespace
        if not labels and (everywhere or policy.kind != "AuthorizationPolicy"):
            continue
        if not any(
            names.selects(labels, pod.labels)
            for pod in meshed
            if everywhere or pod.namespace == policy.namespace
        ):
            text = (
                "No matching workloads for this resource with the following labels: "
                f"{shown(labels)}"
            )
            yield about("IST0127", policy, text, "spec", "selector")


def namespaces(snapshot: Snapshot) -> Iterator[Finding]:
    """Yields sources of AuthorizationPolicies in namespaces that are not there (IST0101)."""
    known = {item.name for item in snapshot.of("Namespace")}
    known |= {pod.namespace for pod in snapshot.pods} | {"default", snapshot.root_namespace}
    for policy in snapshot.of("AuthorizationPolicy"):
        for path, pattern in _sources(policy):
            if not any(_fits(pattern, name) for name in known):
                text = f'Referenced namespace not found: "{pattern}"'
                yield about("IST0101", policy, text, *path)


def _sources(policy: Resource) -> Iterator[tuple[Path, str]]:
    for index, rule in enumerate(policy.spec.rules or ()):
        for position, item in enumerate((rule.from_ if rule is not None else None) or ()):
            source = item.source
            at = ("spec", "rules", index, "from", position, "source")
            for field, values in (
                ("namespaces", source.namespaces if source else None),
                ("notNamespaces", source.not_namespaces if source else None),
            ):
                for place, value in enumerate(values or ()):
                    yield (*at, field, place), value


def _fits(pattern: str, name: str) -> bool:
    if pattern.startswith("*"):
        return name.endswith(pattern[1:])
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


_KINDS = (
    ("Sidecar", "Sidecars", "workloadSelector", "IST0110", "IST0111"),
    ("Telemetry", "Telemetries", "selector", "IST0159", "IST0160"),
)
"""Kinds of which one holds for a pod, with their plural, the field of their selector, and the
codes of several for a pod and for a namespace."""


def conflicts(snapshot: Snapshot) -> Iterator[Finding]:
    """Yields Sidecars and Telemetries for the same pod (IST0110, IST0159), and several for a whole
    namespace (IST0111, IST0160)."""
    for kind, plural, field, for_pod, for_namespace in _KINDS:
        owners: dict[tuple[str, str], list[Resource]] = {}
        whole: dict[str, list[Resource]] = {}
        for resource in snapshot.of(kind):
            if not selection.labels(resource):
                whole.setdefault(resource.namespace, []).append(resource)
                continue
            for pod in _selected(snapshot, resource):
                owners.setdefault((pod.namespace, pod.name), []).append(resource)
        for (namespace, pod_name), found in owners.items():
            for resource in found if len(found) > 1 else ():
                text = (
                    f'The {plural} {_names(found)} in namespace "{namespace}" select the same '
                    f'workload pod "{pod_name}", which can lead to undefined behavior.'
                )
                yield about(for_pod, resource, text, "spec", field)
        for namespace, found in whole.items():
            for resource in found if len(found) > 1 else ():
                text = (
                    f'The {plural} {_names(found)} in namespace "{namespace}" have no workload '
                    "selector, which can lead to undefined behavior."
                )
                yield about(for_namespace, resource, text)


def selectors(snapshot: Snapshot) -> Iterator[Finding]:
    """Yields Sidecars and Telemetries that select no pod of their namespace (IST0101)."""
    for kind, _, field, _, _ in _KINDS:
        for resource in snapshot.of(kind):
            labels = selection.labels(resource)
            if labels and not _selected(snapshot, resource):
                text = f'Referenced selector not found: "{shown(labels)}"'
                yield about("IST0101", resource, text, "spec", field)


def _selected(snapshot: Snapshot, resource: Resource) -> list[Pod]:
    """Returns the pods of a resource's namespace with the labels that it selects."""
    labels = selection.labels(resource)
    return [
        pod
        for pod in snapshot.pods
        if pod.namespace == resource.namespace and names.selects(labels, pod.labels)
    ]


def _names(found: list[Resource]) -> str:
    return f"[{' '.join(sorted(item.name for item in found))}]"
