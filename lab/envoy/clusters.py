"""Clusters: one for each host, port and subset of a proxy's view, one for each port of its pod."""

from __future__ import annotations

from lab import names
from lab.envoy import endpoints, tls
from lab.kinds import services
from lab.kinds.destination_rule import becomes as destination_rule
from lab.kinds.destination_rule.becomes import Policy
from lab.kinds.services import Host
from lab.kinds.visible import View
from lab.model import Json, Pod, ServicePort, Snapshot
from lab.xds import (
    RAW_BUFFER,
    duration,
    extension,
    http_protocol_options,
    resource_source,
    socket_address,
    static_assignment,
)

DNS_CACHE: Json = {"name": "outbound", "dns_lookup_family": "V4_ONLY"}
"""The one cache that all dynamic forward proxy clusters and filters of a proxy share."""

FORWARD_PROXY: Json = {
    "lb_policy": "CLUSTER_PROVIDED",
    "cluster_type": extension(
        "envoy.clusters.dynamic_forward_proxy",
        "extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig",
        dns_cache_config=DNS_CACHE,
        allow_insecure_cluster_options=True,
    ),
}
"""A cluster that connects to the address of each connection, as ORIGINAL_DST does on a cluster.

TLS, if any, is the application's own, so there is no name for Envoy to check.
"""


def outbound(view: View) -> list[Json]:
    """Returns every cluster that a proxy's routes may name."""
    result = [
        _outbound(view, host, port, subset)
        for host in view.destinations.values()
        for port in host.ports
        for subset in view.subsets(host)
    ]
    timeout = duration(view.mesh.connect_timeout)
    result.append({"name": names.BLACK_HOLE, "type": "STATIC", "connect_timeout": timeout})
    if view.pod.proxy == "sidecar":
        result.append(_passthrough(view, names.PASSTHROUGH))
        if view.outbound_mode == "ALLOW_ANY_DYNAMIC_DNS":
            result.append(_passthrough(view, names.DYNAMIC_DNS))
        tunnels = [names.tunnel(port) for port in view.tunnel_ports()]
        result.extend(_internal(listener, timeout) for listener in (*tunnels, names.TUNNEL))
    return result


def _outbound(view: View, host: Host, port: ServicePort, subset: str) -> Json:
    name = names.cluster(port.port, host.name, subset)
    policy = view.policy(host.name, port.port, subset)
    pool = policy.connection_pool
    cluster: Json = {
        "name": name,
        "alt_stat_name": f"{name};",
        "connect_timeout": destination_rule.connect_timeout(pool, view.mesh.connect_timeout),
        "circuit_breakers": destination_rule.circuit_breakers(pool, policy.retry_budget),
        "metadata": {"filter_metadata": {"istio": _metadata(view, host, subset)}},
        **destination_rule.upstream_connection_options(pool),
        **destination_rule.endpoint_health(policy.outlier_detection, policy.load_balancer),
        **_discovery(view, host, port, subset, policy),
    }
    if host.service is not None:
        # By their source address other pods see which pod calls.
        source = {"address": view.pod.address, "port_value": 0}
        cluster["upstream_bind_config"] = {"source_address": source}
    return {
        **cluster,
        **_transport(view, host, port, subset, policy),
        **destination_rule.protocol_options(port, policy),
    }


def _metadata(view: View, host: Host, subset: str) -> Json:
    metadata: Json = {
        "services": [
            {"host": host.name, "name": host.name.split(".", 1)[0], "namespace": host.namespace}
        ]
    }
    if rule := view.rules.get(host.name):
        config = rule.resources[0]
        metadata["config"] = (
            "/apis/networking.istio.io/v1/namespaces/"
            f"{config.namespace}/destination-rule/{config.name}"
        )
    if subset:
        metadata["subset"] = subset
    return metadata


def _discovery(view: View, host: Host, port: ServicePort, subset: str, policy: Policy) -> Json:
    """Returns the fields about a cluster's endpoints and the choice among them."""
    name = names.cluster(port.port, host.name, subset)
    balancing = destination_rule.load_balancing(policy.load_balancer)
    match host.resolution:
        case "STATIC":
            source = {"eds_config": resource_source("eds", name), "service_name": name}
            return {"type": "EDS", "eds_cluster_config": source, **balancing}
        case "NONE" | "DYNAMIC_DNS":
            return dict(FORWARD_PROXY)
        case "DNS" | "DNS_ROUND_ROBIN":
            return {
                "type": "STRICT_DNS" if host.resolution == "DNS" else "LOGICAL_DNS",
                "dns_lookup_family": "V4_ONLY",
                "dns_refresh_rate": duration(view.mesh.dns_refresh_rate),
                "respect_dns_ttl": True,
                "load_assignment": endpoints.assignment(view, host, port, subset),
                **balancing,
            }


