"""Route configurations: the virtual hosts of sidecars, and what they share with gateways."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from lab import names
from lab.kinds.destination_rule import becomes as destination_rule
from lab.kinds.mesh_config import proxy_headers
from lab.kinds.services import Host
from lab.kinds.sidecar import becomes as sidecar
from lab.kinds.sidecar.checks import UNIX
from lab.kinds.virtual_service import becomes as virtual_service
from lab.kinds.virtual_service.becomes import NO_TIMEOUT, Attachment, Route
from lab.kinds.visible import View
from lab.model import OVER_HTTP2, Json, ServicePort
from lab.resources.resource import Origin, Resource
from lab.xds import filter_configs, route_name

HTTP_PROTOCOLS = ("HTTP", *OVER_HTTP2, "AUTO")
"""The protocols of ports with HTTP traffic; here also AUTO, which Istio would detect."""

CATCH_ALLS = ("allow_any", "allow_any_dynamic_dns", "block_all")
"""The names of the virtual host for unknown hosts, by outboundTrafficPolicy."""


@dataclass(frozen=True, slots=True)
class VirtualHost:
    name: str
    domains: tuple[str, ...]
    routes: tuple[Route, ...]
    extra: Json = field(default_factory=dict)

    def config(self, *, attempts: bool) -> Json:
        counted = attempts and (self.routes or self.extra)
        return {
            "name": self.name,
            "domains": list(self.domains),
            **({"include_request_attempt_count": True} if counted else {}),
            "routes": [route.config for route in self.routes],
            **self.extra,
        }


def configuration(view: View, name: str, hosts: list[VirtualHost], **fields: object) -> Json:
    """Returns a RouteConfiguration as Istio writes it."""
    attempts = proxy_headers.counts_attempts(view.mesh.default_config)
    return {
        "name": name,
        "validate_clusters": False,
        "max_direct_response_body_size_bytes": 1048576,
        **fields,
        "virtual_hosts": [host.config(attempts=attempts) for host in hosts],
    }


def sidecar_configurations(view: View, listeners: Iterable[Json]) -> list[Json]:
    """Returns the route configurations that a sidecar's outbound listeners name.

    There is one for each port with HTTP, of all its hosts; a port without a protocol at an address
    of its own has one of its host alone (`HOST:PORT`).
    """
    wanted = {route_name(config) for listener in listeners for config in filter_configs(listener)}
    return [_configuration_of(view, name) for name in sorted(wanted - {""})]


def _configuration_of(view: View, name: str) -> Json:
    all_ports = name == names.HTTP_PROXY_ROUTES or name.startswith(UNIX)
    host, _, port = ("", "", "0") if all_ports else name.rpartition(":")
    hosts = sidecar_hosts(view, int(port), name)
    if host:
        hosts = [replace(one, domains=("*",)) for one in hosts if one.name == name]
    return configuration(view, name, hosts, ignore_port_in_host_matching=True)


def sidecar_hosts(view: View, port: int, bind: str = "") -> list[VirtualHost]:
    """Returns the virtual hosts of a port or a Unix socket by name, then that for all others."""
    own = view.at(port, bind)
    every = any(egress.proxies for egress in own.egress)
    hosts = sorted(of_port(own, 0 if every else port), key=lambda host: host.name)
    return [*hosts, catch_all(view)]


def is_http(port: ServicePort) -> bool:
    return port.protocol in HTTP_PROTOCOLS


_Bound = tuple[Resource, list[str], list[Route]]
"""A VirtualService, its hosts and its routes for one proxy and port."""


def of_port(view: View, number: int) -> Iterator[VirtualHost]:
    """Yields the virtual hosts of one port, or of all (0); the first with a domain keeps it.

    Those of VirtualServices come first: of each that has a host with this port, one for each of its
    hosts that nobody has, then one for every host of such a name. On port 80 any VirtualService has
    its own. Names are in small letters but for all ports, as in istiod: the default route of a host
    with capitals then names a cluster that is not there.
    """
    known: dict[str, tuple[Host, list[ServicePort]]] = {}
    for host in view.hosts.values():
        if ports := [port for port in host.ports if number in (0, port.port)]:
            name = host.name.lower() if number else host.name
            known[name] = (replace(host, name=name), ports)
    bound: list[_Bound] = []
    for resource in view.virtual_services:
        hosts = virtual_service.hosts(resource)
        covers = any(names.matches(pattern, name) for pattern in hosts for name in known)
        if not virtual_service.applies(resource, names.MESH) or not (covers or number == 80):
            continue
        if found := virtual_service.routes(view, resource, Attachment(names.MESH, number)):
            bound.append((resource, hosts, found))
    owners = {name: _owner(name, bound) for name in known}
    made = _VirtualHosts(number == 0)
    for resource, hosts, routes in bound:
        covered = {
            pattern: [name for name in known if names.matches(pattern, name)] for pattern in hosts
        }
        for pattern in hosts:
            if not covered[pattern]:
                yield from made.add(pattern, [pattern], number or 80, routes)
        for name in (name for pattern in hosts for name in covered[pattern]):
            host, ports = known[name]
            for port in ports if owners[name] is resource else ():
                yield from made.of_host(view, host, port, routes)
    for name, (host, ports) in known.items():
        for port in ports if owners[name] is None and host.resolution != "ALIAS" else ():
            yield from made.of_host(view, host, port, [default_route(view, host, port)])


@dataclass(slots=True)
class _VirtualHosts:
    with_ports: bool
    """Whether domains have their ports too, as for all ports together."""
    taken: set[str] = field(default_factory=set)
    """In small letters: Envoy wants each name once, however it is written."""

    def of_host(
        self, view: View, host: Host, port: ServicePort, routes: list[Route]
    ) -> Iterator[VirtualHost]:
        if not is_http(port):
            return
        found = domains(view, host, port.port)
        if self.with_ports:
            found = [name for one in found for name in (one, f"{one}:{port.port}")]
        yield from self.add(host.name, found, port.port, routes)

    def add(
        self, name: str, found: list[str], port: int, routes: list[Route]
    ) -> Iterator[VirtualHost]:
        """Yields the virtual host with those of its domains that no other has taken, if any."""
        own = [domain for domain in found if domain.lower() not in self.taken]
        self.taken.update(domain.lower() for domain in own)
        if self.with_ports and port != 80:
            own = [domain for domain in own if ":" in domain]
        if own:
            yield VirtualHost(names.virtual_host(name, port), tuple(own), tuple(routes))


def _owner(host: str, bound: list[_Bound]) -> Resource | None:
    """Returns the first VirtualService with exactly this host, else with the longest wildcard."""
    best: tuple[bool, int] = (False, 0)
    owner = None
    for resource, hosts, _ in bound:
        for pattern in hosts:
            rank = (pattern == host, len(pattern))
            if names.matches(pattern, host) and rank > best:
                best, owner = rank, resource
    return owner


def default_route(view: View, host: Host, port: ServicePort) -> Route:
    """Returns the route of a host without a VirtualService."""
    destination = {"cluster": names.cluster(port.port, host.name)}
    retries = view.mesh.default_http_retry_policy
    action = virtual_service.forward(destination, [], retries)
    if hashing := destination_rule.hash_policy(view.rules.get(host.name), port.port):
        action["hash_policy"] = hashing  # Its retries still avoid the host that failed.
    config: Json = {
        "name": "default",
        "match": {"prefix": "/"},
        "decorator": {"operation": f"{host.name}:{port.port}/*"},
        "route": action,
    }
    return Route(config, Origin(host.source, (), host.entry))


def domains(view: View, host: Host, port: int) -> list[str]:
    """Returns the names and addresses of a host's port for a client in the view's namespace."""
    every = (host.name, *host.aliases)
    result = [name for one in every for name in names.alternatives(one, view.pod.namespace)]
    if host.headless:
        result += [f"*.{name}" for name in result]
    return [*result, *(f"[{one}]" if ":" in one else one for one in host.addresses_at(port))]


def catch_all(view: View) -> VirtualHost:
    """Returns the virtual host for hosts that no Service has."""
    if view.outbound_mode == "REGISTRY_ONLY":
        name = "block_all"
        action: Json = {"direct_response": {"status": 502}}
    else:
        name, cluster = "allow_any", sidecar.unknown_cluster(view.sidecar, view.outbound_mode)
        if view.outbound_mode == "ALLOW_ANY_DYNAMIC_DNS":
            name, cluster = "allow_any_dynamic_dns", names.DYNAMIC_DNS
        forward = {"cluster": cluster, "timeout": NO_TIMEOUT}
        action = {"route": {**forward, "max_grpc_timeout": NO_TIMEOUT}}
    route = Route({"name": name, "match": {"prefix": "/"}, **action}, view.outbound_origin)
    return VirtualHost(name, ("*",), (route,))


ANY_NAME_CACHE: Json = {
    "name": "allow_any_dfp_dns_cache",
    "dns_lookup_family": "V4_ONLY",
    "max_hosts": 1024,
}
"""The DNS cache of hosts that no Service has (ALLOW_ANY_DYNAMIC_DNS)."""


def dns_cache(host: Host) -> Json:
    """Returns the DNS cache of a host whose name is resolved for each request (DYNAMIC_DNS)."""
    return {"name": f"{host.name}_dfp_dns_cache", "dns_lookup_family": "V4_ONLY"}
