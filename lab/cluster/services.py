"""The Services of a cluster, and the ports of localhost that lead to some of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from lab.cluster.network import Address, Network
from lab.cluster.store import Store
from lab.kinds.kubernetes import service as service_kind
from lab.kinds.services import resolve_port, selected
from lab.model import Pod, Service
from lab.resources.resource import Resource

GATEWAY = "istio-ingressgateway"
"""The Service of the ingress gateway, the only LoadBalancer that the lab publishes."""


@dataclass(slots=True)
class Services:
    """The Services of a cluster, as kube-proxy, cluster DNS and a load balancer serve them."""

    store: Store
    network: Network
    http_port: int
    """The port of localhost that leads to port 80 of the ingress gateway."""
    https_port: int

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

    def load_balancer_port(self, service: Service, port: int) -> int | None:
        """Returns the port of localhost that leads to a port of the ingress gateway's Service."""
        record = self.store.get("Service", service.namespace, service.name)
        if record is None or record.resource.spec.type != "LoadBalancer":
            return None
        if service.name != GATEWAY:
            return None
        return {80: self.http_port, 443: self.https_port}.get(port)

    def published(self, gateway: Pod) -> dict[int, tuple[Address, ...]]:
        """Returns the addresses of localhost that lead to a gateway pod, by container port."""
        found: dict[int, tuple[Address, ...]] = {}
        for service in self.all():
            for port in service.ports if selected(service, gateway) else ():
                number = self.load_balancer_port(service, port.port)
                target = resolve_port(gateway, port.target_port)
                if number is not None and target is not None:
                    found[target] = (*found.get(target, ()), ("127.0.0.1", number))
        return found

    async def serve(self, pods: Callable[[], Iterable[Pod]], *, publish_ui: bool) -> None:
        """Has the network lead to the Services' endpoints of now.

        `publish_ui` has localhost lead to the ui instead of the ingress gateway. Raises
        NoAddressesError, and OSError for a port that can't be bound.
        """
        ui = {("127.0.0.1", self.http_port): (("default", "ui"), 80)} if publish_ui else {}
        await self.network.serve(self.all, pods, ui)
