"""Listeners of a sidecar for the connections of its own application.

`virtualOutbound` gets all of them, by iptables, and hands each to the listener of its original
destination: one for each port with HTTP (`0.0.0.0_80`), one for each address and port with TCP.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from lab import names
from lab.envoy.filters import (
    access_log,
    connection_manager,
    routed_tcp_proxy,
    tcp_proxy,
)
from lab.envoy.routes import catch_all, configuration, dns_cache, is_http
from lab.kinds.services import Host
from lab.kinds.sidecar import becomes as sidecar
from lab.kinds.sidecar.checks import UNIX
from lab.kinds.virtual_service import connections
from lab.kinds.visible import Egress, View
from lab.model import Json, PortProtocol, ServicePort
from lab.resources.resource import Origin
from lab.xds import (
    HTTP_INSPECTOR,
    TLS_INSPECTOR,
    address,
    duration,
    extension,
    given,
    metadata,
    resource_source,
    socket_address,
)

_LOCALHOST = "127.0.0.1"
CONNECT_TIMEOUT: Json = {"transport_socket_connect_timeout": "15s"}
BOUND: Json = {"max_connections_to_accept_per_socket_event": 1}
"""A setting of listeners with a socket of their own."""

HTTP_MATCH: Json = {
    "transport_protocol": "raw_buffer",
    "application_protocols": ["http/1.1", "h2c"],
}
"""The match of plain HTTP, as the HTTP inspector finds it."""


@dataclass(frozen=True, slots=True)
class _Chain:
    match: Json
    """A FilterChainMatch; an empty one matches all."""
    filters: list[Json]
    origin: Origin = field(default_factory=Origin)
    """The rule of a VirtualService, if it is one's."""
    metadata: Json | None = None


@dataclass(slots=True)
class _Listener:
    address: str
    """An address, or a Unix socket."""
    port: int
    protocol: Literal["TCP", "HTTP", "AUTO"]
    """AUTO: an inspector tells HTTP from the rest."""
    chains: list[_Chain]
    bound: bool = False
    """Whether it has a socket of its own, and not what iptables lead to it."""


def listeners(view: View) -> list[Json]:
    """Returns `virtualOutbound` and the listeners that it hands connections to."""
    found = [*_http_proxy(view), *_merged(view)]
    return [_virtual_outbound(view), *(_config(view, listener) for listener in found)]


def _http_proxy(view: View) -> Iterator[_Listener]:
    """Yields the mesh's HTTP proxy, if it has one."""
    if port := view.mesh.proxy_http_port:
        name = names.listener(_LOCALHOST, port)
        options: Json = {"http_protocol_options": {"allow_absolute_url": True}}
        http = _http_chain(view, names.HTTP_PROXY_ROUTES, name, options=options)
        yield _Listener(_LOCALHOST, port, "HTTP", [replace(http, match={})], bound=True)


def _virtual_outbound(view: View) -> Json:
    blackhole = {
        "name": f"{names.OUTBOUND_LISTENER}-blackhole",
        "filter_chain_match": {"destination_port": names.OUTBOUND_PORT},
        "filters": [tcp_proxy(view, "outbound", names.BLACK_HOLE, log=False)],
    }
    others = {
        "name": f"{names.OUTBOUND_LISTENER}-catchall-tcp",
        "filters": [_unknown(view)],
    }
    chains, inspectors = [blackhole, others], {}
    if view.outbound_mode == "ALLOW_ANY_DYNAMIC_DNS":
        chains.insert(1, _unknown_http(view))
        inspectors = {"listener_filters": [HTTP_INSPECTOR]}
    return {
        "name": names.OUTBOUND_LISTENER,
        "address": socket_address(names.ANY_ADDRESS, names.OUTBOUND_PORT),
        "use_original_dst": True,
        "traffic_direction": "OUTBOUND",
        **inspectors,
        "filter_chains": chains,
        **BOUND,
        **access_log(view, "outbound"),
    }


def _unknown_http(view: View) -> Json:
    """Returns the chain of HTTP that no Service's listener takes, when the proxy resolves names."""
    unknown = catch_all(view)
    found = configuration(view, unknown.name, [unknown], ignore_port_in_host_matching=True)
    prefix = f"outbound_{names.OUTBOUND_LISTENER}_{unknown.name};"
    return {
        "name": f"{names.OUTBOUND_LISTENER}-catchall-tcp-http",
        "filter_chain_match": {"application_protocols": HTTP_MATCH["application_protocols"]},
        "filters": [connection_manager(view, "outbound", prefix, route_config=found)],
    }


