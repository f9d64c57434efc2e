"""Route configurations: the virtual hosts of sidecars, and what they share with gateways."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from lab import names
from lab.kinds.destination_rule import becomes as destination_rule
from lab.kinds.services import Host
from lab.kinds.virtual_service import becomes as virtual_service
from lab.kinds.virtual_service.becomes import NO_TIMEOUT, Attachment, Route
from lab.kinds.visible import View
from lab.model import Json, ServicePort
from lab.resources.resource import Origin, Resource
from lab.xds import typed

HTTP_PROTOCOLS = ("HTTP", "HTTP2", "GRPC", "AUTO")
"""The protocols of ports with HTTP traffic; here also AUTO, which Istio would detect."""

ORIGINAL_DESTINATION = "x-envoy-original-dst-host"
"""The header with the address that the client meant to connect to; iptables would keep it."""


CATCH_ALLS = ("allow_any", "allow_any_dynamic_dns", "block_all")
"""The names of the virtual host for unknown hosts, by outboundTrafficPolicy."""


@dataclass(frozen=True, slots=True)
class VirtualHost:
    name: str
    domains: tuple[str, ...]
    routes: tuple[Route, ...]
    extra: Json = field(default_factory=dict)

    def config(self) -> Json:
        return {
            "name": self.name,
            "domains": list(self.domains),
            "include_request_attempt_count": True,
            "routes": [route.config for route in self.routes],
            **self.extra,
        }


def configuration(name: str, hosts: list[VirtualHost], **fields: object) -> Json:
    """Returns a RouteConfiguration as Istio writes it."""
    return {
        "name": name,
        "validate_clusters": False,
        "max_direct_response_body_size_bytes": 1048576,
        **fields,
        "virtual_hosts": [host.config() for host in hosts],
    }


def sidecar_configuration(view: View) -> Json:
    """Returns all of a sidecar's outbound routes.

    Its application reaches them through an HTTP proxy, so one configuration serves every port; a
    domain has its port where that is not 80.
    """
    return configuration(
        names.OUTBOUND_ROUTES,
        sidecar_hosts(view),
        request_headers_to_remove=[ORIGINAL_DESTINATION],
    )


def sidecar_hosts(view: View) -> list[VirtualHost]:
    """Returns a virtual host for each host and HTTP port, by name, then that for all others."""
    ports = {port.port for host in view.hosts.values() for port in host.ports if is_http(port)}
    hosts = [host for port in sorted({80, *ports}) for host in _of_port(view, port)]
    return [*sorted(hosts, key=lambda host: host.name), catch_all(view)]


def is_http(port: ServicePort) -> bool:
    return port.protocol in HTTP_PROTOCOLS


_Bound = tuple[Resource, list[str], list[Route]]
"""A VirtualService, its hosts and its routes for one proxy and port."""


def _of_port(view: View, number: int) -> Iterator[VirtualHost]:
    """Yields the virtual hosts of one port; the first of two with one domain keeps it.

    Those of VirtualServices come first: of each that has a host with this port, one for every host
    of such a name, and one for each other of its hosts. On port 80 any VirtualService has its own.
    """
    known = {host.name: port for host in view.hosts.values() if (port := host.port(number))}
    bound: list[_Bound] = []
    for resource in view.virtual_services:
        hosts = virtual_service.hosts(resource)
        covers = any(names.matches(pattern, name) for pattern in hosts for name in known)
        if not virtual_service.applies(resource, names.MESH) or not (covers or number == 80):
            continue
        if found := virtual_service.routes(view, resource, Attachment(names.MESH, number)):
            bound.append((resource, hosts, found))
    owners = {name: _owner(name, bound) for name in known}
    taken: set[str] = set()
    for resource, hosts, routes in bound:
        for pattern in hosts:
            covered = [name for name in known if names.matches(pattern, name)]
            for name in [name for name in covered if owners[name] is resource]:
                yield from _unique(name, domains(view, view.hosts[name]), number, routes, taken)
            if not covered:
                yield from _unique(pattern, [pattern], number, routes, taken)
    for name, port in known.items():
        if owners[name] is None and is_http(port):
            host = view.hosts[name]
            routes = [default_route(view, host, port)]
            yield from _unique(name, domains(view, host), number, routes, taken)


def _unique(
    name: str, found: list[str], port: int, routes: list[Route], taken: set[str]
) -> Iterator[VirtualHost]:
    """Yields the virtual host with those of its domains that no other has taken, if any."""
    own = tuple(domain for domain in _with_port(found, port) if domain not in taken)
    taken.update(own)
    if own:
        yield VirtualHost(names.virtual_host(name, port), own, tuple(routes))


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
    balancer = view.policy(host.name, port.port).load_balancer
    destination = {"cluster": names.cluster(port.port, host.name)}
    retries = view.mesh.default_http_retry_policy
    action = virtual_service.forward(destination, [], retries)
    if hashing := destination_rule.hash_policy(balancer):
        action["hash_policy"] = hashing  # Its retries still avoid the host that failed.
    config: Json = {
        "name": "default",
        "match": {"prefix": "/"},
        "decorator": {"operation": f"{host.name}:{port.port}/*"},
        "route": action,
    }
    return Route(config, Origin(host.source, (), host.entry))


def domains(view: View, host: Host) -> list[str]:
    """Returns the names of a host for a client in the view's namespace."""
    if host.service is None:
        return [host.name, f"{host.name}.", *(a for a in host.addresses if "/" not in a)]
    service = host.service
    short, namespace = service.name, service.namespace
    result = [host.name, f"{host.name}."]
    if namespace == view.pod.namespace:
        result.append(short)
    result += [f"{short}.{namespace}.svc", f"{short}.{namespace}"]
    if host.headless:
        result += [f"*.{name}" for name in result]
    return [*result, *host.addresses]


