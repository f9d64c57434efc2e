"""Listeners and routes of a gateway's proxy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from lab import names
from lab.envoy import filters, routes, tls
from lab.envoy.outbound_listeners import BOUND, CONNECT_TIMEOUT, chain_match
from lab.envoy.routes import VirtualHost
from lab.kinds.gateway import becomes as gateway
from lab.kinds.gateway.becomes import BoundServer
from lab.kinds.mesh_config import connection_settings
from lab.kinds.virtual_service import becomes as virtual_service
from lab.kinds.virtual_service.becomes import Attachment, Route
from lab.kinds.virtual_service.connections import Rule
from lab.kinds.visible import View
from lab.model import PROTOCOLS, Json
from lab.xds import TLS_INSPECTOR, given, resource_source, socket_address


def listeners(view: View) -> list[Json]:
    """Returns one listener for each open port."""
    by_port: dict[int, list[BoundServer]] = {}
    for bound in gateway.servers(view.snapshot, view.pod):
        by_port.setdefault(bound.target, []).append(bound)
    built = [_listener(view, port, found) for port, found in sorted(by_port.items())]
    return [listener for listener in built if listener["filter_chains"]]


def _listener(view: View, port: int, found: list[BoundServer]) -> Json:
    chains = [chain for _, chain in filter_chains(view, found)]
    inspected = any("filter_chain_match" in one or "transport_socket" in one for one in chains)
    return given(
        name=names.listener(names.ANY_ADDRESS, port),
        address=socket_address(names.ANY_ADDRESS, port),
        traffic_direction="OUTBOUND",
        **BOUND,
        **connection_settings.buffer_limit(view.mesh.default_config),
        **filters.access_log(view, "gateway"),
        listener_filters=[TLS_INSPECTOR] if inspected else None,
        filter_chains=chains,
    )


def filter_chains(view: View, found: list[BoundServer]) -> Iterator[tuple[Rule | None, Json]]:
    """Yields the filter chains of a port, each with the rule whose connections it forwards.

    Plain HTTP servers share one; one that passes TLS through has one for each rule.
    """
    taken: dict[int, set[str]] = {}
    plain = next((bound for bound in found if bound.plain_http), None)
    for bound in found:
        if bound.plain_http:
            if bound is plain:
                yield None, _chain(view, [_manager(view, bound)])
        elif bound.serves_http:
            yield None, _chain(view, [_manager(view, bound)], bound)
        elif bound.passes_through:
            for rule in gateway.tls_rules(view, bound, taken):
                yield rule, _chain(view, _proxy(view, bound, rule), server_names=rule.server_names)
        elif (forwarded := gateway.tcp_rule(view, bound)) is not None:
            proxy = _proxy(view, bound, forwarded)
            yield forwarded, _chain(view, proxy, bound if bound.secure else None)


def _chain(
    view: View,
    filters: list[Json],
    secure: BoundServer | None = None,
    server_names: Sequence[str] = (),
) -> Json:
    """Returns a filter chain; that of a secure server ends TLS for its hosts."""
    match = chain_match(secure.hosts if secure else server_names)
    return given(
        filter_chain_match=match or None,
        filters=filters,
        transport_socket=_transport_socket(view, secure) if secure else None,
        **CONNECT_TIMEOUT,
    )


def _transport_socket(view: View, bound: BoundServer) -> Json | None:
    settings = bound.server.tls
    if settings is not None and settings.mode == "ISTIO_MUTUAL":
        tcp = bound.server.port.protocol.upper() == "TLS"
        return tls.gateway_context(view.snapshot, view.pod, settings, tcp=tcp)
    return gateway.server_tls(settings) if settings else None


def _proxy(view: View, bound: BoundServer, rule: Rule) -> list[Json]:
    return [
        *filters.network_policies(view),
        filters.routed_tcp_proxy(view, "gateway", rule, bound.server.port.number),
    ]


def _manager(view: View, bound: BoundServer) -> Json:
    name = bound.route_name
    prefix = f"outbound_0.0.0.0_{bound.target};"
    if bound.secure and bound.server.name:
        prefix = bound.server.name
    return filters.connection_manager(
        view,
        "gateway",
        prefix,
        PROTOCOLS.get(bound.server.port.protocol.upper()),
        rds={"route_config_name": name, "config_source": resource_source("rds", name)},
    )


def route_configurations(view: View) -> list[Json]:
    """Returns the route configuration of every listener's filter chains."""
    groups: dict[str, list[BoundServer]] = {}
    for bound in gateway.servers(view.snapshot, view.pod):
        if bound.serves_http:
            groups.setdefault(bound.route_name, []).append(bound)
    return [
        routes.configuration(
            view, name, virtual_hosts(view, found), ignore_port_in_host_matching=True
        )
        for name, found in sorted(groups.items())
    ]


_REDIRECTING: Json = {"require_tls": "ALL"}


def virtual_hosts(view: View, found: list[BoundServer]) -> list[VirtualHost]:
    """Returns the virtual hosts of one port.

    Each host of both a server and VirtualServices has the routes of these, oldest first. A
    VirtualService has the routes that it has at the first of a Gateway's servers, as in istiod.
    """
    hosts: dict[str, VirtualHost] = {}
    made: dict[tuple[str, str, str], tuple[Route, ...]] = {}
    for bound in found:
        redirects = bound.server.tls is not None and bound.server.tls.https_redirect
        for resource in view.virtual_services:
            if not virtual_service.applies(resource, bound.gateway):
                continue
            common = list(gateway.common_hosts(bound, resource))
            key = (bound.gateway, resource.namespace, resource.name)
            if common and not made.get(key):
                secure = bound.server.tls is not None
                attachment = Attachment(bound.gateway, bound.server.port.number, secure)
                made[key] = tuple(virtual_service.routes(view, resource, attachment))
            added = made.get(key, ())
            for host in common if added else ():
                known = hosts.get(host) or _virtual_host(host, bound)
                together = [*known.routes, *added]
                together.sort(key=lambda route: virtual_service.is_catch_all(route.config))
                extra = _REDIRECTING if redirects else known.extra
                hosts[host] = replace(known, routes=tuple(together), extra=extra)
        # Here a host keeps the namespace before it, in istiod too: no request has such a one.
        for host in map(str.lower, bound.scoped_hosts if redirects else ()):
            known = hosts.get(host) or _virtual_host(host, bound)
            hosts[host] = replace(known, extra=_REDIRECTING)
    if not hosts:
        number = found[0].server.port.number
        return [VirtualHost(names.virtual_host("blackhole", number), ("*",), ())]
    return _collapse([hosts[host] for host in sorted(hosts, key=_specific_first)])


def _virtual_host(host: str, bound: BoundServer) -> VirtualHost:
    return VirtualHost(names.virtual_host(host, bound.server.port.number), (host,), ())


def _specific_first(host: str) -> tuple[bool, int, str]:
    return (host.startswith("*"), -len(host), host)


def _collapse(hosts: list[VirtualHost]) -> list[VirtualHost]:
    """Returns the hosts, those with the same routes as one that is named after the first."""
    result: list[VirtualHost] = []
    for host in hosts:
        for index, other in enumerate(result):
            if host.routes == other.routes and host.extra == other.extra:
                result[index] = replace(other, domains=(*other.domains, *host.domains))
                break
        else:
            result.append(host)
    return result
