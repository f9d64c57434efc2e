"""Sidecar: the hosts a proxy knows, and its mode for unknown ones."""

from __future__ import annotations

from typing import Literal

from lab import names
from lab.kinds.sidecar.checks import SidecarSpec
from lab.model import Pod, Snapshot
from lab.resources.resource import Origin, Path, Resource

OutboundMode = Literal["ALLOW_ANY", "REGISTRY_ONLY"]


def applicable(snapshot: Snapshot, pod: Pod) -> Resource | None:
    """The Sidecar that applies: one selecting the pod, else its namespace's, else the root's."""
    if pod.proxy != "sidecar":
        return None
    own = [found for found in snapshot.of("Sidecar") if found.namespace == pod.namespace]
    for found in own:
        selector = found.spec.workload_selector
        if selector and selector.labels and names.selects(selector.labels, pod.labels):
            return found
    root = [found for found in snapshot.of("Sidecar") if found.namespace == snapshot.root_namespace]
    for found in (*own, *root):
        if not (found.spec.workload_selector and found.spec.workload_selector.labels):
            return found
    return None


def outbound_mode(sidecar: Resource | None, snapshot: Snapshot) -> tuple[OutboundMode, Origin]:
    """Returns the mode for hosts outside the registry, and its origin.

    The Sidecar's policy comes before the mesh's.
    """
    if sidecar is not None and sidecar.spec.outbound_traffic_policy is not None:
        path: Path = ("spec", "outboundTrafficPolicy")
        return sidecar.spec.outbound_traffic_policy.mode, Origin(sidecar.source, path, sidecar)
    policy = snapshot.mesh.get("outboundTrafficPolicy") or {}
    mode: OutboundMode = "REGISTRY_ONLY" if policy.get("mode") == "REGISTRY_ONLY" else "ALLOW_ANY"
    path = ("spec", "meshConfig", "outboundTrafficPolicy")
    for operator in reversed(snapshot.of("IstioOperator")):
        if path in operator.source.lines:
            return mode, Origin(operator.source, path, operator)
    return mode, Origin()


def imports(sidecar: Resource | None, namespace: str, host: str) -> bool:
    """Whether a host of `namespace` is among those the Sidecar's egress lists."""
    if sidecar is None:
        return True
    spec: SidecarSpec = sidecar.spec
    if not spec.egress:
        return True
    for listener in spec.egress:
        for entry in listener.hosts:
            where, _, pattern = entry.partition("/")
            if where == "~":
                continue
            where = sidecar.namespace if where == "." else where
            if where in ("*", namespace) and (
                names.matches(pattern, host) or names.matches(host, pattern)
            ):
                return True
    return False