def _with_port(found: list[str], port: int) -> tuple[str, ...]:
    if port == 80:
        return tuple(name for domain in found for name in (domain, f"{domain}:80"))
    return tuple(f"{domain}:{port}" for domain in found)


def catch_all(view: View) -> VirtualHost:
    """Returns the virtual host for unknown hosts and for CONNECT.

    By CONNECT a client asks its proxy for HTTPS; it goes on to the listener of its port, which
    looks at the TLS server name as on a cluster.
    """
    tunnels = [
        *(_connect(names.tunnel(port), f":{port}") for port in view.tunnel_ports()),
        _connect(names.TUNNEL, None),
    ]
    if view.outbound_mode == "REGISTRY_ONLY":
        name = "block_all"
        rest: Json = {"direct_response": {"status": 502}}
    else:
        name, cluster = "allow_any", names.PASSTHROUGH
        if view.outbound_mode == "ALLOW_ANY_DYNAMIC_DNS":
            name, cluster = "allow_any_dynamic_dns", names.DYNAMIC_DNS
        forward = {"cluster": cluster, "timeout": NO_TIMEOUT, "max_grpc_timeout": NO_TIMEOUT}
        rest = {"route": forward}
        if cluster == names.DYNAMIC_DNS:  # The host decides, not the address that the client gave.
            off = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig"}
            filters = {"envoy.filters.http.set_filter_state": {**off, "disabled": True}}
            rest["typed_per_filter_config"] = filters
    routes = [*tunnels, {"name": name, "match": {"prefix": "/"}, **rest}]
    return VirtualHost(name, ("*",), tuple(Route(one, view.outbound_origin) for one in routes))


def _connect(listener: str, suffix: str | None) -> Json:
    match: Json = {"connect_matcher": {}}
    if suffix is not None:
        match["headers"] = [{"name": ":authority", "string_match": {"suffix": suffix}}]
    return {
        "name": "connect",
        "match": match,
        "route": {
            "cluster": listener,
            "timeout": NO_TIMEOUT,
            "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}],
        },
        "typed_per_filter_config": {
            "envoy.filters.http.set_filter_state": destination_state(
                f"%REQ({ORIGINAL_DESTINATION}?:AUTHORITY)%", shared="TRANSITIVE"
            )
        },
    }


def destination_state(address: str, *, shared: str) -> Json:
    """Returns the filter that keeps the address a client meant to connect to as filter state.

    The dynamic forward proxy finds it there; without one it takes the host of the request.
    """
    state = {
        "object_key": "envoy.upstream.dynamic_host",
        "format_string": {
            "text_format_source": {"inline_string": address},
            "omit_empty_values": True,
        },
        "skip_if_empty": True,
        "shared_with_upstream": shared,
    }
    return typed("extensions.filters.http.set_filter_state.v3.Config", on_request_headers=[state])
