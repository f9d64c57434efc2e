"""Services as the mesh and the pods see them: ports, protocols, endpoints, names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from lab import names
from lab.kinds.kubernetes import endpoints
from lab.kinds.kubernetes.core import ServicePort as ManifestPort
from lab.kinds.kubernetes.core import ServiceSpec
from lab.kinds.kubernetes.pod_spec import PodSpec
from lab.model import PROTOCOLS, PortProtocol, Service, ServicePort
from lab.resources.resource import Resource

ISTIO_GROUP = ".istio.io"
"""The end of the names of Istio's API groups."""

_WELL_KNOWN: Mapping[int, PortProtocol] = dict.fromkeys((25, 53, 3306, 27017), "TCP")
"""Ports of servers that speak first, which Istio does not wait for."""
_APP_PROTOCOLS: Mapping[str, PortProtocol] = {
    "kubernetes.io/h2c": "HTTP2",
    "kubernetes.io/ws": "HTTP",
    "kubernetes.io/wss": "HTTPS",
}


def protocol(port: ManifestPort) -> PortProtocol:
    """Returns the protocol as Istio selects it: the first part of appProtocol, else of the name."""
    chosen = port.name if port.app_protocol is None else port.app_protocol
    if chosen == port.app_protocol and chosen in _APP_PROTOCOLS:
        return _APP_PROTOCOLS[chosen]
    name = chosen.upper()
    prefix = "GRPC-WEB" if name.startswith("GRPC-WEB") else name.partition("-")[0]
    return PROTOCOLS.get(prefix) or _WELL_KNOWN.get(port.port, "AUTO")


def service(
    resource: Resource, cluster_ip: str | None, endpoint_objects: Iterable[Resource]
) -> Service:
    """Returns a Service; `endpoint_objects` are the Endpoints and EndpointSlices there are."""
    spec: ServiceSpec = resource.spec
    ports = tuple(
        ServicePort(port.name, port.port, port.target_port or port.port, protocol(port))
        for port in spec.ports
    )
    return Service(
        namespace=resource.namespace,
        name=resource.name,
        ports=ports,
        selector=spec.selector,
        cluster_ip=cluster_ip,
        source=resource.source,
        annotations=resource.annotations,
        external_name=spec.external_name or "",
        publish_not_ready=spec.publish_not_ready_addresses,
        written=endpoints.written(resource, endpoint_objects),
    )


def has_address(service: Resource) -> bool:
    """Returns whether a Service gets a cluster IP: a headless one, or a name alone, does not."""
    spec: ServiceSpec = service.spec
    return spec.cluster_ip != "None" and spec.type != "ExternalName"


def container_ports(spec: PodSpec) -> dict[str, int]:
    """Returns the ports of a pod's containers by name; one without a name by its number."""
    return {
        port.name or str(port.container_port): port.container_port
        for container in spec.containers
        for port in container.ports
    }


def named(host: str, namespace: str, services: Sequence[Service]) -> Service | None:
    """Returns the Service a host name means to a pod of `namespace`, as cluster DNS resolves it."""
    wanted = host.rstrip(".")
    found = (one for one in services if wanted in names.alternatives(one.host, namespace))
    return next(found, None)
