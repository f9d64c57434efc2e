"""Input and output of the translation to Envoy: a snapshot of the mesh, a proxy's configuration.

The translation is a pure function: `translate.proxy_config(snapshot, pod)` is what istiod would
push to that pod's proxy. Nothing here has an effect.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from lab.resources.resource import Resource, Source

Json = dict[str, Any]
"""One Envoy v3 resource or a part of one, in its JSON form with snake_case names."""

PortProtocol = Literal["HTTP", "HTTP2", "GRPC", "GRPC-WEB", "TCP", "TLS", "HTTPS", "AUTO"]
"""The protocol by a Service port's name and appProtocol (Istio's "protocol selection")."""

PROTOCOLS: Mapping[str, PortProtocol] = {
    "HTTP": "HTTP",
    "HTTP_PROXY": "HTTP",
    "HTTP2": "HTTP2",
    "GRPC": "GRPC",
    "GRPC-WEB": "GRPC-WEB",
    "HTTPS": "HTTPS",
    "TLS": "TLS",
    **dict.fromkeys(("TCP", "MONGO", "REDIS", "MYSQL"), "TCP"),
}
"""The protocols of ports that Istio knows, beside UDP; their case doesn't matter."""

OVER_HTTP2 = ("HTTP2", "GRPC", "GRPC-WEB")
"""The protocols of servers that speak HTTP/2; gRPC-Web is turned into gRPC."""


@dataclass(frozen=True, slots=True)
class ServicePort:
    name: str
    port: int
    """The port clients use."""
    target_port: int | str
    """A container port: its number, or its name, which each pod resolves."""
    protocol: PortProtocol


@dataclass(frozen=True, slots=True)
class Service:
    namespace: str
    name: str
    ports: tuple[ServicePort, ...]
    selector: Mapping[str, str]
    cluster_ip: str | None
    """The virtual address, or None for a headless Service."""
    source: Source
    annotations: Mapping[str, str] = field(default_factory=dict)
    external_name: str = ""
    """The host that the name of a Service of type ExternalName stands for."""
    publish_not_ready: bool = False
    """`publishNotReadyAddresses`: DNS has its pods before they are ready."""

    @property
    def host(self) -> str:
        """The name in the service registry: `name.namespace.svc.cluster.local`."""
        return f"{self.name}.{self.namespace}.svc.cluster.local"


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod as the mesh sees it.

    `address` is the pod's address: its proxy listens there on the container's ports (without a
    proxy the application does). `inside_address` is where the application binds when it has a
    proxy, and where that proxy serves the application (15000, 15001, 15021, 15090).
    """

    namespace: str
    name: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    service_account: str
    address: str
    inside_address: str
    ports: Mapping[str, int]
    """Container ports by name; a port without a name has its number as name."""
    ready: bool
    proxy: Literal["none", "sidecar", "gateway"]
    published: Mapping[int, tuple[tuple[str, int], ...]] = field(default_factory=dict)
    """Gateways: for each container port, the further addresses the load balancer listens on."""


LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything the translation depends on, at one moment."""

    services: tuple[Service, ...]
    pods: tuple[Pod, ...]
    config: Mapping[str, tuple[Resource, ...]]
    """Istio resources by kind ("VirtualService"), oldest first."""
    mesh: Mapping[str, Any] = field(default_factory=dict)
    """The user's `meshConfig` (IstioOperator); defaults are applied by `mesh_config`."""
    root_namespace: str = "istio-system"
    certificates: str = ""
    """The folder with one SDS file a service account, `<namespace>/<account>.json`, and
    `ROOTCA.json`; empty when no certificates exist (then everything is plain text)."""

    jwks: Mapping[str, str] | None = None
    """JSON Web Key Sets by the URL they were fetched from (RequestAuthentication.jwksUri); None
    where none are fetched."""

    outside: str = LOOPBACK
    """The address that a client outside the mesh has to a gateway."""

    @property
    def trust_domains(self) -> tuple[str, ...]:
        """The trust domain of the mesh's identities, then its aliases by name."""
        aliases = sorted(self.mesh.get("trustDomainAliases") or ())
        return (self.mesh.get("trustDomain", "cluster.local"), *aliases)

    def of(self, kind: str) -> tuple[Resource, ...]:
        return self.config.get(kind, ())


@dataclass(frozen=True, slots=True)
class ProxyConfig:
    """The resources of one Envoy: Listener, Cluster, RouteConfiguration, ClusterLoadAssignment."""

    listeners: list[Json]
    clusters: list[Json]
    routes: list[Json]
    endpoints: list[Json]
    addresses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The addresses of each host: Istio's name table, which answers a pod's DNS queries."""
    secrets: Mapping[str, Json] = field(default_factory=dict)
    """Parts of Envoy's Secret that istiod serves, by the names in TLS settings."""
