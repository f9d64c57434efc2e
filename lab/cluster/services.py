"""The Services of a cluster, and the ports of localhost that lead to some of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from lab.cluster.host_ports import NODE_PORTS, BindError, node_port
from lab.cluster.network import Address, Network
from lab.cluster.store import Store
from lab.kinds.kubernetes import service as service_kind
from lab.kinds.kubernetes.core import OUT_OF_RANGE, WITH_NODE_PORTS
from lab.kinds.services import published, selected
from lab.model import Pod, Service
from lab.resources.resource import Resource

GATEWAY = "istio-ingressgateway"
"""The Service of the ingress gateway, whose ports 80 and 443 have numbers of their own."""


_Place = tuple[str, str, int]
"""Namespace, name and port of a Service."""


@dataclass(slots=True)
class Services:
    """The Services of a cluster, as kube-proxy, cluster DNS and a load balancer serve them."""

    store: Store
    network: Network
    http_port: int
    """The port of localhost that leads to port 80 of the ingress gateway."""
    https_port: int
    _node_ports: dict[_Place, tuple[int | None, int]] = field(default_factory=dict)
    """The numbers that Services ask for and have."""

    def all(self) -> tuple[Service, ...]:
        """Returns the Services as the mesh and the pods see them, oldest first."""
        given = self._endpoint_objects()
        return tuple(self._service(record.resource, given) for record in self.store.of("Service"))

    def get(self, namespace: str, name: str) -> Service | None:
        record = self.store.get("Service", namespace, name)
        if record is None:
            return None
        return self._service(record.resource, self._endpoint_objects())

    def _service(self, resource: Resource, endpoint_objects: Sequence[Resource]) -> Service:
        address = None
        if service_kind.has_address(resource):
            address = self.network.cluster_ip((resource.namespace, resource.name))
        return service_kind.service(resource, address, endpoint_objects)

    def _endpoint_objects(self) -> list[Resource]:
        kinds = ("Endpoints", "EndpointSlice")
        return [record.resource for kind in kinds for record in self.store.of(kind)]

    def node_port(self, service: Service, port: int) -> int | None:
        """Returns the port of localhost that leads to a port of a NodePort or a LoadBalancer."""
        record = self.store.get("Service", service.namespace, service.name)
        if record is None or record.resource.spec.type not in WITH_NODE_PORTS:
            return None
        if service.name == GATEWAY and port in (80, 443):
            return self.http_port if port == 80 else self.https_port
        asked = next(item.node_port for item in record.resource.spec.ports if item.port == port)
        place = (service.namespace, service.name, port)
        before, number = self._node_ports.get(place, (None, None))
        if number is None or asked not in (None, before, number):
            taken = {self.http_port, self.https_port, *self._taken()}
            # The gateway's port, as labs side by side should not want the same numbers.
            name = "/".join(map(str, (self.http_port, *place)))
            number = node_port(name, asked, taken)
        if number is not None:
            self._node_ports[place] = asked, number
        return number

    def _taken(self) -> dict[int, _Place]:
        return {number: place for place, (_, number) in self._node_ports.items()}

    def node_port_problems(self, resource: Resource) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """Yields the path and the reason for each node port that a Service can't have."""
        others = {number: place[:2] for number, place in self._taken().items()} | {
            port.node_port: (record.resource.namespace, record.resource.name)
            for record in self.store.of("Service")
            for port in record.resource.spec.ports
            if port.node_port is not None
        }
        own = (resource.namespace, resource.name)
        for index, port in enumerate(resource.spec.ports):
            number, path = port.node_port, ("ports", index, "nodePort")
            if number is None or (resource.name == GATEWAY and port.port in (80, 443)):
                continue
            if number not in NODE_PORTS:
                yield path, OUT_OF_RANGE
            elif others.get(number, own) != own:
                yield path, "provided port is already allocated"

    def published(self, gateway: Pod) -> dict[int, tuple[Address, ...]]:
        """Returns the addresses of localhost that lead to a gateway pod, by container port."""
        return published(self.all(), gateway, self.node_port)

    async def serve(self, pods: Callable[[], Iterable[Pod]], *, publish_ui: bool) -> None:
        """Has the network lead to the Services' endpoints of now.

        `publish_ui` has localhost lead to the ui instead of the ingress gateway. Raises
        NoAddressesError, and OSError for a port that can't be bound.
        """
        services = self.all()
        there = {
            (record.resource.namespace, record.resource.name, port.port)
            for record in self.store.of("Service")
            if record.resource.spec.type in WITH_NODE_PORTS
            for port in record.resource.spec.ports
        }
        for gone in self._node_ports.keys() - there:
            del self._node_ports[gone]
        gateways = [pod for pod in pods() if pod.proxy == "gateway"]
        places = {
            ("127.0.0.1", number): ((item.namespace, item.name), port.port)
            for item in services
            if not any(selected(item, gateway) for gateway in gateways)
            for port in item.ports
            if (number := self.node_port(item, port.port)) is not None
        }
        if publish_ui:
            places["127.0.0.1", self.http_port] = (("default", "ui"), 80)
        try:
            await self.network.serve(self.all, pods, places)
        except BindError as error:
            # Another program was quicker; the next round takes another number.
            for number, place in self._taken().items():
                if number in error.ports:
                    del self._node_ports[place]
            raise
