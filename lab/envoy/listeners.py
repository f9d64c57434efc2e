"""Listeners: what a proxy accepts, from its own application and from the mesh."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from lab import names
from lab.envoy import clusters, routes, tls
from lab.kinds.authorization_policy import becomes as authorization
from lab.kinds.peer_authentication import becomes as peer_authentication
from lab.kinds.request_authentication import becomes as request_authentication
from lab.kinds.services import Host
from lab.kinds.telemetry import becomes as telemetry
from lab.kinds.visible import View
from lab.model import Json, PortProtocol, Service, ServicePort, Snapshot
from lab.resources.resource import Origin, Problem, Resource
from lab.xds import HTTP_INSPECTOR, ROUTER, TLS_INSPECTOR, extension, file_source, socket_address

Direction = Literal["inbound", "outbound", "gateway"]

MTLS_ALPN = ["istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"]
"""What a sidecar's ClientHello says; by it a PERMISSIVE port tells mesh TLS from the rest."""

CLIENT_CERTIFICATE_DETAILS: dict[Direction, Json] = {
    "inbound": {
        "forward_client_cert_details": "APPEND_FORWARD",
        "set_current_client_cert_details": {"subject": True, "dns": True, "uri": True},
    },
    "outbound": {},
    "gateway": {
        "forward_client_cert_details": "SANITIZE_SET",
        "set_current_client_cert_details": {
            "subject": True,
            "cert": True,
            "dns": True,
            "uri": True,
        },
    },
}

DYNAMIC_FORWARD_PROXY = "envoy.filters.http.dynamic_forward_proxy"


def connection_manager(
    view: View, direction: Direction, stat_prefix: str, **fields: object
) -> Json:
    """The HTTP connection manager of one direction; `fields` says where its routes come from."""
    config: Json = {
        "stat_prefix": stat_prefix,
        "codec_type": "AUTO",
        "use_remote_address": direction == "gateway",
        "normalize_path": True,
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        "stream_idle_timeout": "0s",
        "proxy_100_continue": True,
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "request_id_extension": telemetry.request_id_extension(view.snapshot, view.pod, direction),
        **CLIENT_CERTIFICATE_DETAILS[direction],
        **fields,
        "http_filters": http_filters(view, direction),
    }
    if direction != "outbound":
        config["server_name"] = "istio-envoy"
    if log := telemetry.access_log(view.snapshot, view.pod, direction):
        config["access_log"] = log
    if (tracing := telemetry.tracing(view.snapshot, view.pod, direction)) is not None:
        config["tracing"] = tracing
    return extension(
        "envoy.filters.network.http_connection_manager",
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        **config,
    )


def access_log(view: View, direction: Direction) -> Json:
    """A listener's own log: of connections that fit none of its filter chains (flag NR)."""
    found = telemetry.listener_access_log(view.snapshot, view.pod, direction)
    return {"access_log": found} if found else {}


def http_filters(view: View, direction: Direction) -> list[Json]:
    """Istio's order: authentication, authorization, then fault and CORS, the router last."""
    filters: list[Json] = []
    if direction != "outbound":
        filters += request_authentication.http_filters(view.snapshot, view.pod)
        filters += authorization.http_filters(view.snapshot, view.pod)
    filters += [
        extension(
            "envoy.filters.http.grpc_stats",
            "extensions.filters.http.grpc_stats.v3.FilterConfig",
            emit_filter_state=True,
            stats_for_all_methods=False,
        ),
        extension("envoy.filters.http.fault", "extensions.filters.http.fault.v3.HTTPFault"),
        extension("envoy.filters.http.cors", "extensions.filters.http.cors.v3.Cors"),
    ]
    if direction == "outbound":
        state = routes.destination_state(f"%REQ({routes.ORIGINAL_DESTINATION})%", shared="NONE")
        filters += [
            {"name": "envoy.filters.http.set_filter_state", "typed_config": state},
            extension(
                DYNAMIC_FORWARD_PROXY,
                "extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig",
                dns_cache_config=clusters.DNS_CACHE,
                allow_dynamic_host_from_filter_state=True,
            ),
        ]
    return [*filters, ROUTER]


