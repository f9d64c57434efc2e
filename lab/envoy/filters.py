"""Filters: the HTTP connection manager with its HTTP filters, and the TCP proxy."""

from __future__ import annotations

from lab import names
from lab.envoy import routes
from lab.kinds.authorization_policy import becomes as authorization
from lab.kinds.authorization_policy import custom
from lab.kinds.destination_rule import becomes as destination_rule
from lab.kinds.mesh_config import becomes as mesh_config
from lab.kinds.mesh_config import connection_settings, proxy_headers
from lab.kinds.request_authentication import becomes as request_authentication
from lab.kinds.telemetry import becomes as telemetry
from lab.kinds.telemetry.becomes import Direction
from lab.kinds.virtual_service import connections
from lab.kinds.virtual_service.connections import Rule
from lab.kinds.visible import View
from lab.model import Json, PortProtocol
from lab.xds import ROUTER, duration, extension, given

GRPC_WEB: Json = extension(
    "envoy.filters.http.grpc_web", "extensions.filters.http.grpc_web.v3.GrpcWeb"
)


def connection_manager(
    view: View,
    direction: Direction,
    stat_prefix: str,
    protocol: PortProtocol | None = None,
    names_cache: Json | None = None,
    **fields: object,
) -> Json:
    """Returns the HTTP connection manager of one direction; `fields` are for its routes.

    `names_cache`: the DNS cache of a host whose name is resolved for each request.
    """
    config: Json = {
        "stat_prefix": stat_prefix,
        "codec_type": "AUTO",
        "use_remote_address": direction == "gateway",
        **mesh_config.normalization(view.mesh),
        "stream_idle_timeout": "0s",
        "proxy_100_continue": True,
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "request_id_extension": telemetry.request_id_extension(view, direction),
        **proxy_headers.manager_fields(view.mesh.default_config, direction),
        **fields,
        "http_filters": http_filters(view, direction, protocol, names_cache),
    }
    proxy = view.mesh.default_config
    if direction == "gateway":
        topology = proxy.gateway_topology
        forwards = topology.forward_client_cert_details or "SANITIZE_SET"
        config |= given(
            http_protocol_options={},
            xff_num_trusted_hops=topology.num_trusted_proxies or None,
            forward_client_cert_details=forwards,
            set_current_client_cert_details=dict.fromkeys(("subject", "cert", "dns", "uri"), True)
            if forwards in ("APPEND_FORWARD", "SANITIZE_SET")
            else None,
        )
    config |= connection_settings.manager_fields(proxy, gateway=direction == "gateway")
    config |= given(
        access_log=telemetry.access_log(view, direction) or None,
        tracing=telemetry.tracing(view, direction),
    )
    return extension(
        "envoy.filters.network.http_connection_manager",
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        **config,
    )


def access_log(view: View, direction: Direction) -> Json:
    """Returns a listener's own log, of connections that no filter chain matched (flag NR)."""
    found = telemetry.listener_access_log(view, direction)
    return {"access_log": found} if found else {}


def http_filters(
    view: View,
    direction: Direction,
    protocol: PortProtocol | None = None,
    names_cache: Json | None = None,
) -> list[Json]:
    """Returns the HTTP filters in Istio's order: policies, then fault and CORS, the router last."""
    filters: list[Json] = []
    if direction != "outbound":
        filters += custom.http_filters(view)
        filters += request_authentication.http_filters(view.snapshot, view.pod)
        filters += authorization.http_filters(view.snapshot, view.pod)
    filters += [GRPC_WEB] if protocol == "GRPC-WEB" else []
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
    any_name = direction == "outbound" and view.outbound_mode == "ALLOW_ANY_DYNAMIC_DNS"
    filters += [
        extension(
            "envoy.filters.http.dynamic_forward_proxy",
            "extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig",
            dns_cache_config=cache,
        )
        for cache in (names_cache, routes.ANY_NAME_CACHE if any_name else None)
        if cache is not None
    ]
    router = {**ROUTER["typed_config"], **proxy_headers.router_fields(view.mesh.default_config)}
    return [*filters, {**ROUTER, "typed_config": router}]


def network_policies(view: View) -> list[Json]:
    """Returns the network filters of policies."""
    return [
        *custom.network_filters(view),
        *authorization.network_filters(view.snapshot, view.pod),
    ]


def tcp_proxy(view: View, direction: Direction, cluster: str, *, log: bool = True) -> Json:
    """Returns the filter that forwards bytes to one cluster."""
    target = {"stat_prefix": cluster, "cluster": cluster}
    return _tcp_proxy(view, direction, cluster, target, log=log)


def routed_tcp_proxy(view: View, direction: Direction, rule: Rule, port: int) -> Json:
    """Returns the filter that forwards the connections of a VirtualService's rule.

    Several destinations have the settings of the first one's host.
    """
    found = connections.clusters(view, rule, port)
    if len(found) == 1:
        return tcp_proxy(view, direction, found[0][0])
    _, number, _, host = found[0][0].split("|")
    shares = [{"name": name, "weight": weight} for name, weight in found if weight > 0]
    target = {
        "stat_prefix": f"{rule.resource.name}.{rule.resource.namespace}",
        "weighted_clusters": {"clusters": shares},
    }
    return _tcp_proxy(view, direction, names.cluster(int(number), host), target)


def _tcp_proxy(
    view: View, direction: Direction, cluster: str, target: Json, *, log: bool = True
) -> Json:
    """Returns a TCP proxy to a target, with the settings of a cluster's host."""
    rule, subset = None, ""
    if cluster.startswith("outbound|"):
        _, _, subset, host = cluster.split("|")
        rule = view.rules.get(host)  # Istio does not look at the settings of ports here.
    tcp = destination_rule.effective(rule, 0).connection_pool.tcp
    hashing = destination_rule.effective(rule, 0, subset).load_balancer.consistent_hash
    return extension(
        "envoy.filters.network.tcp_proxy",
        "extensions.filters.network.tcp_proxy.v3.TcpProxy",
        **target,
        **given(
            idle_timeout=duration(tcp.idle_timeout)
            or (connection_settings.idle_timeout(view.mesh.default_config) if log else None),
            max_downstream_connection_duration=duration(tcp.max_connection_duration),
            tunneling_config=destination_rule.tunneling(destination_rule.tunnel(rule, subset)[0]),
            hash_policy=[{"source_ip": {}}] if hashing and hashing.use_source_ip else None,
            access_log=(telemetry.access_log(view, direction) if log else None) or None,
        ),
    )
