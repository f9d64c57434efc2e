"""DestinationRule: the rule for a host, and all that its policies set in a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from lab import names
from lab.kinds import selection
from lab.kinds.destination_rule import locality
from lab.kinds.destination_rule.types import (
    ClientTLSSettings,
    ConnectionPoolSettings,
    ConsistentHash,
    HTTPSettings,
    LoadBalancer,
    OutlierDetection,
    PortTrafficPolicy,
    ProxyProtocol,
    RetryBudget,
    Subset,
    TrafficPolicy,
    Tunnel,
)
from lab.kinds.mesh_config.checks import DefaultTrafficPolicy, MeshConfig
from lab.kinds.services import exported
from lab.model import OVER_HTTP2, Json, Pod, ServicePort, Snapshot
from lab.resources.resource import Origin, Path, Resource
from lab.xds import (
    AUTHORITY,
    RAW_BUFFER,
    SECRETS,
    duration,
    extension,
    given,
    http_protocol_options,
    served_secret,
)

UNLIMITED = 4294967295


@dataclass(frozen=True, slots=True)
class Rule:
    """The DestinationRules of one host in one namespace, merged as Istio merges them."""

    subsets: tuple[tuple[Subset, Resource, int], ...]
    """Each subset with the resource it comes from and its index there."""
    resources: tuple[Resource, ...]

    def subset(self, name: str) -> Subset | None:
        return next((subset for subset, _, _ in self.subsets if subset.name == name), None)


@dataclass(frozen=True, slots=True)
class Policy:
    """The effective traffic policy for one port (and subset) of a host."""

    load_balancer: LoadBalancer = field(default_factory=LoadBalancer)
    connection_pool: ConnectionPoolSettings = field(default_factory=ConnectionPoolSettings)
    outlier_detection: OutlierDetection | None = None
    tls: ClientTLSSettings | None = None
    proxy_protocol: ProxyProtocol | None = None
    retry_budget: RetryBudget | None = None
    origins: Mapping[str, Origin] = field(default_factory=dict, compare=False)
    """The origin of each field that is set, by the field's name."""


def applicable(snapshot: Snapshot, pod: Pod, host: str, namespace: str) -> Rule | None:
    """Returns the rule of a client for a host of `namespace`.

    Searched are the client's namespace, the host's, then the root namespace; the first with any
    rule for the host wins. There an exact host beats a wildcard and a longer one a shorter, and
    rules of different hosts never merge. Of its rules, those that select the pod come before those
    that select all; a rule for other pods hides less specific ones.
    """
    rules = [
        rule
        for rule in snapshot.of("DestinationRule")
        if exported(rule.spec.export_to, rule.namespace, pod.namespace)
        and (rule.namespace == pod.namespace or not rule.spec.workload_selector)
    ]
    searched = [namespace, snapshot.root_namespace]
    if pod.namespace != snapshot.root_namespace:
        searched.insert(0, pod.namespace)
    for place in dict.fromkeys(searched):
        best = _most_specific([rule for rule in rules if rule.namespace == place], host)
        if best:
            own = [rule for rule in best if rule.spec.workload_selector and _selects(rule, pod)]
            others = [rule for rule in best if not rule.spec.workload_selector]
            return _merge(own or others) if own or others else None
    return None


def _selects(rule: Resource, pod: Pod) -> bool:
    return rule.namespace == pod.namespace and names.selects(selection.labels(rule), pod.labels)


def _most_specific(rules: Iterable[Resource], host: str) -> list[Resource]:
    by_host: dict[str, list[Resource]] = {}
    for rule in rules:
        pattern = names.expand(rule.spec.host, rule.namespace)
        if names.matches(pattern, host):
            by_host.setdefault(pattern, []).append(rule)
    if not by_host:
        return []
    best = max(by_host, key=lambda pattern: (not pattern.startswith("*"), len(pattern)))
    return by_host[best]


def _merge(rules: list[Resource]) -> Rule:
    subsets: dict[str, tuple[Subset, Resource, int]] = {}
    for rule in rules:
        for index, subset in enumerate(rule.spec.subsets):
            subsets.setdefault(subset.name, (subset, rule, index))
    return Rule(tuple(subsets.values()), tuple(rules))


_PORT_FIELDS = ("load_balancer", "connection_pool", "outlier_detection", "tls")
_FIELDS = (*_PORT_FIELDS, "proxy_protocol", "retry_budget")
_Found = dict[str, tuple[Any, Origin]]


