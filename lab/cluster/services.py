"""Services: a virtual address each, a forwarder on each port, and host names."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from lab.cluster import forwarder
from lab.cluster.addresses import Slice, bindable
from lab.cluster.store import Store
from lab.kinds.kubernetes import service as service_kind
from lab.kinds.services import endpoints, resolve_port, selected
from lab.model import Pod, Service
from lab.resources.resource import Resource

GATEWAY = "istio-ingressgateway"
"""The Service of the ingress gateway, the only LoadBalancer that the lab publishes."""

Name = tuple[str, str]
"""Namespace and name."""

Address = tuple[str, int]


@dataclass(slots=True)
class Services:
    """The Services of a cluster, served as kube-proxy, cluster DNS and a load balancer do."""

    store: Store
    addresses: Slice
    http_port: int
    """The port of localhost that leads to port 80 of the ingress gateway."""
    https_port: int
    _virtual: dict[Name, str] = field(default_factory=dict)
    """Virtual addresses, also for headless Services: no DNS here would follow their pods."""
    _listeners: dict[Address, asyncio.Server] = field(default_factory=dict)

    def all(self) -> tuple[Service, ...]:
        """Returns the Services as the mesh and the pods see them, oldest first."""
        return tuple(self._service(record.resource) for record in self.store.of("Service"))

    def get(self, namespace: str, name: str) -> Service | None:
        record = self.store.get("Service", namespace, name)
        return None if record is None else self._service(record.resource)

    def _service(self, resource: Resource) -> Service:
        headless = resource.spec.cluster_ip == "None"
        address = None if headless else self._virtual.get((resource.namespace, resource.name))
        return service_kind.service(resource, address)

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

    def resolve(self, pod: Pod, host: str, port: int | None) -> tuple[str, int | None] | None:
        """Returns the address by which a pod's environment reaches `host:port`.

        None leaves the name as it is: it is no Service's, or the sidecar resolves it, as it does
        for HTTP, which goes through it as through an HTTP proxy.
        """
        service = service_kind.named(host, pod.namespace, self.all())
        if service is None:
            return None
        chosen = [item for item in service.ports if port in (None, item.port)]
        if not chosen:
            return None
        if pod.proxy != "none":
            tcp = all(item.protocol in ("TCP", "TLS") for item in chosen)
            return (pod.inside_address, port) if tcp else None
        address = self._virtual.get((service.namespace, service.name))
        if address is None:
            return None
        return address, None if port is None else bindable(address, port)

    async def serve(self, pods: Callable[[], Iterable[Pod]], *, publish_ui: bool) -> None:
        """Listens on the addresses of all Services, and releases those that are gone.

        `publish_ui` has localhost lead to the ui instead of the ingress gateway. Raises
        NoAddressesError, and OSError for a port that can't be bound.
        """
        resources = [record.resource for record in self.store.of("Service")]
        names = [(resource.namespace, resource.name) for resource in resources]
        for name in names:
            if name not in self._virtual:
                self._virtual[name] = self.addresses.take_service()
        for name in [name for name in self._virtual if name not in names]:
            self.addresses.release_service(self._virtual.pop(name))
        wanted: dict[Address, tuple[Name, int]] = {}
        for name, resource in zip(names, resources, strict=True):
            address = self._virtual[name]
            for port in resource.spec.ports:
                wanted[address, bindable(address, port.port)] = (name, port.port)
        if publish_ui:
            wanted["127.0.0.1", self.http_port] = (("default", "ui"), 80)
        for place in [place for place in self._listeners if place not in wanted]:
            self._listeners.pop(place).close()
        for place, (name, number) in wanted.items():
            if place not in self._listeners:
                ready = self._endpoints(name, number, pods)
                self._listeners[place] = await forwarder.listen(*place, ready)

    def _endpoints(
        self, name: Name, port: int, pods: Callable[[], Iterable[Pod]]
    ) -> forwarder.Endpoints:
        def ready() -> list[Address]:
            service = self.get(*name)
            ports = service.ports if service is not None else ()
            return [
                (endpoint.address, endpoint.port)
                for item in ports
                if service is not None and item.port == port
                for endpoint in endpoints(service, item, pods())
                if endpoint.ready
            ]

        return ready

    def close(self) -> None:
        """Stops listening."""
        for server in self._listeners.values():
            server.close()
