"""Sidecar: the hosts a proxy knows, its listeners, and its mode for unknown hosts."""

from __future__ import annotations

from lab import names
from lab.kinds import selection
from lab.kinds.mesh_config import becomes as mesh_config
from lab.kinds.mesh_config.checks import MeshConfig, OutboundMode
from lab.kinds.sidecar.types import IstioEgressListener, SidecarPort
from lab.model import PROTOCOLS, Pod, ServicePort, Snapshot
from lab.resources.resource import Origin, Path, Resource

EVERYTHING = IstioEgressListener(hosts=["*/*"])
"""The egress listener of a proxy whose Sidecar has none."""


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


def unknown_cluster(sidecar: Resource | None, mode: OutboundMode) -> str:
    """Returns the cluster of connections to hosts outside the registry."""
    if mode == "REGISTRY_ONLY":
        return names.BLACK_HOLE
    policy = sidecar.spec.outbound_traffic_policy if sidecar is not None else None
    if policy is None or policy.egress_proxy is None:
        return names.PASSTHROUGH
    proxy = policy.egress_proxy
    return names.cluster(proxy.port.number, proxy.host, proxy.subset or "")


def egress(sidecar: Resource | None) -> list[IstioEgressListener]:
    """Returns the egress listeners; without any there is one for everything."""
    return (sidecar.spec.egress if sidecar is not None else None) or [EVERYTHING]


def port(given: SidecarPort) -> ServicePort:
    """Returns the port of a listener; without a protocol an inspector finds it out."""
    protocol = PROTOCOLS.get(given.protocol.upper(), "AUTO")
    return ServicePort(given.name, given.number, given.number, protocol)


def imports(
    listener: IstioEgressListener, own: str, namespace: str, host: str, *, covers: bool = False
) -> bool:
    """Returns whether a listener of a pod in namespace `own` lists a host of `namespace`.

    `covers`: also a host, of a VirtualService, that covers a listed one.
    """
    listed = False
    for entry in listener.hosts:
        where, _, pattern = entry.removeprefix("~").partition("/")
        excluded = entry.startswith("~")
        where = own if where == "." else where or "*"
        if where not in ("*", namespace):
            continue
        if excluded and names.matches(pattern, host):
            return False
        listed |= not excluded and (
            names.matches(pattern, host) or (covers and names.matches(host, pattern))
        )
    return listed
