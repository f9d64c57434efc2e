"""Clusters: one for each host, port and subset of a proxy's view, one for each port of its pod."""

from __future__ import annotations

from collections.abc import Iterable

from lab import names
from lab.envoy import endpoints, routes, tls
from lab.envoy.inbound_ports import InboundPort, endpoint, inbound_ports
from lab.kinds.destination_rule import becomes as destination_rule
from lab.kinds.destination_rule.becomes import Policy
from lab.kinds.destination_rule.types import ConnectionPoolSettings
from lab.kinds.services import Host
from lab.kinds.visible import Upstream, View
from lab.model import Json
from lab.xds import (
    RAW_BUFFER,
    duration,
    extension,
    given,
    http_protocol_options,
    resource_source,
    static_assignment,
)

_ORIGINAL_DST: Json = {"type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED"}
"""A cluster that connects to the original destination of each connection."""

_TO_APPLICATION: Json = {
    "upstream_bind_config": {"source_address": {"address": "127.0.0.6", "port_value": 0}}
}
"""The source address by which the packet rules know the proxy's own connections to its pod."""

_NEVER = "9223372035s"
"""Istio keeps the hosts of such a cluster: it has one, the pod itself."""


def outbound(view: View, upstreams: Iterable[Upstream]) -> list[Json]:
    """Returns every cluster that a proxy's routes may name."""
    result = [_outbound(upstream) for upstream in upstreams]
    timeout = duration(view.mesh.connect_timeout)
    result.append(
        {
            "name": names.BLACK_HOLE,
            "alt_stat_name": f"{names.BLACK_HOLE};",
            "type": "STATIC",
            "connect_timeout": timeout,
        }
    )
    if view.pod.proxy == "sidecar":
        result.append(_passthrough(names.PASSTHROUGH, timeout, _default_pool(view)))
        if view.outbound_mode == "ALLOW_ANY_DYNAMIC_DNS":
            result.append(_any_name(timeout))
    return result


def _outbound(upstream: Upstream) -> Json:
    view, policy = upstream.view, upstream.policy
    pool = policy.connection_pool
    return {
        "name": upstream.name,
        "alt_stat_name": f"{upstream.name};",
        "connect_timeout": destination_rule.connect_timeout(pool, view.mesh.connect_timeout),
        "circuit_breakers": destination_rule.circuit_breakers(pool, policy.retry_budget),
        "metadata": {"filter_metadata": {"istio": _metadata(upstream)}},
        **destination_rule.upstream_connection_options(pool),
        **destination_rule.endpoint_health(
            policy.outlier_detection,
            policy.load_balancer,
            resolved=upstream.host.resolution != "DYNAMIC_DNS",
        ),
        **_discovery(upstream),
        **destination_rule.with_proxy_protocol(policy.proxy_protocol, _transport(upstream)),
        **destination_rule.protocol_options(upstream.port, policy, sniffed=upstream.sniffs),
    }


def _metadata(upstream: Upstream) -> Json:
    rule = upstream.view.rules.get(upstream.host.name)
    return given(
        services=[_service(upstream.host)],
        config=rule.resources[0].config_path if rule else None,
        subset=upstream.subset or None,
    )


def _service(host: Host) -> Json:
    name = host.service.name if host.service else host.name
    return {"host": host.name, "name": name, "namespace": host.namespace}


def _discovery(upstream: Upstream) -> Json:
    """Returns the fields about a cluster's endpoints and the choice among them."""
    host, name = upstream.host, upstream.name
    balancing = destination_rule.load_balancing(upstream.policy.load_balancer)
    match host.resolution:
        case "STATIC" | "NONE" if upstream.direct:
            return dict(_ORIGINAL_DST)
        case "STATIC" | "NONE":
            source = {"eds_config": resource_source("eds", name), "service_name": name}
            return {"type": "EDS", "eds_cluster_config": source, **balancing}
        case "DYNAMIC_DNS":
            return _forward_proxy(routes.dns_cache(host))
        case _:
            settings: Json = {
                "dns_lookup_family": "V4_ONLY",
                "dns_refresh_rate": duration(upstream.view.mesh.dns_refresh_rate),
                "dns_jitter": "0.1s",
                "respect_dns_ttl": True,
                "typed_dns_resolver_config": extension(
                    "envoy.network.dns_resolver.cares",
                    "extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
                    udp_max_queries=100,
                ),
            }
            if upstream.direct:
                return settings | _ORIGINAL_DST
            return {
                **settings,
                "type": "STRICT_DNS" if host.resolution == "DNS" else "LOGICAL_DNS",
                "load_assignment": endpoints.assignment(upstream),
                **balancing,
            }


