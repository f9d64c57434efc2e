"""ServiceEntry: hosts outside the cluster, or unknown to Kubernetes, in the service registry."""

from __future__ import annotations

import ipaddress

from lab import names
from lab.kinds import selection
from lab.kinds.service_entry.types import ServiceEntryPort, ServiceEntrySpec
from lab.kinds.services import Endpoint, Host, pod_endpoint
from lab.model import PROTOCOLS, Pod, PortProtocol, ServicePort, Snapshot
from lab.resources.resource import Resource


def protocol(port: ServiceEntryPort) -> PortProtocol:
    """Returns a port's protocol, by its name when none is given."""
    if port.protocol:
        return PROTOCOLS[port.protocol.upper()]
    prefix = port.name.split("-", 1)[0].upper()
    return PROTOCOLS.get(prefix, "AUTO")


def hosts(entry: Resource) -> list[Host]:
    """Returns a ServiceEntry as hosts of the service registry, one for each name."""
    spec: ServiceEntrySpec = entry.spec
    ports = tuple(
        ServicePort(port.name, port.number, port.target_port or port.number, protocol(port))
        for port in spec.ports
    )
    return [
        Host(
            name=name,
            namespace=entry.namespace,
            ports=ports,
            resolution=spec.resolution,
            source=entry.source,
            external=spec.location == "MESH_EXTERNAL",
            addresses=tuple(map(_address, spec.addresses)),
            export_to=tuple(spec.export_to or ("*",)),
            entry=entry,
            subject_alt_names=tuple(spec.subject_alt_names),
        )
        for name in spec.hosts
    ]


def _address(given: str) -> str:
    """Returns a range of a single address as this address."""
    network = ipaddress.ip_network(given, strict=False)
    return str(network.network_address) if network.num_addresses == 1 else given


def selected(entry: Resource, pod: Pod) -> bool:
    """Returns whether a ServiceEntry selects a pod."""
    return (
        entry.spec.workload_selector is not None
        and pod.namespace == entry.namespace
        and names.selects(selection.labels(entry), pod.labels)
    )


def target(port: ServicePort, pod: Pod) -> int:
    """Returns the port of a selected pod: its own of that name, else the ServiceEntry's."""
    return pod.ports.get(port.name, int(port.target_port))


def endpoints(snapshot: Snapshot, entry: Resource, port: ServicePort) -> list[Endpoint]:
    """Returns the addresses (with DNS, the names to resolve) of one port of a ServiceEntry.

    istiod sends them once for each address that the ServiceEntry itself has.
    """
    spec: ServiceEntrySpec = entry.spec
    number = int(port.target_port)
    copies = max(1, len(spec.addresses))
    if spec.workload_selector is not None:
        pods = [pod for pod in snapshot.pods if selected(entry, pod)]
        return [pod_endpoint(pod, target(port, pod)) for pod in pods] * copies
    return [
        Endpoint(
            address=endpoint.address or "",
            port=endpoint.ports.get(port.name, number),
            labels=endpoint.labels,
            weight=endpoint.weight or 1,
            service_account=(
                f"{entry.namespace}/{endpoint.service_account}" if endpoint.service_account else ""
            ),
        )
        for endpoint in spec.endpoints
    ] * copies
