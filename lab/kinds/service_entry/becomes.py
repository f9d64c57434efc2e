"""ServiceEntry: hosts outside the cluster, or unknown to Kubernetes, in the service registry."""

from __future__ import annotations

import ipaddress

from lab import names
from lab.kinds import selection
from lab.kinds.service_entry.types import ServiceEntryPort, ServiceEntrySpec
from lab.kinds.services import Endpoint, Host, pod_endpoint
from lab.kinds.workload_entry import becomes as workload_entry
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


def endpoints(snapshot: Snapshot, host: Host, port: ServicePort) -> list[Endpoint]:
    """Returns the addresses (with DNS, the names to resolve) of one port of a ServiceEntry's host.

    istiod sends them once for each address that the ServiceEntry itself has.
    """
    entry = host.entry
    if entry is None:
        return []
    spec: ServiceEntrySpec = entry.spec
    number = int(port.target_port)
    copies = max(1, len(spec.addresses))
    by_name = spec.resolution in ("DNS", "DNS_ROUND_ROBIN")
    if spec.workload_selector is None:
        own = [Endpoint(host.name, number, {})] if by_name else []
        return [
            workload_entry.as_endpoint(
                one, entry.namespace, one.ports.get(port.name, number), one.labels
            )
            for one in spec.endpoints
        ] * copies or own * copies
    pods = [pod for pod in snapshot.pods if selected(entry, pod)]
    entries = [
        one
        for one in workload_entry.selected(snapshot, selection.labels(entry), entry.namespace)
        if by_name or workload_entry.has_address(one)
    ]
    found = [pod_endpoint(pod, target(port, pod)) for pod in pods]
    found += [
        workload_entry.endpoint(one, one.spec.ports.get(port.name, number)) for one in entries
    ]
    return found * copies
