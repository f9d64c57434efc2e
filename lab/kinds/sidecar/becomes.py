"""Sidecar: the hosts a proxy knows, and its mode for unknown ones."""

from __future__ import annotations

from lab import names
from lab.kinds import selection
from lab.kinds.mesh_config import becomes as mesh_config
from lab.kinds.mesh_config.checks import MeshConfig, OutboundMode
from lab.kinds.sidecar.types import SidecarSpec
from lab.model import Pod, Snapshot
from lab.resources.resource import Origin, Path, Resource


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


def outbound_mode(
    sidecar: Resource | None, mesh: MeshConfig, snapshot: Snapshot
) -> tuple[OutboundMode, Origin]:
    """Returns the mode for hosts outside the registry, and its origin.

    The Sidecar's policy comes before the mesh's.
    """
    if sidecar is not None and sidecar.spec.outbound_traffic_policy is not None:
        path: Path = ("spec", "outboundTrafficPolicy")
        return sidecar.spec.outbound_traffic_policy.mode, Origin(sidecar.source, path, sidecar)
    field = "outboundTrafficPolicy"
    return mesh.outbound_traffic_policy.mode, mesh_config.origin(snapshot, field)


def imports(sidecar: Resource | None, namespace: str, host: str) -> bool:
    """Returns whether the egress of a Sidecar lists a host of `namespace`."""
    if sidecar is None:
        return True
    spec: SidecarSpec = sidecar.spec
    if not spec.egress:
        return True
    entries = [entry for listener in spec.egress for entry in listener.hosts]
    if any(entry.startswith("~") for entry in entries):
        return False
    for entry in entries:
        where, _, pattern = entry.partition("/")
        where = sidecar.namespace if where == "." else where
        if where in ("*", namespace) and (
            names.matches(pattern, host) or names.matches(host, pattern)
        ):
            return True
    return False