def tcp_proxy(view: View, direction: Direction, cluster: str) -> Json:
    """Forwards bytes to one cluster."""
    fields: Json = {"stat_prefix": cluster, "cluster": cluster}
    if log := telemetry.access_log(view.snapshot, view.pod, direction):
        fields["access_log"] = log
    return extension(
        "envoy.filters.network.tcp_proxy",
        "extensions.filters.network.tcp_proxy.v3.TcpProxy",
        **fields,
    )


def sidecar(view: View) -> list[Json]:
    """All listeners of a sidecar."""
    result = [_outbound_http(view), *_outbound_tcp(view), *_tunnels(view)]
    if view.pod.ports:
        result.append(_inbound(view))
    return result


def _outbound_http(view: View) -> Json:
    """The application's HTTP proxy. On a cluster this is `virtualOutbound` and a listener for
    each port, between which iptables and the original destination choose."""
    manager = connection_manager(
        view,
        "outbound",
        f"outbound_0.0.0.0_{names.OUTBOUND_PORT};",
        rds={
            "route_config_name": names.OUTBOUND_ROUTES,
            "config_source": file_source("rds", names.OUTBOUND_ROUTES),
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
    """The host that a sidecar's TCP listener on each port leads to.

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


def taken_ports(resource: Resource, snapshot: Snapshot) -> Iterator[Problem]:
    """A warning for each TCP port of a Service that belongs to an older one."""
    owners: dict[int, Service] = {}
    for service in snapshot.services:
        own = (service.namespace, service.name) == (resource.namespace, resource.name)
        for index, port in enumerate(service.ports):
            if port.protocol != "TCP":
                continue
            owner = owners.setdefault(port.port, service)
            if own and owner is not service:
                yield Problem(
                    ("spec", "ports", index),
                    f"sidecars listen on TCP port {port.port} for {owner.namespace}/{owner.name}: "
                    "through them this Service is not reached (on a cluster each has an address "
                    "of its own)",
                    "warning",
                )


def _outbound_tcp(view: View) -> list[Json]:
    result: list[Json] = []
    for number, (host, _) in sorted(outbound_tcp_ports(view).items()):
        bind = host.addresses[0] if host.addresses else "0.0.0.0"
        result.append(
            {
                "name": f"{bind}_{number}",
                "address": socket_address(view.pod.inside_address, number),
                "traffic_direction": "OUTBOUND",
                "filter_chains": [
                    {"filters": [tcp_proxy(view, "outbound", names.cluster(number, host.name))]}
                ],
            }
        )
    return result


def _tunnels(view: View) -> list[Json]:
    """Where CONNECT goes: one internal listener for each port with TLS or TCP hosts, which tells
    hosts apart by the TLS server name, and one for all other ports."""
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
                    chains.append(
                        {
                            "filter_chain_match": {"server_names": server_names},
                            "filters": _tunnelled(view, names.cluster(number, host.name), number),
                        }
                    )
            elif port.protocol == "TCP" and host.service is None and default == fallback:
                default = names.cluster(number, host.name)
        result.append(_tunnel(view, names.tunnel(number), chains, default, number))
    return [*result, _tunnel(view, names.TUNNEL, [], fallback, 443)]


def _server_names(view: View, host: Host) -> list[str]:
    return [
        name for name in routes.domains(view, host) if not name[0].isdigit() and name[-1] != "."
    ]


def _tunnel(view: View, name: str, chains: list[Json], default: str, port: int) -> Json:
    listener: Json = {
        "name": name,
        "internal_listener": {},
        "traffic_direction": "OUTBOUND",
        "listener_filters": [TLS_INSPECTOR],
        "listener_filters_timeout": "0s",
        "default_filter_chain": {
            "name": "PassthroughFilterChain",
            "filters": _tunnelled(view, default, port),
        },
    }
    if chains:
        listener["filter_chains"] = chains
    return listener


def _tunnelled(view: View, cluster: str, port: int) -> list[Json]:
    """The filters of one tunnelled destination; the first finds the address when it is a name."""
    resolve = extension(
        "envoy.filters.network.sni_dynamic_forward_proxy",
        "extensions.filters.network.sni_dynamic_forward_proxy.v3.FilterConfig",
        dns_cache_config=clusters.DNS_CACHE,
        port_value=port,
    )
    proxy = tcp_proxy(view, "outbound", cluster)
    return [proxy] if cluster == names.BLACK_HOLE else [resolve, proxy]


def _inbound(view: View) -> Json:
    """Everything that reaches the pod from outside, a set of filter chains for each port."""
    pod = view.pod
    owners = clusters.inbound_ports(view.snapshot, pod)
    ports = sorted({*pod.ports.values(), *owners})
    chains: list[Json] = []
    sniffed: list[int] = []
    plain: list[int] = []
    for target in ports:
        owner = owners.get(target)
        protocol: PortProtocol = owner[1].protocol if owner else "AUTO"
        mode, _ = inbound_mode(view, target)
        if mode == "DISABLE":
            plain.append(target)
        if protocol == "AUTO":
            sniffed.append(target)
        chains += _inbound_chains(view, target, owner, protocol, mode)
    first, *rest = ports
    listener: Json = {
        "name": names.INBOUND_LISTENER,
        "address": socket_address(pod.address, first),
        "traffic_direction": "INBOUND",
        "continue_on_listener_filters_timeout": True,
        "listener_filters_timeout": "0s",
        "listener_filters": [
            *_inspector(TLS_INSPECTOR, plain, len(ports)),
            *_inspector(HTTP_INSPECTOR, [p for p in ports if p not in sniffed], len(ports)),
        ],
        "filter_chains": chains,
        **access_log(view, "inbound"),
    }
    if rest:
        listener["additional_addresses"] = [
            {"address": socket_address(pod.address, port)} for port in rest
        ]
    return listener


def _inspector(inspector: Json, without: list[int], count: int) -> list[Json]:
    """A listener filter, off for some ports; left out when it is off for all."""
    if len(without) == count:
        return []
    if not without:
        return [inspector]
    rules = [{"destination_port_range": {"start": port, "end": port + 1}} for port in without]
    disabled = rules[0] if len(rules) == 1 else {"or_match": {"rules": rules}}
    return [{**inspector, "filter_disabled": disabled}]


def inbound_mode(view: View, target: int) -> tuple[peer_authentication.Mode, Origin]:
    """Returns the mutual TLS mode of a container port, and its origin.

    Without certificates all is plain text.
    """
    if not view.snapshot.certificates:
        return "DISABLE", Origin()
    return peer_authentication.mode(view.snapshot, view.pod, target)


_RAW: Json = {"transport_protocol": "raw_buffer"}
_TLS: Json = {"transport_protocol": "tls"}
_HTTP_ALPN = ["istio-http/1.0", "istio-http/1.1", "istio-h2"]
_Chain = tuple[Json, Literal["mtls", "plain"], Literal["http", "tcp"]]


def inbound_matches(protocol: PortProtocol, mode: peer_authentication.Mode) -> list[_Chain]:
    """Istio's table: which kinds of connection a port takes, and as what (first is most used)."""
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
        ({**_TLS, "application_protocols": MTLS_ALPN}, "mtls", kind),
        (_RAW, "plain", kind),
    ]
    if kind == "tcp":
        both.insert(1, (_TLS, "plain", kind))
    return both


def _inbound_chains(
    view: View,
    target: int,
    owner: tuple[Host, ServicePort] | None,
    protocol: PortProtocol,
    mode: peer_authentication.Mode,
) -> list[Json]:
    result: list[Json] = []
    for match, security, kind in inbound_matches(protocol, mode):
        chain: Json = {
            "name": f"0.0.0.0_{target}",
            "filter_chain_match": {"destination_port": target, **match},
            "filters": (
                [_inbound_manager(view, target, owner)]
                if kind == "http"
                else [
                    *authorization.network_filters(view.snapshot, view.pod),
                    tcp_proxy(view, "inbound", names.inbound_cluster(target)),
                ]
            ),
        }
        if security == "mtls":
            chain["transport_socket"] = tls.downstream_context(view.snapshot, view.pod)
        result.append(chain)
    return result


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
    fields: Json = {
        "route_config": {
            "name": cluster,
            "validate_clusters": False,
            "virtual_hosts": [
                {"name": f"inbound|http|{number}", "domains": ["*"], "routes": [route]}
            ],
        }
    }
    if port is not None and port.protocol in ("HTTP2", "GRPC"):
        fields["http2_protocol_options"] = {}
    return connection_manager(view, "inbound", f"inbound_0.0.0.0_{target};", **fields)
