"""Gateway: the listeners and routes of an ingress gateway's proxy."""

from __future__ import annotations

import base64
import functools
from collections.abc import Iterator
from dataclasses import dataclass

from lab import names
from lab.envoy import listeners, routes
from lab.envoy.routes import VirtualHost
from lab.kinds import services
from lab.kinds.gateway.checks import Server
from lab.kinds.virtual_service import becomes as virtual_service
from lab.kinds.virtual_service.becomes import Attachment, Route
from lab.kinds.visible import View
from lab.model import Json, Pod, Snapshot
from lab.resources.resource import Origin, Resource
from lab.xds import TLS_INSPECTOR, extension, file_source, socket_address


@dataclass(frozen=True, slots=True)
class BoundServer:
    """A server of a Gateway on the port of the gateway pod that it opens."""

    resource: Resource
    index: int
    server: Server
    target: int

    @property
    def gateway(self) -> str:
        return f"{self.resource.namespace}/{self.resource.name}"

    @property
    def secure(self) -> bool:
        return self.server.port.protocol.upper() == "HTTPS"

    @property
    def route_name(self) -> str:
        """The route configuration: shared by all plain servers of a port, one for each other."""
        if not self.secure:
            return f"http.{self.target}"
        port = self.server.port
        return f"https.{port.number}.{port.name}.{self.resource.name}.{self.resource.namespace}"


def servers(snapshot: Snapshot, pod: Pod) -> list[BoundServer]:
    """The servers that open a port on a gateway pod, oldest Gateway first.

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
    """The gateway pod's own port for a port of its Service."""
    for service in services.services_of(snapshot, pod):
        for port in service.ports:
            if port.port == number:
                return services.resolve_port(pod, port.target_port)
    return number if number >= 1024 else None


def listener_configs(view: View) -> list[Json]:
    """One listener for each open port, at the pod's address and at the load balancer's."""
    by_port: dict[int, list[BoundServer]] = {}
    for bound in servers(view.snapshot, view.pod):
        by_port.setdefault(bound.target, []).append(bound)
    built = [_listener(view, port, found) for port, found in sorted(by_port.items())]
    return [listener for listener in built if listener["filter_chains"]]


def _listener(view: View, port: int, found: list[BoundServer]) -> Json:
    listener: Json = {
        "name": f"0.0.0.0_{port}",
        "address": socket_address(view.pod.address, port),
        "traffic_direction": "OUTBOUND",
        **listeners.access_log(view, "gateway"),
    }
    if extra := view.pod.published.get(port):
        listener["additional_addresses"] = [
            {"address": socket_address(address, number)} for address, number in extra
        ]
    if found[0].secure:
        listener["listener_filters"] = [TLS_INSPECTOR]
        listener["filter_chains"] = list(_secure_chains(view, found))
    else:
        listener["filter_chains"] = [{"filters": [_manager(view, found[0])]}]
    return listener


def _manager(view: View, bound: BoundServer) -> Json:
    name = bound.route_name
    return listeners.connection_manager(
        view,
        "gateway",
        f"outbound_0.0.0.0_{bound.target};",
        rds={"route_config_name": name, "config_source": file_source("rds", name)},
    )


def _secure_chains(view: View, found: list[BoundServer]) -> Iterator[Json]:
    taken: set[str] = set()
    for bound in found:
        hosts = [_host_name(host) for host in bound.server.hosts]
        fresh = [host for host in hosts if host not in taken]
        taken.update(fresh)
        socket = server_tls(view.snapshot, view.pod, bound.server)
        if not fresh or socket is None:
            continue
        chain: Json = {"filters": [_manager(view, bound)], "transport_socket": socket}
        if "*" not in fresh:
            chain["filter_chain_match"] = {"server_names": fresh}
        yield chain


