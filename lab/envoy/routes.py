"""Route configurations: the virtual hosts of sidecars, and what they share with gateways."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

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


CATCH_ALLS = ("allow_any", "block_all")
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
    owners = _owners(view)
    taken: set[str] = set()
    result = [
        _virtual_host(host.name, domains(view, host), port.port, found)
        for host in view.hosts.values()
        for port in host.ports
        if port.protocol in HTTP_PROTOCOLS
        and (found := _host_routes(view, host, port, owners.get(host.name)))
    ]
    result.extend(_unregistered(view))
    result.sort(key=lambda found: found.name)
    kept = [unique for found in result if (unique := _without(found, taken)).domains]
    return [*kept, catch_all(view)]


def _virtual_host(name: str, found: list[str], port: int, routes: list[Route]) -> VirtualHost:
    return VirtualHost(names.virtual_host(name, port), _with_port(found, port), tuple(routes))


def _without(host: VirtualHost, taken: set[str]) -> VirtualHost:
    own = tuple(domain for domain in host.domains if domain not in taken)
    taken.update(own)
    return replace(host, domains=own)


def _owners(view: View) -> dict[str, Resource]:
    """Returns the VirtualService that owns each host at the sidecars.

    This is the oldest with exactly that host, else the oldest of the most specific wildcard.
    """
    result: dict[str, Resource] = {}
    bound = [vs for vs in view.virtual_services if virtual_service.applies(vs, names.MESH)]
    for host in view.hosts:
        best: tuple[bool, int] | None = None
        for resource in bound:
            for pattern in virtual_service.hosts(resource):
                if not names.matches(pattern, host):
                    continue
                rank = (pattern == host, len(pattern))
                if best is None or rank > best:
                    best = rank
                    result[host] = resource
    return result


def _host_routes(view: View, host: Host, port: ServicePort, owner: Resource | None) -> list[Route]:
    """Returns no route when the owning VirtualService has none for this proxy."""
    if owner is None:
        return [default_route(view, host, port)]
    return virtual_service.routes(view, owner, Attachment(names.MESH, port.port))


def _unregistered(view: View) -> list[VirtualHost]:
    """Returns the virtual hosts, on port 80, of VirtualServices for hosts in no registry."""
    result: list[VirtualHost] = []
    for resource in view.virtual_services:
        if not virtual_service.applies(resource, names.MESH):
            continue
        for name in virtual_service.hosts(resource):
            if any(names.matches(name, host) for host in view.hosts):
                continue
            found = virtual_service.routes(view, resource, Attachment(names.MESH, 80))
            if found:
                result.append(_virtual_host(name, [name], 80, found))
    return result


def default_route(view: View, host: Host, port: ServicePort) -> Route:
    """Returns the route of a host without a VirtualService."""
    balancer = view.policy(host.name, port.port).load_balancer
    destination = {"cluster": names.cluster(port.port, host.name)}
    action = virtual_service.forward(destination, destination_rule.hash_policy(balancer))
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
        return [host.name, *(a for a in host.addresses if "/" not in a)]
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
        name = "allow_any"
        forward = {"cluster": names.PASSTHROUGH, "timeout": NO_TIMEOUT}
        rest = {"route": {**forward, "max_grpc_timeout": NO_TIMEOUT}}
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
