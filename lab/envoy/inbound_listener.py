"""`virtualInbound`: the listener of a sidecar for all that reaches its pod.

Each port that the sidecar serves has filter chains of its own, or a listener; the others share the
first ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from lab import names
from lab.envoy import routes, tls
from lab.envoy.filters import access_log, connection_manager, network_policies, tcp_proxy
from lab.envoy.inbound_ports import InboundPort, inbound_ports
from lab.envoy.outbound_listeners import BOUND
from lab.kinds.peer_authentication import becomes as peer_authentication
from lab.kinds.peer_authentication.becomes import Mode
from lab.kinds.visible import View
from lab.model import OVER_HTTP2, Json, PortProtocol
from lab.xds import (
    HTTP_INSPECTOR,
    ORIGINAL_DST,
    TLS_INSPECTOR,
    address,
    duration,
    given,
    metadata,
    socket_address,
)

_RAW: Json = {"transport_protocol": "raw_buffer"}
_TLS: Json = {"transport_protocol": "tls"}
_HTTP_ALPN = ["istio-http/1.0", "istio-http/1.1", "istio-h2"]
_Chain = tuple[Json, Literal["mtls", "plain"], Literal["http", "tcp"]]


def listeners(view: View) -> list[Json]:
    """Returns `virtualInbound`, then the listeners of ports that have sockets of their own."""
    chains = [
        {
            "name": f"{names.INBOUND_LISTENER}-blackhole",
            "filter_chain_match": {"destination_port": names.INBOUND_PORT},
            "filters": [tcp_proxy(view, "inbound", names.BLACK_HOLE, log=False)],
        },
        *_unclaimed_chains(view),
    ]
    bound: list[Json] = []
    for port in inbound_ports(view):
        own = list(_chains(view, port.target, port))
        if port.bound:
            name = names.listener(port.bind, port.target)
            bound.append(_listener(view, name, address(port.bind, port.target), own))
        else:
            chains += own
    place = socket_address(names.ANY_ADDRESS, names.INBOUND_PORT)
    redirected = _listener(view, names.INBOUND_LISTENER, place, chains)
    redirected["listener_filters"].insert(0, ORIGINAL_DST)
    return [redirected, *bound]


def _listener(view: View, name: str, place: Json, chains: list[Json]) -> Json:
    return {
        "name": name,
        "address": place,
        "traffic_direction": "INBOUND",
        "continue_on_listener_filters_timeout": True,
        "listener_filters_timeout": duration(view.mesh.protocol_detection_timeout),
        "listener_filters": list(_inspectors(chains)),
        "filter_chains": chains,
        **BOUND,
        **access_log(view, "inbound"),
    }


def _inspectors(chains: list[Json]) -> Iterator[Json]:
    """Yields the inspectors that some chain needs, each off for the ports that do not need it.

    0 stands for the ports that no chain names.
    """
    tls_ports: dict[int, bool] = {}
    http_ports: dict[int, bool] = {}
    for chain in chains:
        match = chain["filter_chain_match"]
        port = match.get("destination_port", 0)
        secure = match.get("transport_protocol") == "tls"
        tls_ports[port] = tls_ports.get(port, False) or secure
        http = "http/1.1" in match.get("application_protocols", ())
        http_ports[port] = http_ports.get(port, False) or http
    if any(tls_ports.values()):
        if tls_ports.get(0):
            off = _ports(port for port, needed in tls_ports.items() if port and not needed)
        else:
            on = _ports(port for port, needed in tls_ports.items() if port and needed)
            off = {"not_match": on}
        yield TLS_INSPECTOR | given(filter_disabled=off)
    if any(http_ports.values()):
        off = _ports(port for port, needed in http_ports.items() if not needed)
        yield HTTP_INSPECTOR | given(filter_disabled=off)


def _ports(ports: Iterator[int]) -> Json | None:
    """Returns a predicate on the destination port; None for no ports."""
    rules = [{"destination_port_range": {"start": port, "end": port + 1}} for port in sorted(ports)]
    if len(rules) > 1:
        return {"or_match": {"rules": rules}}
    return rules[0] if rules else None


def matches(protocol: PortProtocol, mode: Mode) -> list[_Chain]:
    """Returns the kinds of connection that a port takes, in Istio's order."""
    if protocol == "AUTO":
        sniffed: Json = {**_RAW, "application_protocols": ["http/1.1", "h2c"]}
        secure: list[_Chain] = [
            ({**_TLS, "application_protocols": _HTTP_ALPN}, "mtls", "http"),
            (_TLS, "mtls", "tcp"),
        ]
        plain: list[_Chain] = [(sniffed, "plain", "http"), (_RAW, "plain", "tcp")]
        if mode == "STRICT":
            return secure
        if mode == "DISABLE":
            return plain
        tcp_alpn = {**_TLS, "application_protocols": ["istio-peer-exchange", "istio"]}
        return [secure[0], plain[0], (tcp_alpn, "mtls", "tcp"), plain[1], (_TLS, "plain", "tcp")]
    kind: Literal["http", "tcp"] = "http" if protocol in routes.HTTP_PROTOCOLS else "tcp"
    if mode == "STRICT":
        return [(_TLS, "mtls", kind)]
    if mode == "DISABLE":
        return [(_RAW, "plain", kind)]
    both: list[_Chain] = [
        ({**_TLS, "application_protocols": list(tls.MTLS_ALPN)}, "mtls", kind),
        (_RAW, "plain", kind),
    ]
    if kind == "tcp":
        both.insert(1, (_TLS, "plain", kind))
    return both