def server_tls(snapshot: Snapshot, pod: Pod, server: Server) -> Json | None:
    """The TLS of a server with a certificate from a Secret in the gateway's namespace.

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
    parameters: Json = {"tls_minimum_protocol_version": "TLSv1_2"}
    for field, version in (
        ("tls_minimum_protocol_version", settings.min_protocol_version),
        ("tls_maximum_protocol_version", settings.max_protocol_version),
    ):
        if version is not None:
            parameters[field] = version.replace("TLSV", "TLSv")
    return extension(
        "envoy.transport_sockets.tls",
        "extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        common_tls_context={
            "tls_params": parameters,
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_certificates": [
                {
                    "certificate_chain": {"inline_bytes": base64.b64encode(chain).decode()},
                    "private_key": {"inline_bytes": base64.b64encode(key).decode()},
                }
            ],
        },
    )


@functools.lru_cache(maxsize=32)
def _are_pair(chain: bytes, key: bytes) -> bool:
    """Whether a certificate and a private key, both PEM, belong together."""
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


def _host_name(host: str) -> str:
    return host.rpartition("/")[2]


def route_configurations(view: View) -> list[Json]:
    """The route configuration of every listener's filter chains."""
    groups: dict[str, list[BoundServer]] = {}
    for bound in servers(view.snapshot, view.pod):
        groups.setdefault(bound.route_name, []).append(bound)
    return [
        routes.configuration(name, virtual_hosts(view, found), ignore_port_in_host_matching=True)
        for name, found in sorted(groups.items())
    ]


def virtual_hosts(view: View, found: list[BoundServer]) -> list[VirtualHost]:
    """The virtual hosts of one port: for each host that a server and a VirtualService agree on,
    the routes of all such VirtualServices, oldest first."""
    hosts: dict[str, VirtualHost] = {}
    for bound in found:
        for resource in view.virtual_services:
            if not virtual_service.applies(resource, bound.gateway):
                continue
            attachment = Attachment(bound.gateway, bound.server.port.number)
            added = tuple(virtual_service.routes(view, resource, attachment))
            for host in _agreed(bound, resource):
                hosts[host] = _combine(hosts.get(host), host, bound, added)
        if bound.server.tls and bound.server.tls.https_redirect:
            for name in bound.server.hosts:
                host = _host_name(name)
                hosts[host] = _redirecting(hosts.get(host), host, bound)
    if not hosts:
        number = found[0].server.port.number
        return [VirtualHost(names.virtual_host("blackhole", number), ("*",), ())]
    return _collapse([hosts[host] for host in sorted(hosts, key=_specific_first)])


def _agreed(bound: BoundServer, resource: Resource) -> Iterator[str]:
    """The hosts both name; of a host and a wildcard that covers it, the more specific."""
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


def _combine(
    existing: VirtualHost | None, host: str, bound: BoundServer, added: tuple[Route, ...]
) -> VirtualHost:
    if existing is None:
        return VirtualHost(names.virtual_host(host, bound.server.port.number), (host,), added)
    together = [*existing.routes, *added]
    together.sort(key=lambda route: virtual_service.is_catch_all(route.config))
    return VirtualHost(existing.name, existing.domains, tuple(together), existing.extra)


def _redirecting(existing: VirtualHost | None, host: str, bound: BoundServer) -> VirtualHost:
    extra: Json = {"require_tls": "ALL"}
    if existing is None:
        return VirtualHost(names.virtual_host(host, bound.server.port.number), (host,), (), extra)
    return VirtualHost(existing.name, existing.domains, existing.routes, extra)


def _specific_first(host: str) -> tuple[bool, int, str]:
    return (host.startswith("*"), -len(host), host)


def _collapse(hosts: list[VirtualHost]) -> list[VirtualHost]:
    """Hosts with the same routes share one virtual host, named after the first of them."""
    result: list[VirtualHost] = []
    for host in hosts:
        for index, other in enumerate(result):
            if host.routes and host.routes == other.routes and host.extra == other.extra:
                result[index] = VirtualHost(
                    other.name, (*other.domains, *host.domains), other.routes, other.extra
                )
                break
        else:
            result.append(host)
    return result


def origin(bound: BoundServer) -> Origin:
    """Where a server is written."""
    return Origin(bound.resource.source, ("spec", "servers", bound.index), bound.resource)
