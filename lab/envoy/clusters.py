"""Clusters: one for each host, port and subset a proxy can send to, and one for each port behind
a sidecar."""

from __future__ import annotations

from lab import names
from lab.envoy import endpoints, tls
from lab.kinds import services
from lab.kinds.destination_rule import becomes as destination_rule
from lab.kinds.destination_rule.becomes import Policy
from lab.kinds.destination_rule.types import ClientTLSSettings, ConnectionPoolSettings
from lab.kinds.services import Host
from lab.kinds.visible import View
from lab.model import Json, Pod, ServicePort, Snapshot
from lab.xds import duration, extension, file_source, http_protocol_options, socket_address, typed

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
"""A cluster that connects to whatever address the connection is for, as ORIGINAL_DST does on a
cluster. TLS, if any, is the application's own, so there is no name for Envoy to check."""

SYSTEM_ROOTS = "/etc/ssl/certs/ca-certificates.crt"


def connect_timeout(view: View) -> str:
    """The mesh's connectTimeout."""
    return duration(view.mesh.connect_timeout)


def outbound(view: View) -> list[Json]:
    """Every cluster a proxy's routes may name: for each port of each host one, and one for each
    subset of its DestinationRule."""
    result: list[Json] = []
    for host in view.hosts.values():
        rule = view.rules.get(host.name)
        for port in host.ports:
            result.append(_outbound(view, host, port, "", view.policy(host.name, port.port)))
            for subset, _, _ in rule.subsets if rule else ():
                policy = view.policy(host.name, port.port, subset.name)
                result.append(_outbound(view, host, port, subset.name, policy))
    timeout = connect_timeout(view)
    result.append({"name": names.BLACK_HOLE, "type": "STATIC", "connect_timeout": timeout})
    if view.pod.proxy == "sidecar":
        result.append(_passthrough(timeout))
        tunnels = [names.tunnel(port) for port in view.tunnel_ports()]
        result.extend(_internal(listener, timeout) for listener in (*tunnels, names.TUNNEL))
    return result


def _outbound(view: View, host: Host, port: ServicePort, subset: str, policy: Policy) -> Json:
    name = names.cluster(port.port, host.name, subset)
    pool = policy.connection_pool
    cluster: Json = {
        "name": name,
        "alt_stat_name": f"{name};",
        "connect_timeout": connect_timeout(view),
        "circuit_breakers": destination_rule.circuit_breakers(pool, policy.retry_budget),
        "metadata": {"filter_metadata": {"istio": _metadata(view, host, subset)}},
    }
    if pool and pool.tcp and pool.tcp.connect_timeout is not None:
        cluster["connect_timeout"] = duration(pool.tcp.connect_timeout)
    if (keepalive := destination_rule.keepalive(pool)) is not None:
        cluster["upstream_connection_options"] = keepalive
    if policy.outlier_detection is not None:
        cluster["outlier_detection"] = destination_rule.outlier_detection(policy.outlier_detection)
        cluster["common_lb_config"] = {
            "healthy_panic_threshold": {"value": policy.outlier_detection.min_health_percent or 0}
        }
    cluster.update(_discovery(view, host, port, subset, policy))
    if host.service is not None:
        cluster["upstream_bind_config"] = {"source_address": _address(view.pod.address)}
    cluster.update(_transport(view, host, port, subset, policy))
    options = _protocol_options(port, policy)
    if options:
        cluster["typed_extension_protocol_options"] = http_protocol_options(**options)
    return cluster


def _address(address: str) -> Json:
    """As the source of connections to other pods, so that they see which pod calls."""
    return {"address": address, "port_value": 0}


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
    """Where a cluster's endpoints come from."""
    name = names.cluster(port.port, host.name, subset)
    balancing = destination_rule.load_balancing(policy.load_balancer)
    match host.resolution:
        case "STATIC":
            return {
                "type": "EDS",
                "eds_cluster_config": {
                    "eds_config": file_source("eds", name),
                    "service_name": name,
                },
                **balancing,
            }
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