def effective(
    rule: Rule | None,
    port: int,
    subset: str | None = None,
    default: tuple[DefaultTrafficPolicy, Origin] | None = None,
) -> Policy:
    """Returns the policy for a port (and subset) of a host, each field with its origin.

    A port's own settings replace the general ones without inheriting; the mesh's default fills
    what is still unset. A subset's override field by field, and a subset's port settings replace
    the fields that a port has.
    """
    found: _Found = {}
    if default is not None:
        found |= _set_fields(default[0], ("connection_pool", "outlier_detection"), default[1])
    for resource in rule.resources if rule else ():
        if (policy := resource.spec.traffic_policy) is not None:
            origin = Origin(resource.source, ("spec", "trafficPolicy"), resource)
            found |= _own(policy, port, origin)[0]
            break
    for own, resource, index in rule.subsets if rule else ():
        if own.name == subset and own.traffic_policy is not None:
            path = ("spec", "subsets", index, "trafficPolicy")
            origin = Origin(resource.source, path, resource)
            fields, of_port = _own(own.traffic_policy, port, origin)
            if of_port:
                found = {name: found[name] for name in found if name not in _PORT_FIELDS}
            found |= fields
    values = {name: value for name, (value, _) in found.items()}
    return Policy(**values, origins={name: origin for name, (_, origin) in found.items()})


def with_mesh(policy: Policy, mesh: MeshConfig) -> Policy:
    """Returns a policy with the mesh's settings for what it leaves open."""
    balancer = policy.load_balancer
    if balancer.zone_aware_lb_setting is None and balancer.locality_lb_setting is None:
        update = given(
            zone_aware_lb_setting=mesh.zone_aware_lb_setting,
            locality_lb_setting=mesh.locality_lb_setting,
        )
        balancer = balancer.model_copy(update=update)
    return replace(
        policy,
        connection_pool=pool_with_mesh(policy.connection_pool, mesh),
        load_balancer=balancer,
        origins={"connection_pool": Origin(), "load_balancer": Origin(), **policy.origins},
    )


def pool_with_mesh(pool: ConnectionPoolSettings, mesh: MeshConfig) -> ConnectionPoolSettings:
    """Returns a pool with the mesh's TCP keep-alive where it has none."""
    if mesh.tcp_keepalive is None:
        return pool
    own = pool.tcp.tcp_keepalive
    set_here = own.model_dump(exclude_none=True) if own else {}
    keepalive = mesh.tcp_keepalive.model_copy(update=set_here)
    tcp = pool.tcp.model_copy(update={"tcp_keepalive": keepalive})
    return pool.model_copy(update={"tcp": tcp})


def upgraded(policy: Policy, port: ServicePort, mesh: MeshConfig) -> Policy:
    """Returns a port's policy with the mesh's upgrade to HTTP/2, which is for HTTP alone.

    A rule's own upgrade is for any port.
    """
    http = policy.connection_pool.http
    undecided = http.h2_upgrade_policy in (None, "DEFAULT") and not http.use_client_protocol
    if mesh.h2_upgrade_policy != "UPGRADE" or not undecided or port.protocol != "HTTP":
        return policy
    http = http.model_copy(update={"h2_upgrade_policy": "UPGRADE"})
    pool = policy.connection_pool.model_copy(update={"http": http})
    return replace(policy, connection_pool=pool)


def _own(policy: TrafficPolicy, port: int, origin: Origin) -> tuple[_Found, bool]:
    """Returns the fields that hold for a port, and whether they are the port's own."""
    for index, settings in enumerate(policy.port_level_settings):
        if settings.port and settings.port.number == port:
            path = (*origin.path, "portLevelSettings", index)
            return _set_fields(settings, _PORT_FIELDS, replace(origin, path=path)), True
    return _set_fields(policy, _FIELDS, origin), False


def _set_fields(
    settings: TrafficPolicy | PortTrafficPolicy | DefaultTrafficPolicy,
    names: Iterable[str],
    origin: Origin,
) -> _Found:
    """The fields that are set, each with the origin of its value."""
    aliases = {name: field.alias or name for name, field in type(settings).model_fields.items()}
    return {
        name: (value, replace(origin, path=(*origin.path, aliases[name])))
        for name in names
        if (value := getattr(settings, name)) is not None
    }


def passes(balancer: LoadBalancer | None) -> bool:
    """Returns whether connections go to the address that the client asks for."""
    return balancer is not None and balancer.simple == "PASSTHROUGH"


