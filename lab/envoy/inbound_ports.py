"""Ports that a sidecar serves: those of its pod's Services, or those that its Sidecar lists."""

from __future__ import annotations

from dataclasses import dataclass

from lab import names
from lab.kinds import services
from lab.kinds.service_entry import becomes as service_entry
from lab.kinds.services import Host
from lab.kinds.sidecar.becomes import port as listener_port
from lab.kinds.sidecar.checks import UNIX
from lab.kinds.sidecar.types import IstioIngressListener
from lab.kinds.visible import View
from lab.model import Json, Pod, ServicePort
from lab.resources.resource import Resource
from lab.xds import address


@dataclass(frozen=True, slots=True)
class InboundPort:
    target: int
    """The port that connections to the pod ask for."""
    port: ServicePort
    host: Host
    """Its Service or ServiceEntry; without one a stand-in named after the Sidecar."""
    label: str
    """The name of the host in traces."""
    bind: str = names.ANY_ADDRESS
    ingress: IstioIngressListener | None = None

    @property
    def bound(self) -> bool:
        """Whether it has a listener with a socket of its own."""
        return self.ingress is not None and self.ingress.capture_mode == "NONE"


def inbound_ports(view: View) -> list[InboundPort]:
    """Returns the ports in their order.

    Of two Services with one target port the oldest has it, and any before a ServiceEntry.
    """
    found: dict[int, InboundPort] = {}
    for service in services.services_of(view.snapshot, view.pod):
        host = services.of_service(service)
        for port in service.ports:
            target = services.target(service, port, view.pod)
            if target is not None:
                found.setdefault(target, InboundPort(target, port, host, host.name))
    for entry in view.snapshot.of("ServiceEntry"):
        if service_entry.selected(entry, view.pod):
            for host in sorted(service_entry.hosts(entry), key=lambda host: host.name):
                for port in host.ports:
                    target = service_entry.target(port, view.pod)
                    found.setdefault(target, InboundPort(target, port, host, host.name))
    if view.sidecar is not None and view.sidecar.spec.ingress:
        found = _listed(view.pod, view.sidecar, found)
    return [port for _, port in sorted(found.items())]


def _listed(pod: Pod, sidecar: Resource, known: dict[int, InboundPort]) -> dict[int, InboundPort]:
    name = f"{sidecar.name}.{pod.namespace}"
    stand_in = Host(name, pod.namespace, (), "STATIC", sidecar.source, external=True)
    found: dict[int, InboundPort] = {}
    for listener in sidecar.spec.ingress:
        port = listener_port(listener.port)
        owner = known[port.port].host if port.port in known else stand_in
        bind = listener.bind or pod.address
        found.setdefault(port.port, InboundPort(port.port, port, owner, name, bind, listener))
    return found


def endpoint(view: View, given: str) -> Json | None:
    """Returns the address of a `defaultEndpoint`; None for a connection's original destination."""
    if given.startswith(UNIX):
        return address(given, 0)
    host, _, port = given.rpartition(":")
    places = {
        "127.0.0.1": "127.0.0.1",
        "[::1]": "127.0.0.1",
        "0.0.0.0": view.pod.address,
        "[::]": "::1",
    }
    return address(places[host], int(port)) if host else None