def _unknown(view: View) -> Json:
    """Returns the filter for connections that no Service's listener takes."""
    return tcp_proxy(view, "outbound", sidecar.unknown_cluster(view.sidecar, view.outbound_mode))


def _merged(view: View) -> list[_Listener]:
    """Returns the listeners of all hosts; two on one address and port are merged as istiod does.

    HTTP beside TCP is told apart by an inspector; of two chains with one match the first stays.
    A listener for one port keeps it from the one for all others.
    """
    found: dict[tuple[str, int], _Listener] = {}
    for egress in view.egress:
        taken = set(found) if egress.port is None else set()
        for new in _of_egress(view.through(egress), egress):
            place = (new.address, new.port)
            known = found.setdefault(place, new)
            if known is new or place in taken or known.protocol == new.protocol != "TCP":
                continue
            if (known.protocol, new.protocol) == ("HTTP", "AUTO"):
                found[place] = new
            elif (known.protocol, new.protocol) != ("AUTO", "HTTP"):
                if known.protocol != new.protocol:
                    known.protocol = "AUTO"
                matches = [chain.match for chain in known.chains]
                known.chains += [chain for chain in new.chains if chain.match not in matches]
    return list(found.values())


def _of_egress(view: View, egress: Egress) -> Iterator[_Listener]:
    listener = egress.listener
    if listener.port is not None and listener.port.protocol.upper() == "UDP":
        return
    bound = listener.capture_mode == "NONE" or listener.bind.startswith(UNIX)
    bind = listener.bind or (_LOCALHOST if bound else "")
    for host in egress.hosts.values():
        if host.resolution == "ALIAS":
            continue
        for port in host.ports if listener.port is None else (sidecar.port(listener.port),):
            for new in _of_port(view, host, port, bind, listener.port is not None):
                new.bound = bound
                yield new


def origin(view: View, listener: Json, chain: Json) -> Origin:
    """Returns the VirtualService's rule that a chain of a listener is from, if it is from one."""
    match = chain.get("filter_chain_match") or {}
    for found in _merged(view):
        if names.listener(found.address, found.port) == listener["name"]:
            return next((one.origin for one in found.chains if one.match == match), Origin())
    return Origin()


def _of_port(
    view: View, host: Host, port: ServicePort, bind: str, alone: bool
) -> Iterator[_Listener]:
    """Yields the listeners of a host's port; `alone` if a Sidecar's listener is for it alone."""
    if is_http(port) and port.protocol != "AUTO":
        address = bind or names.ANY_ADDRESS
        routes = str(port.port or bind)
        listener = names.listener(address, port.port)
        # The filter is there for the host that opens the listener alone, as in istiod.
        cache = {"names_cache": dns_cache(host)} if _by_request(host) else None
        http = _http_chain(view, routes, listener, port.protocol, cache)
        if address == names.ANY_ADDRESS and not view.egress[0].proxies:
            yield _Listener(address, port.port, "AUTO", [http])
        else:
            yield _Listener(address, port.port, "HTTP", [replace(http, match={})])
        return
    for address, subnets in [(bind, ())] if bind else _addresses(view, host, port, alone):
        tcp = list(_tcp_chains(view, host, port, address, subnets))
        if port.protocol != "AUTO":
            yield _Listener(address, port.port, "TCP", tcp)
            continue
        shared = address == names.ANY_ADDRESS
        routes = str(port.port) if shared else names.virtual_host(host.name, port.port)
        http = _http_chain(view, routes if port.port else bind, names.listener(address, port.port))
        yield _Listener(address, port.port, "AUTO", [*tcp, http])


def _addresses(
    view: View, host: Host, port: ServicePort, alone: bool
) -> Iterator[tuple[str, Sequence[str]]]:
    """Yields the addresses to listen on for a port without HTTP, each with the ranges it is for.

    Without an address of its own a host has those of its endpoints (a headless Service), unless the
    port is `alone`, else all addresses; a range of addresses is a match on all addresses.
    """
    if not alone and (host.headless or (host.resolution == "NONE" and not host.addresses)):
        ends = view.endpoints(host, port.port)
        for end in ends:
            if end.address != view.pod.address:  # It does not pass its sidecar to reach itself.
                yield end.address, ()
        if not ends and host.entry is not None and host.entry.spec.workload_selector is None:
            yield names.ANY_ADDRESS, ()
        return
    for own in host.addresses or (names.ANY_ADDRESS,):
        start, slash, length = own.partition("/")
        if slash and length != "32":
            yield names.ANY_ADDRESS, (own,)
        else:
            yield start, ()