def passes_by_rule(rule: Rule | None, subset: str) -> bool:
    """Returns the same of a whole rule or of a subset, as istiod asks it about mutual TLS."""
    if rule is None:
        return False
    chosen = rule.subset(subset)
    policies = [one.spec.traffic_policy for one in rule.resources]
    policy = chosen.traffic_policy if chosen is not None else next(filter(None, policies), None)
    return policy is not None and passes(policy.load_balancer)


def circuit_breakers(pool: ConnectionPoolSettings, budget: RetryBudget | None) -> Json:
    """Returns the thresholds, unlimited unless set (Envoy's own defaults are 1024 and 3)."""
    limits = {
        "max_connections": pool.tcp.max_connections,
        "max_pending_requests": pool.http.http1_max_pending_requests,
        "max_requests": pool.http.http2_max_requests,
        "max_retries": pool.http.max_retries,
    }
    threshold: Json = {name: _positive(value) or UNLIMITED for name, value in limits.items()}
    if budget is not None:
        threshold["retry_budget"] = given(
            budget_percent={"value": 20.0 if budget.percent is None else budget.percent},
            budget_interval=duration(budget.budget_interval),
            min_retry_concurrency=budget.min_retry_concurrency or 3,
        )
    return {"thresholds": [threshold]}


def _positive(value: int) -> int | None:
    return value if value > 0 else None


def connect_timeout(pool: ConnectionPoolSettings, default: timedelta) -> str:
    """Returns the time within which a connection must be made."""
    return duration(pool.tcp.connect_timeout or default)


def upstream_connection_options(pool: ConnectionPoolSettings) -> Json:
    """Returns a cluster's field for TCP keep-alive, when the pool asks for it."""
    settings = pool.tcp.tcp_keepalive
    if settings is None:
        return {}
    keepalive = given(
        keepalive_probes=settings.probes or None,
        keepalive_time=_seconds(settings.time),
        keepalive_interval=_seconds(settings.interval),
    )
    return {"upstream_connection_options": {"tcp_keepalive": keepalive}}


def _seconds(value: timedelta | None) -> int | None:
    return None if value is None else int(value.total_seconds())


def is_http2(port: ServicePort, policy: Policy, *, sniffed: bool = True) -> bool:
    """Returns whether a cluster speaks HTTP/2 to its endpoints, whatever the client speaks.

    `sniffed`: on a port without a protocol, the client's listener finds it out.
    """
    http = policy.connection_pool.http
    if http.use_client_protocol or (port.protocol == "AUTO" and sniffed):
        return False
    return port.protocol in OVER_HTTP2 or http.h2_upgrade_policy == "UPGRADE"


def server_pool(pool: ConnectionPoolSettings) -> ConnectionPoolSettings:
    """Returns the part of a pool that holds for a server: only a client upgrades to HTTP/2."""
    http = pool.http.model_copy(update={"h2_upgrade_policy": None})
    return pool.model_copy(update={"http": http})


def protocol_options(port: ServicePort, policy: Policy, *, sniffed: bool = True) -> Json:
    """Returns a cluster's HTTP options: its protocol, limits of its connections, SNI."""
    http, tls = policy.connection_pool.http, policy.tls
    common = _common_http_options(policy.connection_pool)
    own = http.max_concurrent_streams > 0 or http.http2_keep_alive
    options: Json = {"common_http_protocol_options": common} if common or own else {}
    if http.use_client_protocol or (port.protocol == "AUTO" and sniffed):
        options["use_downstream_protocol_config"] = {
            "http_protocol_options": {},
            "http2_protocol_options": {},
        }
    elif is_http2(port, policy, sniffed=sniffed):
        options["explicit_http_config"] = {"http2_protocol_options": _http2_options(http)}
    if tls and tls.mode in ("SIMPLE", "MUTUAL") and not tls.sni:
        options["upstream_http_protocol_options"] = {
            "auto_sni": True,
            "auto_san_validation": not (tls.subject_alt_names or tls.insecure_skip_verify),
        }
    if not options:
        return {}
    if not ({"use_downstream_protocol_config", "explicit_http_config"} & set(options)):
        options["explicit_http_config"] = {"http_protocol_options": {}}
    return {"typed_extension_protocol_options": http_protocol_options(**options)}


def _http2_options(http: HTTPSettings) -> Json:
    """Returns the options of a cluster that speaks HTTP/2 whatever the client speaks."""
    ping = http.http2_keep_alive
    return given(
        max_concurrent_streams=_positive(http.max_concurrent_streams),
        connection_keepalive=ping
        and {"interval": duration(ping.interval), "timeout": duration(ping.timeout)},
    )


