"""Gateway: the servers that it opens on a gateway's pod, their hosts and their TLS."""

from __future__ import annotations

import base64
import functools
from collections.abc import Iterator
from dataclasses import dataclass

from lab import names
from lab.kinds import services
from lab.kinds.gateway.types import Server
from lab.kinds.virtual_service import becomes as virtual_service
from lab.model import Json, Pod, Snapshot
from lab.resources.resource import Origin, Resource
from lab.xds import extension, given


@dataclass(frozen=True, slots=True)
class BoundServer:
    """A server of a Gateway, bound to a port of a gateway's pod."""

    resource: Resource
    index: int
    server: Server
    target: int

    @property
    def gateway(self) -> str:
        return f"{self.resource.namespace}/{self.resource.name}"

    @property
    def origin(self) -> Origin:
        return Origin(self.resource.source, ("spec", "servers", self.index), self.resource)

    @property
    def hosts(self) -> list[str]:
        """The names of its hosts, without the namespace of the VirtualService."""
        return [host.rpartition("/")[2] for host in self.server.hosts]

    @property
    def secure(self) -> bool:
        return self.server.port.protocol.upper() == "HTTPS"

    @property
    def route_name(self) -> str:
        """The route configuration: one for all plain servers of a port, one for each secure one."""
        if not self.secure:
            return f"http.{self.target}"
        port = self.server.port
        return f"https.{port.number}.{port.name}.{self.resource.name}.{self.resource.namespace}"


def servers(snapshot: Snapshot, pod: Pod) -> list[BoundServer]:
    """Returns the servers that open a port on a gateway's pod, oldest Gateway first.

    On a port the first server's protocol wins; a port that no Service maps is used as it is,
    unless it is a privileged one.
    """
    result: list[BoundServer] = []
    secure: dict[int, bool] = {}
    for resource in snapshot.of("Gateway"):
        if not names.selects(resource.spec.selector, pod.labels):
            continue
        for index, server in enumerate(resource.spec.servers):
            target = target_port(snapshot, pod, server.port.number)
            if target is None:
                continue
            bound = BoundServer(resource, index, server, target)
            if secure.setdefault(target, bound.secure) == bound.secure:
                result.append(bound)
    return result


def target_port(snapshot: Snapshot, pod: Pod, number: int) -> int | None:
    """Returns the gateway pod's own port for a port of its Service."""
    for service in services.services_of(snapshot, pod):
        for port in service.ports:
            if port.port == number:
                return services.resolve_port(pod, port.target_port)
    return number if number >= 1024 else None


def server_tls(snapshot: Snapshot, pod: Pod, server: Server) -> Json | None:
    """Returns the TLS of a server, with the certificate of a Secret in the gateway's namespace.

    None when there is no such Secret, or no certificate with its key in it; then, as on a cluster,
    nobody can connect.
    """
    settings = server.tls
    if settings is None or not settings.credential_name:
        return None
    secret: dict[str, bytes] = next(
        (
            found.body.decoded()
            for found in snapshot.of("Secret")
            if (found.namespace, found.name) == (pod.namespace, settings.credential_name)
        ),
        {},
    )
    chain = secret.get("tls.crt") or secret.get("cert") or b""
    key = secret.get("tls.key") or secret.get("key") or b""
    if not _are_pair(chain, key):
        return None
    parameters = given(
        tls_minimum_protocol_version=_version(settings.min_protocol_version) or "TLSv1_2",
        tls_maximum_protocol_version=_version(settings.max_protocol_version),
    )
    certificate = {
        "certificate_chain": {"inline_bytes": base64.b64encode(chain).decode()},
        "private_key": {"inline_bytes": base64.b64encode(key).decode()},
    }
    return extension(
        "envoy.transport_sockets.tls",
        "extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        common_tls_context={
            "tls_params": parameters,
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_certificates": [certificate],
        },
    )


def _version(name: str | None) -> str | None:
    """Returns a TLS version in Envoy's spelling."""
    return name.replace("TLSV", "TLSv") if name is not None else None


@functools.lru_cache(maxsize=32)
def _are_pair(chain: bytes, key: bytes) -> bool:
    """Returns whether a certificate and a private key, both PEM, belong together."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    try:
        public = x509.load_pem_x509_certificates(chain)[0].public_key()
        own = serialization.load_pem_private_key(key, None).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return public.public_bytes(*form) == own.public_bytes(*form)


def common_hosts(bound: BoundServer, resource: Resource) -> Iterator[str]:
    """Yields the hosts of both a server and a VirtualService.

    Of a host and a wildcard that covers it, this is the more specific.
    """
    own = virtual_service.hosts(resource)
    agreed: dict[str, None] = {}
    for entry in bound.server.hosts:
        namespace, slash, pattern = entry.rpartition("/")
        wanted = bound.resource.namespace if namespace == "." else namespace
        if slash and wanted not in ("*", resource.namespace):
            continue
        for host in own:
            if names.matches(pattern, host):
                agreed[host] = None
            elif names.matches(host, pattern):
                agreed[pattern] = None
    yield from agreed