def _transport(upstream: Upstream) -> Json:
    """Returns a cluster's TLS: the DestinationRule's, else mutual TLS where endpoints have it."""
    policy = upstream.policy
    if policy.tls is not None:
        match policy.tls.mode:
            case "DISABLE":
                return {}
            case "ISTIO_MUTUAL":
                return {"transport_socket": tls.upstream_context(upstream)}
            case _:
                socket = destination_rule.originated_tls(policy.tls, http2=upstream.http2)
                return {"transport_socket": socket}
    if not tls.auto_mtls(upstream):
        return {}
    mutual = tls.upstream_context(upstream)
    if upstream.direct:
        return {"transport_socket": mutual}
    return {
        "transport_socket_matches": [
            {
                "name": "tlsMode-istio",
                "match": {"tlsMode": "istio"},
                "transport_socket": mutual,
            },
            {"name": "tlsMode-disabled", "match": {}, "transport_socket": RAW_BUFFER},
        ]
    }


def _default_pool(view: View) -> ConnectionPoolSettings:
    default = destination_rule.effective(None, 0, default=view.default_policy())
    return destination_rule.pool_with_mesh(default.connection_pool, view.mesh)


def _passthrough(name: str, timeout: str, pool: ConnectionPoolSettings) -> Json:
    """Returns Istio's cluster for addresses that no Service has."""
    return {
        "name": name,
        "alt_stat_name": f"{names.PASSTHROUGH};",
        "connect_timeout": timeout,
        **_ORIGINAL_DST,
        "circuit_breakers": destination_rule.circuit_breakers(pool, None),
        **destination_rule.upstream_connection_options(pool),
        "typed_extension_protocol_options": http_protocol_options(
            use_downstream_protocol_config={
                "http_protocol_options": {},
                "http2_protocol_options": {},
            },
            common_http_protocol_options={"idle_timeout": "300s"},
        ),
    }


def _forward_proxy(cache: Json, **fields: object) -> Json:
    """Returns the fields of a cluster that resolves the name of each request."""
    return {
        "lb_policy": "CLUSTER_PROVIDED",
        "cluster_type": extension(
            "envoy.clusters.dynamic_forward_proxy",
            "extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig",
            dns_cache_config=cache,
            **fields,
        ),
    }


def _any_name(timeout: str) -> Json:
    """Returns the cluster that resolves the names of hosts that no Service has."""
    rest = _passthrough(names.DYNAMIC_DNS, timeout, ConnectionPoolSettings())
    del rest["type"]
    own = _forward_proxy(routes.ANY_NAME_CACHE, allow_insecure_cluster_options=True)
    return rest | own | {"alt_stat_name": f"{names.DYNAMIC_DNS};"}


def inbound(view: View) -> list[Json]:
    """Returns a sidecar's clusters towards its own application.

    There is one for each port that it serves and one for all others. Of the Service's
    DestinationRule they take the connection pool, and only that.
    """
    timeout = duration(view.mesh.connect_timeout)
    others = _passthrough(names.INBOUND_PASSTHROUGH, timeout, _default_pool(view))
    others |= _TO_APPLICATION
    return [*(_inbound(view, port) for port in inbound_ports(view)), others]


def _inbound(view: View, inbound: InboundPort) -> Json:
    name, port, host = names.inbound_cluster(inbound.target), inbound.port, inbound.host
    rule = destination_rule.applicable(view.snapshot, view.pod, host.name, host.namespace)
    policy = destination_rule.effective(rule, port.port, default=view.default_policy())
    own = view.sidecar.spec.inbound_connection_pool if view.sidecar is not None else None
    if inbound.ingress is not None:
        own = inbound.ingress.connection_pool or own
    pool = destination_rule.pool_with_mesh(own or policy.connection_pool, view.mesh)
    of_server = Policy(connection_pool=destination_rule.server_pool(pool))
    return {
        "name": name,
        "alt_stat_name": f"{name};",
        **_application(view, inbound),
        "connect_timeout": destination_rule.connect_timeout(pool, view.mesh.connect_timeout),
        "circuit_breakers": destination_rule.circuit_breakers(pool, policy.retry_budget),
        "common_lb_config": {},
        "metadata": {"filter_metadata": {"istio": {"services": [_service(host)]}}},
        **destination_rule.upstream_connection_options(pool),
        **destination_rule.protocol_options(port, of_server),
    }


def _application(view: View, inbound: InboundPort) -> Json:
    """Returns the fields about a port's application: the original destination, or another place."""
    given = inbound.ingress.default_endpoint if inbound.ingress is not None else ""
    place = endpoint(view, given)
    if place is None:
        return {**_ORIGINAL_DST, "cleanup_interval": _NEVER, **_TO_APPLICATION}
    assignment = static_assignment(names.inbound_cluster(inbound.target), place)
    own = place.get("socket_address", {}).get("address") in ("127.0.0.1", "::1")
    return {"type": "STATIC", "load_assignment": assignment, **({} if own else _TO_APPLICATION)}