def _common_http_options(pool: ConnectionPoolSettings) -> Json:
    return given(
        max_requests_per_connection=_positive(pool.http.max_requests_per_connection),
        idle_timeout=duration(pool.http.idle_timeout or pool.tcp.idle_timeout),
        max_connection_duration=duration(pool.tcp.max_connection_duration),
    )


def endpoint_health(
    outlier: OutlierDetection | None, balancer: LoadBalancer, *, resolved: bool = True
) -> Json:
    """Returns a cluster's fields for outlier detection, and for the choice among endpoints.

    Without a share of healthy endpoints there is no panic, in which Envoy would use others too.
    A cluster whose names are not `resolved` before requests has none of this unless asked for.
    """
    if outlier is None and not resolved:
        return {}
    panic = {"value": (outlier.min_health_percent or 0) if outlier else 0}
    places = locality.settings(balancer, ejects=outlier is not None) if resolved else {}
    return given(
        outlier_detection=_outlier_detection(outlier) if outlier else None,
        common_lb_config={"healthy_panic_threshold": panic, **places},
    )


def _outlier_detection(outlier: OutlierDetection) -> Json:
    """Returns a cluster's outlier detection, with Envoy's defaults for what is unset.

    These are 5 errors in a row, 10 s, 30 s and at most 10 %.
    """
    result: Json = {
        "enforcing_success_rate": 0,
        **_errors("consecutive_5xx", outlier.consecutive_5xx_errors),
        **_errors("consecutive_gateway_failure", outlier.consecutive_gateway_errors),
        **given(
            interval=duration(outlier.interval),
            base_ejection_time=duration(outlier.base_ejection_time),
            max_ejection_percent=outlier.max_ejection_percent or None,
        ),
    }
    if outlier.split_external_local_origin_errors:
        own = outlier.consecutive_local_origin_failures
        result |= {
            "split_external_local_origin_errors": True,
            **_errors("consecutive_local_origin_failure", own),
            "enforcing_local_origin_success_rate": 0,
        }
    return result


def _errors(field: str, number: int | None) -> Json:
    """Returns the errors in a row that eject an endpoint; 0 switches this off."""
    if number is None:
        return {}
    return {f"enforcing_{field}": 100 if number else 0, field: number}


def load_balancing(balancer: LoadBalancer) -> Json:
    """Returns a cluster's `lb_policy` and its options; Istio's default is LEAST_REQUEST."""
    if balancer.consistent_hash is not None:
        return _hashing(balancer.consistent_hash)
    policy = balancer.simple or "UNSPECIFIED"
    if policy in ("UNSPECIFIED", "LEAST_CONN"):
        policy = "LEAST_REQUEST"
    result: Json = {"lb_policy": policy}
    slow_start = _slow_start(balancer)
    if slow_start and policy in ("LEAST_REQUEST", "ROUND_ROBIN"):
        result[f"{policy.lower()}_lb_config"] = {"slow_start_config": slow_start}
    return result


def _slow_start(balancer: LoadBalancer) -> Json:
    warmup = balancer.warmup
    if warmup is None:
        return given(slow_start_window=duration(balancer.warmup_duration_secs))
    aggression = 1 if warmup.aggression is None else warmup.aggression
    percent = 10 if warmup.minimum_percent is None else warmup.minimum_percent
    return {
        "slow_start_window": duration(warmup.duration),
        "aggression": {"default_value": aggression, "runtime_key": "aggression"},
        "min_weight_percent": {"value": percent},
    }


def _hashing(hashing: ConsistentHash) -> Json:
    if hashing.maglev is not None:
        result: Json = {"lb_policy": "MAGLEV"}
        if hashing.maglev.table_size:
            result["maglev_lb_config"] = {"table_size": hashing.maglev.table_size}
        return result
    size = (hashing.ring_hash and hashing.ring_hash.minimum_ring_size) or hashing.minimum_ring_size
    return {"lb_policy": "RING_HASH", "ring_hash_lb_config": {"minimum_ring_size": size or 1024}}