def _tcp_chains(
    view: View, host: Host, port: ServicePort, address: str, subnets: Sequence[str]
) -> Iterator[_Chain]:
    """Yields the chains of VirtualServices' rules, then the host's own where they leave one out."""
    rules, incomplete = connections.for_host(view, host.name, port, subnets)
    for rule in rules:
        proxy = routed_tcp_proxy(view, "outbound", rule, port.port)
        named = metadata(rule.resource.config_path) if rule.named else None
        match = chain_match(rule.server_names, rule.subnets)
        yield _Chain(match, [proxy], rule.origin, named)
    if incomplete:
        secure = port.protocol in connections.TLS_PROTOCOLS and address == names.ANY_ADDRESS
        proxy = tcp_proxy(view, "outbound", names.cluster(port.port, host.name))
        match = chain_match([host.name] if secure else (), subnets)
        yield _Chain(match, [*_name_resolver(host, port), proxy])


def chain_match(server_names: Sequence[str], subnets: Sequence[str] = ()) -> Json:
    """Returns the match of a chain by TLS server names and destinations; empty ones match all."""
    ranges = [ipaddress.ip_interface(subnet) for subnet in sorted(subnets)]
    return given(
        server_names=sorted(server_names) if "*" not in server_names and server_names else None,
        prefix_ranges=[
            {"address_prefix": str(one.ip), "prefix_len": one.network.prefixlen}
            for one in ranges
            if not one.ip.is_unspecified
        ]
        or None,
    )


def _name_resolver(host: Host, port: ServicePort) -> Iterator[Json]:
    """Yields the filter that resolves the TLS server name for a wildcard host (DYNAMIC_DNS)."""
    if _by_request(host):
        yield extension(
            "envoy.extensions.filters.network.sni_dynamic_forward_proxy",
            "extensions.filters.network.sni_dynamic_forward_proxy.v3.FilterConfig",
            dns_cache_config=dns_cache(host),
            port_value=port.port,
        )


def _by_request(host: Host) -> bool:
    """Returns whether the name of each request or connection is resolved."""
    return host.resolution == "DYNAMIC_DNS" and host.name.startswith("*")


def _http_chain(
    view: View,
    routes: str,
    listener: str,
    protocol: PortProtocol | None = None,
    options: Json | None = None,
) -> _Chain:
    rds = {"route_config_name": routes, "config_source": resource_source("rds", routes)}
    prefix = f"outbound_{listener};"
    manager = connection_manager(view, "outbound", prefix, protocol, rds=rds, **(options or {}))
    return _Chain(HTTP_MATCH, [manager])


def _config(view: View, found: _Listener) -> Json:
    """Returns a listener as Envoy's JSON; the chain that matches all is the default one."""
    chains = [
        given(
            filter_chain_match=chain.match or None,
            filters=chain.filters,
            metadata=chain.metadata,
            **CONNECT_TIMEOUT,
        )
        for chain in found.chains
    ]
    specific = [chain for chain in chains if "filter_chain_match" in chain]
    default = next((chain for chain in chains if "filter_chain_match" not in chain), None)
    if default is not None and not specific:
        specific, default = [default], None
    elif default is None:
        default = {
            "name": "PassthroughFilterChain",
            "filter_chain_match": {},
            "filters": [_unknown(view)],
        }
    inspectors = [
        *([TLS_INSPECTOR] if any("server_names" in c.match for c in found.chains) else []),
        *([HTTP_INSPECTOR] if any(c.match is HTTP_MATCH for c in found.chains) else []),
    ]
    return given(
        name=names.listener(found.address, found.port),
        address=address(found.address, found.port),
        **(BOUND if found.bound else {"bind_to_port": False}),
        traffic_direction="OUTBOUND",
        listener_filters=inspectors or None,
        listener_filters_timeout=duration(view.mesh.protocol_detection_timeout)
        if HTTP_INSPECTOR in inspectors
        else "0s",
        continue_on_listener_filters_timeout=True,
        filter_chains=specific,
        default_filter_chain=default,
    )
