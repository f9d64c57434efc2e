"""Listeners and routes of a gateway's proxy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lab import names
from lab.envoy import filters, routes
from lab.envoy.outbound_listeners import BOUND, CONNECT_TIMEOUT
from lab.envoy.routes import VirtualHost
from lab.kinds.gateway import becomes as gateway
from lab.kinds.gateway.becomes import BoundServer
from lab.kinds.mesh_config import connection_settings
from lab.kinds.virtual_service import becomes as virtual_service
from lab.kinds.virtual_service.becomes import Attachment
from lab.kinds.visible import View
from lab.model import Json
from lab.xds import TLS_INSPECTOR, resource_source, socket_address


def listeners(view: View) -> list[Json]:
    """Returns one listener for each open port."""
    by_port: dict[int, list[BoundServer]] = {}
    for bound in gateway.servers(view.snapshot, view.pod):
        by_port.setdefault(bound.target, []).append(bound)
    built = [_listener(view, port, found) for port, found in sorted(by_port.items())]
    return [listener for listener in built if listener["filter_chains"]]


def _listener(view: View, port: int, found: list[BoundServer]) -> Json:
    listener: Json = {
        "name": names.listener(names.ANY_ADDRESS, port),
        "address": socket_address(names.ANY_ADDRESS, port),
        "traffic_direction": "OUTBOUND",
        **BOUND,
        **connection_settings.buffer_limit(view.mesh.default_config),
        **filters.access_log(view, "gateway"),
    }
    if found[0].secure:
        listener["listener_filters"] = [TLS_INSPECTOR]
        listener["filter_chains"] = list(_secure_chains(view, found))
    else:
        listener["filter_chains"] = [{"filters": [_manager(view, found[0])], **CONNECT_TIMEOUT}]
    return listener


def _manager(view: View, bound: BoundServer) -> Json:
    name = bound.route_name
    return filters.connection_manager(
        view,
        "gateway",
        f"outbound_0.0.0.0_{bound.target};",
        rds={"route_config_name": name, "config_source": resource_source("rds", name)},
    )


def _secure_chains(view: View, found: list[BoundServer]) -> Iterator[Json]:
    taken: set[str] = set()
    for bound in found:
        fresh = [host for host in bound.hosts if host not in taken]
        taken.update(fresh)
        socket = gateway.server_tls(view.snapshot, view.pod, bound.server)
        if not fresh or socket is None:
            continue
        chain: Json = {
            "filters": [_manager(view, bound)],
            "transport_socket": socket,
            **CONNECT_TIMEOUT,
        }
        if "*" not in fresh:
            chain["filter_chain_match"] = {"server_names": fresh}
        yield chain


def route_configurations(view: View) -> list[Json]:
    """Returns the route configuration of every listener's filter chains."""
    groups: dict[str, list[BoundServer]] = {}
    for bound in gateway.servers(view.snapshot, view.pod):
        groups.setdefault(bound.route_name, []).append(bound)
    return [
        routes.configuration(name, virtual_hosts(view, found), ignore_port_in_host_matching=True)
        for name, found in sorted(groups.items())
    ]


def virtual_hosts(view: View, found: list[BoundServer]) -> list[VirtualHost]:
    """Returns the virtual hosts of one port.

    Each host of both a server and VirtualServices has the routes of these, oldest first.
    """
    hosts: dict[str, VirtualHost] = {}
    for bound in found:
        for resource in view.virtual_services:
            if not virtual_service.applies(resource, bound.gateway):
                continue
            attachment = Attachment(bound.gateway, bound.server.port.number, bound.secure)
            added = tuple(virtual_service.routes(view, resource, attachment))
            if not added:
                continue
            for host in gateway.common_hosts(bound, resource):
                known = hosts.get(host) or _virtual_host(host, bound)
                together = [*known.routes, *added]
                together.sort(key=lambda route: virtual_service.is_catch_all(route.config))
                hosts[host] = replace(known, routes=tuple(together))
        if bound.server.tls and bound.server.tls.https_redirect:
            for host in bound.hosts:
                known = hosts.get(host) or _virtual_host(host, bound)
                hosts[host] = replace(known, extra={"require_tls": "ALL"})
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
            if host.routes and host.routes == other.routes and host.extra == other.extra:
                result[index] = replace(other, domains=(*other.domains, *host.domains))
                break
        else:
            result.append(host)
    return result
