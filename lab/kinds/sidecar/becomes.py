"""Sidecar: which hosts a proxy knows, and what it does with unknown ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from lab import names
from lab.kinds.sidecar.types import SidecarSpec
from lab.model import Pod, Snapshot
from lab.resources.resource import Resource

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


def outbound_mode(sidecar: Resource | None, mesh: Mapping[str, Any]) -> OutboundMode:
    """What happens to traffic for hosts outside the registry; the Sidecar wins over the mesh."""
    if sidecar is not None and sidecar.spec.outbound_traffic_policy is not None:
        mode: OutboundMode = sidecar.spec.outbound_traffic_policy.mode
        return mode
    policy = mesh.get("outboundTrafficPolicy") or {}
    return "REGISTRY_ONLY" if policy.get("mode") == "REGISTRY_ONLY" else "ALLOW_ANY"


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