def _transport(view: View, host: Host, port: ServicePort, subset: str, policy: Policy) -> Json:
    """Returns a cluster's TLS: the DestinationRule's, else mutual TLS where endpoints have it."""
    if policy.tls is not None:
        match policy.tls.mode:
            case "DISABLE":
                return {}
            case "ISTIO_MUTUAL":
                return {"transport_socket": _mesh_tls(view, host, port, subset, policy)}
            case _:
                http2 = destination_rule.is_http2(port, policy)
                socket = destination_rule.originated_tls(policy.tls, http2=http2)
                return {"transport_socket": socket}
    if not tls.auto_mtls(view, host):
        return {}
    return {
        "transport_socket_matches": [
            {
                "name": "tlsMode-istio",
                "match": {"tlsMode": "istio"},
                "transport_socket": _mesh_tls(view, host, port, subset, policy),
            },
            {"name": "tlsMode-disabled", "match": {}, "transport_socket": RAW_BUFFER},
        ]
    }


def _mesh_tls(view: View, host: Host, port: ServicePort, subset: str, policy: Policy) -> Json:
    own = policy.tls
    accounts = {found.service_account for found in view.endpoints(host, port.port)} - {""}
    socket = tls.upstream_context(
        view.snapshot,
        view.pod,
        (own and own.subject_alt_names) or sorted({*host.subject_alt_names, *accounts}),
        (own and own.sni) or names.server_name(port.port, host.name, subset),
        destination_rule.is_http2(port, policy),
    )
    if port.protocol == "AUTO":
        # Istio's own Envoy has a filter for this; without it the server would take HTTP for TCP.
        socket["typed_config"]["common_tls_context"]["alpn_protocols"] = ["istio-http/1.1", "istio"]
    return socket


def _passthrough(view: View, name: str) -> Json:
    """Returns Istio's cluster for destinations outside the registry.

    On a cluster it connects to the original destination; here to the address the client gave, or
    else to the host it asked for.
    """
    default = view.mesh.default_traffic_policy
    pool = default.connection_pool if default and name == names.PASSTHROUGH else None
    return {
        "name": name,
        "connect_timeout": destination_rule.connect_timeout(pool, view.mesh.connect_timeout),
        **FORWARD_PROXY,
        "circuit_breakers": destination_rule.circuit_breakers(pool, None),
        "typed_extension_protocol_options": http_protocol_options(
            use_downstream_protocol_config={
                "http_protocol_options": {},
                "http2_protocol_options": {},
            },
            common_http_protocol_options={"idle_timeout": "300s"},
        ),
    }


def _internal(listener: str, timeout: str) -> Json:
    """Returns the cluster of an internal listener; connections keep their filter state."""
    return {
        "name": listener,
        "type": "STATIC",
        "connect_timeout": timeout,
        "transport_socket": extension(
            "envoy.transport_sockets.internal_upstream",
            "extensions.transport_sockets.internal_upstream.v3.InternalUpstreamTransport",
            transport_socket=RAW_BUFFER,
        ),
        "load_assignment": static_assignment(
            listener, {"envoy_internal_address": {"server_listener_name": listener}}
        ),
    }


def inbound(view: View) -> list[Json]:
    """Returns a sidecar's clusters towards its own application, one for each container port.

    Of the Service's DestinationRule they take the connection pool, and only that.
    """
    owners = inbound_ports(view.snapshot, view.pod)
    return [
        _inbound(view, target, owners.get(target))
        for target in sorted({*owners, *view.pod.ports.values()})
    ]


def inbound_ports(snapshot: Snapshot, pod: Pod) -> dict[int, tuple[Host, ServicePort]]:
    """Returns the Service port of each container port; the oldest Service wins."""
    result: dict[int, tuple[Host, ServicePort]] = {}
    for service in services.services_of(snapshot, pod):
        for port in service.ports:
            target = services.resolve_port(pod, port.target_port)
            if target is not None:
                result.setdefault(target, (services.of_service(service), port))
    return result


def _inbound(view: View, target: int, owner: tuple[Host, ServicePort] | None) -> Json:
    name = names.inbound_cluster(target)
    pool = view.sidecar.spec.inbound_connection_pool if view.sidecar is not None else None
    default = view.default_policy()
    port = ServicePort("", target, target, "AUTO")
    if owner is not None:
        host, port = owner
        rule = destination_rule.applicable(view.snapshot, view.pod, host.name, host.namespace)
        own = destination_rule.effective(rule, port.port, default=default)
        pool = pool or own.connection_pool
    of_server = Policy(connection_pool=destination_rule.server_pool(pool))
    return {
        "name": name,
        "alt_stat_name": f"{name};",
        "type": "STATIC",
        "connect_timeout": destination_rule.connect_timeout(pool, view.mesh.connect_timeout),
        "circuit_breakers": destination_rule.circuit_breakers(pool, None),
        "load_assignment": static_assignment(name, socket_address(view.pod.inside_address, target)),
        **destination_rule.upstream_connection_options(pool),
        **destination_rule.protocol_options(port, of_server),
    }