def hash_policy(rule: Rule | None, port: int | None, subset: str | None = None) -> list[Json]:
    """Returns the hash of a route to a destination; `port` where it names one.

    The most specific consistent hash counts; other load balancers leave a less specific one.
    """
    policies = [one.spec.traffic_policy for one in rule.resources] if rule else []
    policies = [policy for policy in policies if policy is not None][:1]
    chosen = rule.subset(subset) if rule and subset else None
    if chosen is not None and chosen.traffic_policy is not None:
        policies.append(chosen.traffic_policy)
    hashing: ConsistentHash | None = None
    for policy in policies:
        ports = [own for own in policy.port_level_settings if own.port and own.port.number == port]
        for balancer in (policy.load_balancer, *(own.load_balancer for own in ports[:1])):
            hashing = (balancer.consistent_hash if balancer else None) or hashing
    if hashing is None:
        return []
    if hashing.http_header_name is not None:
        return [{"header": {"header_name": hashing.http_header_name}}]
    if cookie := hashing.http_cookie:
        attributes = [
            {"name": item.name, "value": item.value or ""} for item in cookie.attributes or ()
        ]
        spec = given(
            name=cookie.name,
            ttl=duration(cookie.ttl),
            path=cookie.path or None,
            attributes=attributes or None,
        )
        return [{"cookie": spec}]
    if hashing.http_query_parameter_name is not None:
        return [{"query_parameter": {"name": hashing.http_query_parameter_name}}]
    if hashing.use_source_ip:
        return [{"connection_properties": {"source_ip": True}}]
    return []


def originated_tls(settings: ClientTLSSettings, *, http2: bool) -> Json:
    """Returns the transport socket of TLS towards a server outside the mesh (SIMPLE, MUTUAL)."""
    secret = settings.credential_name and f"{SECRETS}{settings.credential_name}"
    common: Json = {
        "tls_params": {  # Envoy's own maximum for clients is TLS 1.2.
            "tls_minimum_protocol_version": "TLSv1_2",
            "tls_maximum_protocol_version": "TLSv1_3",
        }
    }
    if settings.mode == "MUTUAL":
        pair = secret or f"file-cert:{settings.client_certificate}~{settings.private_key}"
        common["tls_certificate_sds_secret_configs"] = [served_secret(pair)]
    if settings.insecure_skip_verify:
        common |= {} if secret else {"validation_context": {}}
    else:
        names = [{"exact": name} for name in settings.subject_alt_names]
        roots = f"file-root:{settings.ca_certificates or 'system'}"
        crl = {"filename": settings.ca_crl} if settings.ca_crl else None
        common["combined_validation_context"] = {
            "default_validation_context": given(match_subject_alt_names=names or None, crl=crl),
            "validation_context_sds_secret_config": served_secret(
                f"{secret}{AUTHORITY}" if secret else roots
            ),
        }
    if http2:
        common["alpn_protocols"] = ["h2"]
    return extension(
        "envoy.transport_sockets.tls",
        "extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        **given(common_tls_context=common, sni=settings.sni or None),
    )


def with_proxy_protocol(settings: ProxyProtocol | None, transport: Json) -> Json:
    """Returns a cluster's transport with the PROXY protocol before it, where the rule asks for it.

    It tells the server the address of the client's connection.
    """
    if settings is None:
        return transport
    config = given(version=settings.version)

    def around(socket: Json) -> Json:
        return extension(
            "envoy.transport_sockets.upstream_proxy_protocol",
            "extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport",
            config=config,
            transport_socket=socket,
        )

    matches = [
        {**match, "transport_socket": around(match["transport_socket"])}
        for match in transport.get("transport_socket_matches", ())
    ]
    if matches:
        return {"transport_socket_matches": matches}
    plain = {**RAW_BUFFER, "name": "raw_buffer"}
    return {"transport_socket": around(transport.get("transport_socket", plain))}


def tunnel(rule: Rule | None, subset: str) -> tuple[Tunnel | None, Origin]:
    """Returns the tunnel of a rule or, for a subset, of the subset alone, and its origin."""
    found: list[tuple[Resource, TrafficPolicy | None, Path]] = []
    if rule is not None and subset:
        found = [
            (resource, own.traffic_policy, ("subsets", index))
            for own, resource, index in rule.subsets
            if own.name == subset
        ]
    elif rule is not None:
        found = [(one, one.spec.traffic_policy, ()) for one in rule.resources]
    for resource, policy, path in found:
        if policy is not None:
            place = ("spec", *path, "trafficPolicy", "tunnel")
            return policy.tunnel, Origin(resource.source, place, resource)
    return None, Origin()


def tunneling(settings: Tunnel | None) -> Json | None:
    """Returns the field of a TCP proxy that leads its connections through an HTTP proxy."""
    if settings is None:
        return None
    host = f"[{settings.target_host}]" if ":" in settings.target_host else settings.target_host
    post = True if settings.protocol == "POST" else None
    return {"hostname": f"{host}:{settings.target_port}", **given(use_post=post)}
