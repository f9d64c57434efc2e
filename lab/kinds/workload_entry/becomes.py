"""WorkloadEntry: an endpoint outside the cluster, which ServiceEntries and Services select."""

from __future__ import annotations

from collections.abc import Mapping

from lab import names
from lab.kinds import services
from lab.kinds.services import Endpoint
from lab.kinds.types import WorkloadEntrySpec
from lab.model import Service, ServicePort, Snapshot
from lab.resources.resource import Resource
from lab.resources.values import is_ip


def selected(snapshot: Snapshot, selector: Mapping[str, str], namespace: str) -> list[Resource]:
    """Returns the entries of a namespace that have some labels, by name."""
    found = [
        entry
        for entry in snapshot.of("WorkloadEntry")
        if entry.namespace == namespace and names.selects(selector, _labels(entry))
    ]
    return sorted(found, key=lambda entry: entry.name)


def _labels(entry: Resource) -> dict[str, str]:
    return {**entry.spec.labels, **entry.labels}


def has_address(entry: Resource) -> bool:
    """Returns whether an entry has an address, and not a name that DNS resolves."""
    return is_ip(entry.spec.address or "")


def endpoint(entry: Resource, port: int) -> Endpoint:
    """Returns an entry as an endpoint."""
    return as_endpoint(entry.spec, entry.namespace, port, _labels(entry))


def as_endpoint(
    spec: WorkloadEntrySpec, namespace: str, port: int, labels: Mapping[str, str]
) -> Endpoint:
    place = spec.locality or services.locality(labels)
    if spec.network:
        labels = {services.NETWORK: spec.network, **labels}
    account = spec.service_account
    return Endpoint(
        address=spec.address or "",
        port=port,
        labels=services.with_topology(labels, place),
        namespace=namespace,
        weight=spec.weight or 1,
        service_account=f"{namespace}/{account}" if account else "",
        locality=place,
    )


def of_service(snapshot: Snapshot, service: Service, port: ServicePort) -> list[Endpoint]:
    """Returns the entries that a Service selects: proxies know them, kube-proxy doesn't.

    A port of the target port's name comes first, or of the Service port's where that is a number.
    """
    if not service.selector or service.cluster_ip is None:
        return []
    target = port.target_port
    found = []
    for entry in selected(snapshot, service.selector, service.namespace):
        ports = entry.spec.ports
        number = ports.get(port.name, target) if isinstance(target, int) else ports.get(target)
        if number is not None and has_address(entry):
            found.append(endpoint(entry, number))
    return found
