"""Sidecar: the hosts a proxy knows, and its policy for unknown ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from lab import names
from lab.kinds import selection
from lab.kinds.sidecar.types import SidecarSpec
from lab.model import Pod, Snapshot
from lab.resources.resource import Resource

OutboundMode = Literal["ALLOW_ANY", "REGISTRY_ONLY"]


def applicable(snapshot: Snapshot, pod: Pod) -> Resource | None:
    """Returns the Sidecar of a pod: its own, else its namespace's, else the root namespace's."""
    if pod.proxy != "sidecar":
        return None
    selecting = selection.of_workload(snapshot, "Sidecar", pod)
    return (
        next(iter(selecting), None)
        or selection.of_namespace(snapshot, "Sidecar", pod.namespace)
        or selection.of_namespace(snapshot, "Sidecar", snapshot.root_namespace)
    )


def outbound_mode(sidecar: Resource | None, mesh: Mapping[str, Any]) -> OutboundMode:
    """What happens to traffic for hosts outside the registry; the Sidecar wins over the mesh."""
    if sidecar is not None and sidecar.spec.outbound_traffic_policy is not None:
        mode: OutboundMode = sidecar.spec.outbound_traffic_policy.mode
        return mode
    policy = mesh.get("outboundTrafficPolicy") or {}
    return "REGISTRY_ONLY" if policy.get("mode") == "REGISTRY_ONLY" else "ALLOW_ANY"


def imports(sidecar: Resource | None, namespace: str, host: str) -> bool:
    """Returns whether the egress of a Sidecar lists a host of `namespace`."""
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
