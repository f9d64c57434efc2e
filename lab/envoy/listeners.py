"""Listeners of a sidecar: for its own application's requests, and for those from the mesh."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from lab import names
from lab.envoy import clusters, routes, tls
from lab.envoy.filters import access_log, connection_manager, tcp_proxy
from lab.kinds.authorization_policy import becomes as authorization
from lab.kinds.peer_authentication.becomes import Mode
from lab.kinds.services import Host
from lab.kinds.visible import View
from lab.model import Json, PortProtocol, ServicePort
from lab.xds import HTTP_INSPECTOR, TLS_INSPECTOR, extension, given, resource_source, socket_address


def sidecar(view: View) -> list[Json]:
    """Returns all listeners of a sidecar."""
    result = [_outbound_http(view), *_outbound_tcp(view), *_tunnels(view)]
    if view.pod.ports:
        result.append(_inbound(view))
    return result


def _outbound_http(view: View) -> Json:
    """Returns the application's HTTP proxy.

    On a cluster this is `virtualOutbound` and a listener for each port, between which iptables and
    the original destination choose.
    """
    manager = connection_manager(
        view,
        "outbound",
        f"outbound_0.0.0.0_{names.OUTBOUND_PORT};",
        rds={
            "route_config_name": names.OUTBOUND_ROUTES,
            "config_source": resource_source("rds", names.OUTBOUND_ROUTES),
        },
    )
    manager["typed_config"]["upgrade_configs"].append({"upgrade_type": "CONNECT"})
    return {
        "name": names.OUTBOUND_LISTENER,
        "address": socket_address(view.pod.inside_address, names.OUTBOUND_PORT),
        "traffic_direction": "OUTBOUND",
        "filter_chains": [{"filters": [manager]}],
        **access_log(view, "outbound"),
    }


def outbound_tcp_ports(view: View) -> dict[int, tuple[Host, ServicePort]]:
    """Returns the host behind a sidecar's TCP listener on each port.

    There is one address for all, so the first host with a port has it; a port on which the
    application itself listens is left out.
    """
    result: dict[int, tuple[Host, ServicePort]] = {}
    for host in view.hosts.values():
        if host.service is None:
            continue
        for port in host.ports:
            if port.protocol == "TCP" and port.port not in view.pod.ports.values():
                result.setdefault(port.port, (host, port))
    return result


def _outbound_tcp(view: View) -> list[Json]:
    result: list[Json] = []
    for number, (host, _) in sorted(outbound_tcp_ports(view).items()):
        bind = host.addresses[0] if host.addresses else "0.0.0.0"
        proxy = tcp_proxy(view, "outbound", names.cluster(number, host.name))
        result.append(
            {
                "name": f"{bind}_{number}",
                "address": socket_address(view.pod.inside_address, number),
                "traffic_direction": "OUTBOUND",
                "filter_chains": [{"filters": [proxy]}],
            }
        )
    return result


def _tunnels(view: View) -> list[Json]:
    """Returns the internal listeners of CONNECT.

    Each port with TLS or TCP hosts has one, which tells hosts apart by the TLS server name; one
    serves all other ports.
    """
    fallback = names.BLACK_HOLE if view.outbound_mode == "REGISTRY_ONLY" else names.PASSTHROUGH
    result: list[Json] = []
    for number in view.tunnel_ports():
        chains: list[Json] = []
        default = fallback
        taken: set[str] = set()
        for host in view.hosts.values():
            port = host.port(number)
            if port is None:
                continue
            if port.protocol in ("TLS", "HTTPS"):
                server_names = [name for name in _server_names(view, host) if name not in taken]
                taken.update(server_names)
                if server_names:
                    match = {"server_names": server_names}
                    own = _tunnelled(view, names.cluster(number, host.name), number)
                    chains.append({"filter_chain_match": match, "filters": own})
            elif port.protocol == "TCP" and host.service is None and default == fallback:
                default = names.cluster(number, host.name)
        result.append(_tunnel(view, names.tunnel(number), chains, default, number))
    return [*result, _tunnel(view, names.TUNNEL, [], fallback, 443)]


def _server_names(view: View, host: Host) -> list[str]:
    return [
        name for name in routes.domains(view, host) if not name[0].isdigit() and name[-1] != "."
    ]


def _tunnel(view: View, name: str, chains: list[Json], default: str, port: int) -> Json:
    return given(
        name=name,
        internal_listener={},
        traffic_direction="OUTBOUND",
        listener_filters=[TLS_INSPECTOR],
        listener_filters_timeout="0s",
        default_filter_chain={
            "name": "PassthroughFilterChain",
            "filters": _tunnelled(view, default, port),
        },
        filter_chains=chains or None,
    )


def _tunnelled(view: View, cluster: str, port: int) -> list[Json]:
    """Returns the filters of one tunnelled destination; the first resolves its name."""
    resolve = extension(
        "envoy.filters.network.sni_dynamic_forward_proxy",
        "extensions.filters.network.sni_dynamic_forward_proxy.v3.FilterConfig",
        dns_cache_config=clusters.DNS_CACHE,
        port_value=port,
    )
    proxy = tcp_proxy(view, "outbound", cluster)
    return [proxy] if cluster == names.BLACK_HOLE else [resolve, proxy]


def _inbound(view: View) -> Json:
    """Returns the listener of all that reaches the pod, with filter chains for each port."""
    pod = view.pod
    owners = clusters.inbound_ports(view.snapshot, pod)
    ports = sorted({*pod.ports.values(), *owners})
    plain = [port for port in ports if tls.inbound_mode(view, port)[0] == "DISABLE"]
    known = [port for port in ports if port in owners and owners[port][1].protocol != "AUTO"]
    addresses = [{"address": socket_address(pod.address, port)} for port in ports]
    return given(
        name=names.INBOUND_LISTENER,
        address=addresses[0]["address"],
        traffic_direction="INBOUND",
        continue_on_listener_filters_timeout=True,
        listener_filters_timeout="0s",
        listener_filters=[
            *_inspector(TLS_INSPECTOR, plain, len(ports)),
            *_inspector(HTTP_INSPECTOR, known, len(ports)),
        ],
        filter_chains=[
            chain for port in ports for chain in _inbound_chains(view, port, owners.get(port))
        ],
        **access_log(view, "inbound"),
        additional_addresses=addresses[1:] or None,
    )


def _inspector(inspector: Json, without: list[int], count: int) -> list[Json]:
    """Returns a listener filter that is off for some ports; none when it is off for all."""
    if len(without) == count:
        return []
    if not without:
        return [inspector]
    rules = [{"destination_port_range": {"start": port, "end": port + 1}} for port in without]
    disabled = rules[0] if len(rules) == 1 else {"or_match": {"rules": rules}}
    return [{**inspector, "filter_disabled": disabled}]


_RAW: Json = {"transport_protocol": "raw_buffer"}
_TLS: Json = {"transport_protocol": "tls"}
_HTTP_ALPN = ["istio-http/1.0", "istio-http/1.1", "istio-h2"]
_Chain = tuple[Json, Literal["mtls", "plain"], Literal["http", "tcp"]]


def inbound_matches(protocol: PortProtocol, mode: Mode) -> list[_Chain]:
    """Returns the kinds of connection that a port takes (Istio's table), the most used first."""
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


def _inbound_chains(
    view: View, target: int, owner: tuple[Host, ServicePort] | None
) -> Iterator[Json]:
    protocol = owner[1].protocol if owner else "AUTO"
    for match, security, kind in inbound_matches(protocol, tls.inbound_mode(view, target)[0]):
        if kind == "http":
            filters = [_inbound_manager(view, target, owner)]
        else:
            proxy = tcp_proxy(view, "inbound", names.inbound_cluster(target))
            filters = [*authorization.network_filters(view.snapshot, view.pod), proxy]
        secure = security == "mtls"
        yield given(
            name=f"0.0.0.0_{target}",
            filter_chain_match={"destination_port": target, **match},
            filters=filters,
            transport_socket=tls.downstream_context(view.snapshot, view.pod) if secure else None,
        )


def _inbound_manager(view: View, target: int, owner: tuple[Host, ServicePort] | None) -> Json:
    cluster = names.inbound_cluster(target)
    action: Json = {
        "cluster": cluster,
        "timeout": "0s",
        "max_stream_duration": {"max_stream_duration": "0s", "grpc_timeout_header_max": "0s"},
    }
    host, port = (owner[0].name, owner[1]) if owner else ("", None)
    if port is None or port.protocol != "GRPC":
        action["retry_policy"] = {"retry_on": "reset-before-request", "num_retries": 2}
    number = port.port if port else target
    route = {
        "name": "default",
        "match": {"prefix": "/"},
        "decorator": {"operation": f"{host or names.INBOUND_LISTENER}:{number}/*"},
        "route": action,
    }
    served = {"name": f"inbound|http|{number}", "domains": ["*"], "routes": [route]}
    http2 = port is not None and port.protocol in ("HTTP2", "GRPC")
    fields = given(
        route_config={"name": cluster, "validate_clusters": False, "virtual_hosts": [served]},
        http2_protocol_options={} if http2 else None,
    )
    return connection_manager(view, "inbound", f"inbound_0.0.0.0_{target};", **fields)