def _unclaimed_chains(view: View) -> Iterator[Json]:
    """Yields the chains of ports that no Service has.

    Ports of `portLevelMtls` among them have chains of their own.
    """
    yield from _chains(view, 0, None)
    served = {port.target for port in inbound_ports(view)}
    for port in peer_authentication.level_ports(view.snapshot, view.pod):
        if port not in served:
            yield from _chains(view, port, None)


def _chains(view: View, target: int, served: InboundPort | None) -> Iterator[Json]:
    """Yields the chains of a port that is served, or of all others (0)."""
    protocol = served.port.protocol if served else "AUTO"
    listed = view.sidecar if served is not None and served.ingress is not None else None
    for match, security, kind in matches(protocol, tls.inbound_mode(view, target)[0]):
        cluster = names.inbound_cluster(target) if served else names.INBOUND_PASSTHROUGH
        if kind == "http":
            filters = [_manager(view, served, cluster)]
        else:
            proxy = tcp_proxy(view, "inbound", cluster)
            filters = [*network_policies(view), proxy]
        if served:
            name = names.listener(served.bind, target)
        else:
            name = names.INBOUND_LISTENER + ("-catchall-http" if kind == "http" else "")
        secure = security == "mtls"
        port = {"destination_port": target} if target else {}
        yield given(
            name=name,
            filter_chain_match={**port, **match},
            filters=filters,
            metadata=metadata(listed.config_path) if listed is not None else None,
            transport_socket=tls.downstream_context(view.snapshot, view.pod, tcp=kind == "tcp")
            if secure
            else None,
        )


def _manager(view: View, served: InboundPort | None, cluster: str) -> Json:
    action: Json = {
        "cluster": cluster,
        "timeout": "0s",
        "max_stream_duration": {"max_stream_duration": "0s", "grpc_timeout_header_max": "0s"},
    }
    label, port = (served.label, served.port) if served else ("", None)
    if port is None or port.protocol not in ("GRPC", "GRPC-WEB"):
        action["retry_policy"] = {"retry_on": "reset-before-request", "num_retries": 2}
    number = port.port if port else 0
    route = {
        "name": "default",
        "match": {"prefix": "/"},
        "decorator": {"operation": f"{label}:{number}/*"},
        "route": action,
    }
    hosts = {"name": f"inbound|http|{number}", "domains": ["*"], "routes": [route]}
    http2 = port is not None and port.protocol in OVER_HTTP2
    fields = given(
        route_config={"name": cluster, "validate_clusters": False, "virtual_hosts": [hosts]},
        http2_protocol_options={} if http2 else None,
    )
    prefix = f"inbound_{names.listener(served.bind, served.target)};" if served else f"{cluster};"
    return connection_manager(view, "inbound", prefix, port.protocol if port else None, **fields)
