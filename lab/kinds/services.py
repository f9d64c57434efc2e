"""The service registry: the hosts of Services and ServiceEntries, and their endpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from lab import names
from lab.model import Pod, Service, ServicePort, Snapshot
from lab.resources.resource import Problem, Resource, Source

Resolution = Literal["NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS", "ALIAS"]
"""A ServiceEntry's; ALIAS: a Service of type ExternalName is another host's name."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address of a host's port."""

    address: str
    port: int
    labels: Mapping[str, str]
    namespace: str = ""
    weight: int = 1
    service_account: str = ""
    """`namespace/name`; empty when unknown."""
    pod: Pod | None = None
    ready: bool = True
    checked: bool = False
    """Whether it is Kubernetes that says whether it is ready."""
    ending: bool = False
    host_name: str = ""
    """Its name below a headless Service, where it has one."""
    locality: str = ""
    """`region/zone/subzone`, of which the last may be missing."""


@dataclass(frozen=True, slots=True)
class Host:
    """A host that clients can name (Istio's "service")."""

    name: str
    namespace: str
    ports: tuple[ServicePort, ...]
    resolution: Resolution
    source: Source
    external: bool = False
    """MESH_EXTERNAL: no mutual TLS towards it."""
    addresses: tuple[str, ...] = ()
    headless: bool = False
    export_to: tuple[str, ...] = ("*",)
    service: Service | None = None
    entry: Resource | None = None
    subject_alt_names: tuple[str, ...] = field(default=())
    aliases: tuple[str, ...] = ()
    """The names of Services of type ExternalName that stand for it."""
    parts: tuple[Host, ...] = ()
    """The definitions that are merged in this one; none when there is one alone."""

    @property
    def cluster_ports(self) -> tuple[ServicePort, ...]:
        """The ports with clusters: a ServiceEntry adds none to a Service of its name."""
        if self.service is None:
            return self.ports
        return tuple(port for port in self.ports if port in self.service.ports)

    def addresses_at(self, port: int) -> tuple[str, ...]:
        """Returns the addresses by which a port is asked for: of its last definition."""
        found = [part for part in self.parts if part.port(port) is not None]
        return found[-1].addresses if found else self.addresses

    def port(self, number: int) -> ServicePort | None:
        return next((port for port in self.ports if port.port == number), None)


def merged(first: Host, second: Host) -> Host:
    """Returns two definitions of one host as istiod merges them; the first where they differ."""
    if (first.namespace, first.resolution) != (second.namespace, second.resolution):
        return first
    if first.resolution == "DNS_ROUND_ROBIN":
        return first  # Envoy resolves one name for such a cluster.
    return replace(
        first,
        ports=(*first.ports, *(port for port in second.ports if not first.port(port.port))),
        addresses=tuple(dict.fromkeys((*first.addresses, *second.addresses))),
        parts=(*(first.parts or (first,)), second),
    )


EXPORT_TO = "networking.istio.io/exportTo"


def of_service(service: Service) -> Host:
    """Returns a Kubernetes Service as a host of the service registry."""
    export = service.annotations.get(EXPORT_TO, "*")
    return Host(
        name=service.host,
        namespace=service.namespace,
        ports=service.ports,
        resolution="ALIAS" if service.external_name else "STATIC",
        source=service.source,
        addresses=(service.cluster_ip,) if service.cluster_ip else (),
        headless=service.cluster_ip is None and not service.external_name,
        export_to=tuple(name.strip() for name in export.split(",") if name.strip()),
        service=service,
    )


def aliases(snapshot: Snapshot) -> dict[str, tuple[str, ...]]:
    """Returns the names that stand for each host, by the host; a circle stands for none."""
    targets = {one.host: one.external_name for one in snapshot.services if one.external_name}
    found: dict[str, tuple[str, ...]] = {}
    for alias in sorted(targets):
        name, seen = targets[alias], {alias}
        while name in targets and name not in seen:
            seen.add(name)
            name = targets[name]
        if name not in seen:
            found[name] = (*found.get(name, ()), alias)
    return found


def exported(export_to: tuple[str, ...] | list[str] | None, owner: str, client: str) -> bool:
    """Returns whether a resource of namespace `owner` is visible in namespace `client`."""
    targets = tuple(export_to or ("*",))
    return "*" in targets or client in targets or ("." in targets and owner == client)


def selected(service: Service, pod: Pod) -> bool:
    """Returns whether a Service selects a pod; without a selector it selects none."""
    return (
        service.namespace == pod.namespace
        and bool(service.selector)
        and names.selects(service.selector, pod.labels)
    )