def _protocol_options(port: ServicePort, policy: Policy) -> Json:
    http = policy.connection_pool.http if policy.connection_pool else None
    options: Json = {}
    if common := destination_rule.common_http_options(policy.connection_pool):
        options["common_http_protocol_options"] = common
    http2: Json = {}
    if http and http.max_concurrent_streams > 0:
        http2["max_concurrent_streams"] = http.max_concurrent_streams
    if (http and http.use_client_protocol) or port.protocol == "AUTO":
        options["use_downstream_protocol_config"] = {
            "http_protocol_options": {},
            "http2_protocol_options": http2,
        }
    elif is_http2(port, policy):
        options["explicit_http_config"] = {"http2_protocol_options": http2}
    if policy.tls and policy.tls.mode in ("SIMPLE", "MUTUAL") and not policy.tls.sni:
        options["upstream_http_protocol_options"] = {
            "auto_sni": True,
            "auto_san_validation": not (
                policy.tls.subject_alt_names or policy.tls.insecure_skip_verify
            ),
        }
    if options and not ({"use_downstream_protocol_config", "explicit_http_config"} & set(options)):
        options["explicit_http_config"] = {"http_protocol_options": {}}
    return options


def is_http2(port: ServicePort, policy: Policy) -> bool:
    """Whether a cluster speaks HTTP/2 to its endpoints."""
    http = policy.connection_pool.http if policy.connection_pool else None
    upgrade = http is not None and http.h2_upgrade_policy == "UPGRADE"
    return port.protocol in ("HTTP2", "GRPC") or (upgrade and port.protocol == "HTTP")


def _transport(view: View, host: Host, port: ServicePort, subset: str, policy: Policy) -> Json:
    """The cluster's TLS: what the DestinationRule says, else Istio's automatic mutual TLS, which
    is for the endpoints that have a proxy."""
    if policy.tls is not None:
        match policy.tls.mode:
            case "DISABLE":
                return {}
            case "ISTIO_MUTUAL":
                return {"transport_socket": _mesh_tls(view, host, port, subset, policy)}
            case _:
                return {"transport_socket": _origination(policy.tls, http2=is_http2(port, policy))}
    if not endpoints.auto_mtls(view, host):
        return {}
    return {
        "transport_socket_matches": [
            {
                "name": "tlsMode-istio",
                "match": {"tlsMode": "istio"},
                "transport_socket": _mesh_tls(view, host, port, subset, policy),
            },
            {
                "name": "tlsMode-disabled",
                "match": {},
                "transport_socket": extension(
                    "envoy.transport_sockets.raw_buffer",
                    "extensions.transport_sockets.raw_buffer.v3.RawBuffer",
                ),
            },
        ]
    }


def _mesh_tls(view: View, host: Host, port: ServicePort, subset: str, policy: Policy) -> Json:
    accounts = (policy.tls.subject_alt_names if policy.tls else []) or sorted(
        {
            *host.subject_alt_names,
            *(
                endpoint.service_account
                for endpoint in view.endpoints(host, port.port)
                if endpoint.service_account
            ),
        }
    )
    socket = tls.upstream_context(
        view.snapshot,
        view.pod,
        accounts,
        (policy.tls.sni if policy.tls and policy.tls.sni else None)
        or names.server_name(port.port, host.name, subset),
        is_http2(port, policy),
    )
    if port.protocol == "AUTO":
        # Istio's own Envoy has a filter for this; without it the server would take HTTP for TCP.
        socket["typed_config"]["common_tls_context"]["alpn_protocols"] = ["istio-http/1.1", "istio"]
    return socket


def _origination(settings: ClientTLSSettings, *, http2: bool) -> Json:
    """TLS towards a server outside the mesh (SIMPLE, MUTUAL)."""
    common: Json = {}
    if settings.mode == "MUTUAL":
        common["tls_certificates"] = [
            {
                "certificate_chain": {"filename": settings.client_certificate},
                "private_key": {"filename": settings.private_key},
            }
        ]
    if not settings.insecure_skip_verify:
        validation: Json = {"trusted_ca": {"filename": settings.ca_certificates or SYSTEM_ROOTS}}
        if settings.subject_alt_names:
            validation["match_typed_subject_alt_names"] = [
                {"san_type": kind, "matcher": {"exact": name}}
                for name in settings.subject_alt_names
                for kind in (("URI",) if "://" in name else ("DNS",))
            ]
        common["validation_context"] = validation
    if http2:
        common["alpn_protocols"] = ["h2"]
    fields: Json = {"common_tls_context": common}
    if settings.sni:
        fields["sni"] = settings.sni
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": typed("extensions.transport_sockets.tls.v3.UpstreamTlsContext", **fields),
    }