def endpoints(service: Service, port: ServicePort, pods: Iterable[Pod]) -> list[Endpoint]:
    """Returns the endpoints of a Service's port: a pod each, in their order, then written ones.

    With `publishNotReadyAddresses` all pods count as ready.
    """
    pods = tuple(pods)
    found = [
        replace(
            pod_endpoint(pod, number),
            ready=pod.ready or service.publish_not_ready,
            host_name=pod.host_name if pod.subdomain == service.name else "",
        )
        for pod in pods
        if selected(service, pod) and (number := resolve_port(pod, port.target_port)) is not None
    ]
    for item in service.written:
        if item.port_name != port.name:
            continue
        # Labels and identity of an address are those of the pod that has it, if one does.
        own = [p for p in pods if (p.address, p.namespace) == (item.address, service.namespace)]
        end = Endpoint(item.address, item.port, {}, service.namespace)
        end = pod_endpoint(own[0], item.port) if own else end
        end = replace(end, ready=item.ready, ending=item.ending, checked=True)
        found.append(replace(end, host_name=item.host_name))
    return found


def ready_endpoints(service: Service, port: ServicePort, pods: Iterable[Pod]) -> list[Endpoint]:
    """Returns the endpoints of a Service's port to which connections are led."""
    return [end for end in endpoints(service, port, pods) if end.ready]


TOPOLOGY = (
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.istio.io/subzone",
)
"""The labels of a workload's locality, which Istio adds to its own."""

NETWORK = "topology.istio.io/network"
"""The label of a workload's network."""


def locality(labels: Mapping[str, str]) -> str:
    """Returns the locality that a workload's labels give it, with dots where a slash can't be."""
    label = labels.get("topology.istio.io/locality") or labels.get("istio-locality", "")
    return label if "/" in label else label.replace(".", "/")


def with_topology(labels: Mapping[str, str], place: str | None = None) -> Mapping[str, str]:
    """Returns the labels of a workload with those of its locality."""
    parts = (locality(labels) if place is None else place).split("/")
    found = {name: part for name, part in zip(TOPOLOGY, parts, strict=False) if part}
    return {**labels, **found} if found else labels


def pod_endpoint(pod: Pod, number: int) -> Endpoint:
    return Endpoint(
        address=pod.address,
        port=number,
        labels=with_topology(pod.labels),
        namespace=pod.namespace,
        locality=locality(pod.labels),
        service_account=f"{pod.namespace}/{pod.service_account}",
        pod=pod,
        ready=pod.ready,
        checked=True,
    )


def resolve_port(pod: Pod, target: int | str) -> int | None:
    """Returns a target port's number in one pod; None when it has no port of that name."""
    if isinstance(target, int):
        return target
    return pod.ports.get(target)


def published(
    services: Iterable[Service], gateway: Pod, node_port: Callable[[Service, int], int | None]
) -> dict[int, tuple[tuple[str, int], ...]]:
    """Returns the addresses of localhost that lead to a gateway pod, by container port."""
    found: dict[int, tuple[tuple[str, int], ...]] = {}
    for service in services:
        for port in service.ports if selected(service, gateway) else ():
            number = node_port(service, port.port)
            target = resolve_port(gateway, port.target_port)
            if number is not None and target is not None:
                found[target] = (*found.get(target, ()), ("127.0.0.1", number))
    return found


def services_of(snapshot: Snapshot, pod: Pod) -> list[Service]:
    """Returns the Services that select a pod, oldest first.

    Where none does, they are those that have its address among their written endpoints.
    """
    return [service for service in snapshot.services if selected(service, pod)] or [
        service
        for service in snapshot.services
        if service.namespace == pod.namespace
        and any(item.address == pod.address for item in service.written)
    ]


def target(service: Service, port: ServicePort, pod: Pod) -> int | None:
    """Returns the port of a pod to which a port of one of its Services leads."""
    ends = endpoints(service, port, (pod,))
    return ends[0].port if ends else None


def taken_ports(resource: Resource, snapshot: Snapshot) -> Iterator[Problem]:
    """Yields a warning for each TCP port of a Service that an older one has."""
    owners: dict[int, Service] = {}
    for service in snapshot.services:
        own = (service.namespace, service.name) == (resource.namespace, resource.name)
        for index, port in enumerate(service.ports):
            if port.protocol != "TCP":
                continue
            owner = owners.setdefault(port.port, service)
            if own and owner is not service:
                yield Problem(
                    ("spec", "ports", index),
                    f"sidecars listen on TCP port {port.port} for {owner.namespace}/{owner.name}: "
                    "through them this Service is not reached (on a cluster each has an address "
                    "of its own)",
                    "warning",
                )