def _passthrough(timeout: str) -> Json:
    """Istio's cluster for destinations outside the registry. On a cluster it connects to the
    original destination; here to the address the client gave, or else the host it asked for."""
    return {
        "name": names.PASSTHROUGH,
        "connect_timeout": timeout,
        **FORWARD_PROXY,
        "circuit_breakers": destination_rule.circuit_breakers(None, None),
        "typed_extension_protocol_options": http_protocol_options(
            use_downstream_protocol_config={
                "http_protocol_options": {},
                "http2_protocol_options": {},
            },
            common_http_protocol_options={"idle_timeout": "300s"},
        ),
    }


def _internal(listener: str, timeout: str) -> Json:
    """The way from the HTTP proxy to an internal listener, carrying the filter state along."""
    return {
        "name": listener,
        "type": "STATIC",
        "connect_timeout": timeout,
        "transport_socket": extension(
            "envoy.transport_sockets.internal_upstream",
            "extensions.transport_sockets.internal_upstream.v3.InternalUpstreamTransport",
            transport_socket=extension(
                "envoy.transport_sockets.raw_buffer",
                "extensions.transport_sockets.raw_buffer.v3.RawBuffer",
            ),
        ),
        "load_assignment": {
            "cluster_name": listener,
            "endpoints": [
                {
                    "lb_endpoints": [
                        {
                            "endpoint": {
                                "address": {
                                    "envoy_internal_address": {"server_listener_name": listener}
                                }
                            }
                        }
                    ]
                }
            ],
        },
    }


def inbound(view: View) -> list[Json]:
    """A sidecar's clusters towards its own application, one for each container port.

    Of the Service's DestinationRule they take the connection pool, and only that.
    """
    owners = inbound_ports(view.snapshot, view.pod)
    return [
        _inbound(view, target, owners.get(target))
        for target in sorted({*owners, *view.pod.ports.values()})
    ]


def inbound_ports(snapshot: Snapshot, pod: Pod) -> dict[int, tuple[Host, ServicePort]]:
    """The Service port that each container port belongs to; the oldest Service wins."""
    result: dict[int, tuple[Host, ServicePort]] = {}
    for service in services.services_of(snapshot, pod):
        for port in service.ports:
            target = services.resolve_port(pod, port.target_port)
            if target is not None:
                result.setdefault(target, (services.of_service(service), port))
    return result


def _inbound(view: View, target: int, owner: tuple[Host, ServicePort] | None) -> Json:
    name = names.inbound_cluster(target)
    pool = None
    if view.sidecar is not None:
        pool = view.sidecar.spec.inbound_connection_pool
    if owner is not None:
        host, service_port = owner
        rule = destination_rule.applicable(view.snapshot, view.pod, host.name, host.namespace)
        pool = destination_rule.effective(rule, service_port.port).connection_pool or pool
    cluster: Json = {
        "name": name,
        "alt_stat_name": f"{name};",
        "type": "STATIC",
        "connect_timeout": connect_timeout(view),
        "circuit_breakers": destination_rule.circuit_breakers(pool, None),
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [
                {
                    "lb_endpoints": [
                        {"endpoint": {"address": socket_address(view.pod.inside_address, target)}}
                    ]
                }
            ],
        },
    }
    if pool and pool.tcp and pool.tcp.connect_timeout is not None:
        cluster["connect_timeout"] = duration(pool.tcp.connect_timeout)
    if (keepalive := destination_rule.keepalive(pool)) is not None:
        cluster["upstream_connection_options"] = keepalive
    port = owner[1] if owner else ServicePort("", target, target, "AUTO")
    if options := _protocol_options(port, Policy(connection_pool=_inbound_pool(pool))):
        cluster["typed_extension_protocol_options"] = http_protocol_options(**options)
    return cluster


def _inbound_pool(pool: ConnectionPoolSettings | None) -> ConnectionPoolSettings | None:
    """The part of a pool that is for a server: only a client upgrades to HTTP/2."""
    if pool is None or pool.http is None:
        return pool
    http = pool.http.model_copy(update={"h2_upgrade_policy": None})
    return pool.model_copy(update={"http": http})
