"""DestinationRule: the typed body and what istiod's validation says about it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from lab.resources.istio import (
    MILLISECOND,
    NETWORKING_VERSIONS,
    Duration,
    Integer,
    IstioModel,
    Number,
    Port,
    Text,
    export_to_problems,
    field_problems,
    host_problem,
    ignored,
    is_dns_label,
    port_problem,
    refused,
)
from lab.resources.resource import Kind, Path, Problem, Resource

Unsigned = Annotated[int, Field(strict=True, ge=0, le=4294967295)]


class TcpKeepalive(IstioModel):
    probes: Unsigned | None = None
    time: Duration | None = None
    interval: Duration | None = None


class TCPSettings(IstioModel):
    max_connections: Integer = 0
    connect_timeout: Duration | None = None
    idle_timeout: Duration | None = None
    max_connection_duration: Duration | None = None
    tcp_keepalive: TcpKeepalive | None = None


class HTTPSettings(IstioModel):
    http1_max_pending_requests: Integer = 0
    http2_max_requests: Integer = 0
    max_requests_per_connection: Integer = 0
    max_retries: Integer = 0
    idle_timeout: Duration | None = None
    h2_upgrade_policy: Literal["DEFAULT", "DO_NOT_UPGRADE", "UPGRADE"] | None = None
    use_client_protocol: bool = False
    max_concurrent_streams: Integer = 0


class ConnectionPoolSettings(IstioModel):
    tcp: TCPSettings | None = None
    http: HTTPSettings | None = None


class OutlierDetection(IstioModel):
    consecutive_errors: Integer | None = ignored(
        "outlier detection consecutive errors is deprecated and ignored; use "
        "consecutiveGatewayErrors or consecutive5xxErrors instead (Envoy's default, 5 in a row, "
        "applies)"
    )
    consecutive_5xx_errors: Unsigned | None = Field(default=None, alias="consecutive5xxErrors")
    consecutive_gateway_errors: Unsigned | None = None
    interval: Duration | None = None
    base_ejection_time: Duration | None = None
    max_ejection_percent: Integer | None = None
    min_health_percent: Integer | None = None
    split_external_local_origin_errors: bool = False
    consecutive_local_origin_failures: Unsigned | None = None


class CookieAttribute(IstioModel):
    name: Text
    value: Text | None = None


class HTTPCookie(IstioModel):
    name: Text
    path: Text | None = None
    ttl: Duration | None = None
    attributes: list[CookieAttribute] = Field(default_factory=list)


class RingHash(IstioModel):
    minimum_ring_size: Unsigned = 0


class Maglev(IstioModel):
    table_size: Unsigned = 0


class ConsistentHash(IstioModel):
    http_header_name: Text | None = None
    http_cookie: HTTPCookie | None = None
    use_source_ip: bool | None = None
    http_query_parameter_name: Text | None = None
    ring_hash: RingHash | None = None
    maglev: Maglev | None = None
    minimum_ring_size: Unsigned | None = ignored(
        "minimumRingSize is deprecated; use ringHash.minimumRingSize"
    )


class LocalityLbSetting(IstioModel):
    enabled: bool | None = None
    distribute: list[object] | None = refused("the lab is one locality")
    failover: list[object] | None = refused("the lab is one locality")
    failover_priority: list[Text] | None = refused("the lab is one locality")


class Warmup(IstioModel):
    duration: Duration
    minimum_percent: Number | None = None
    aggression: Number | None = None


class LoadBalancer(IstioModel):
    simple: (
        Literal[
            "UNSPECIFIED", "LEAST_CONN", "RANDOM", "PASSTHROUGH", "ROUND_ROBIN", "LEAST_REQUEST"
        ]
        | None
    ) = None
    consistent_hash: ConsistentHash | None = None
    locality_lb_setting: LocalityLbSetting | None = None
    warmup: Warmup | None = None
    warmup_duration_secs: Duration | None = ignored(
        "warmupDurationSecs is deprecated; use warmup.duration"
    )


class ClientTLSSettings(IstioModel):
    mode: Literal["DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"] = "DISABLE"
    client_certificate: Text | None = None
    private_key: Text | None = None
    ca_certificates: Text | None = None
    credential_name: Text | None = refused(
        "Secrets for clients; Istio ignores it on sidecars without a workloadSelector"
    )
    subject_alt_names: list[Text] = Field(default_factory=list)
    sni: Text | None = None
    insecure_skip_verify: bool = False
    ca_crl: Text | None = refused("revocation lists")


class RetryBudget(IstioModel):
    percent: Number | None = None
    min_retry_concurrency: Unsigned | None = None


class PortSelector(IstioModel):
    number: Port


class PortTrafficPolicy(IstioModel):
    port: PortSelector | None = None
    load_balancer: LoadBalancer | None = None
    connection_pool: ConnectionPoolSettings | None = None
    outlier_detection: OutlierDetection | None = None
    tls: ClientTLSSettings | None = None


class TrafficPolicy(IstioModel):
    load_balancer: LoadBalancer | None = None
    connection_pool: ConnectionPoolSettings | None = None
    outlier_detection: OutlierDetection | None = None
    tls: ClientTLSSettings | None = None
    port_level_settings: list[PortTrafficPolicy] = Field(default_factory=list)
    retry_budget: RetryBudget | None = None
    tunnel: dict[str, object] | None = refused("tunnelling through an HTTP proxy")
    proxy_protocol: dict[str, object] | None = refused("the PROXY protocol to upstreams")


class Subset(IstioModel):
    name: Text
    labels: dict[str, str] = Field(default_factory=dict)
    traffic_policy: TrafficPolicy | None = None


class WorkloadSelector(IstioModel):
    match_labels: dict[str, str] = Field(default_factory=dict)


class DestinationRuleSpec(IstioModel):
    host: Text
    traffic_policy: TrafficPolicy | None = None
    subsets: list[Subset] = Field(default_factory=list)
    export_to: list[Text] | None = None
    workload_selector: WorkloadSelector | None = None


class DestinationRule(IstioModel):
    spec: DestinationRuleSpec


def validate(resource: Resource) -> Iterator[Problem]:
    """What istiod's webhook says of a DestinationRule, and what the lab does not translate."""
    spec: DestinationRuleSpec = resource.spec
    path: Path = ("spec",)
    yield from field_problems(spec, path)
    if not spec.host:
        yield Problem((*path, "host"), "host is required")
    elif spec.host != "*" and (problem := host_problem(spec.host)):
        yield Problem((*path, "host"), problem)
    yield from export_to_problems(spec.export_to, (*path, "exportTo"))
    yield from _policy(spec.traffic_policy, (*path, "trafficPolicy"))
    names: set[str] = set()
    for index, subset in enumerate(spec.subsets):
        where = (*path, "subsets", index)
        if not is_dns_label(subset.name):
            yield Problem((*where, "name"), f"subset name is invalid: {subset.name}")
        if subset.name in names:
            yield Problem((*where, "name"), f"duplicate subset names: {subset.name}")
        names.add(subset.name)
        if not subset.labels:
            yield Problem(
                where, f"subset {subset.name} has no labels: it is every endpoint", "warning"
            )
        yield from _policy(subset.traffic_policy, (*where, "trafficPolicy"))


def _policy(policy: TrafficPolicy | None, path: Path) -> Iterator[Problem]:
    if policy is None:
        return
    if policy == TrafficPolicy():
        yield Problem(path, "traffic policy must have at least one field")
    yield from _settings(policy, path)
    budget = policy.retry_budget
    if budget and budget.percent is not None and not 0 <= budget.percent <= 100:
        yield Problem((*path, "retryBudget", "percent"), "percent must be in range 0..100")
    for index, settings in enumerate(policy.port_level_settings):
        where = (*path, "portLevelSettings", index)
        if settings.port is None:
            yield Problem(where, "portLevelSettings must have a port")
        elif problem := port_problem(settings.port.number):
            yield Problem((*where, "port", "number"), problem)
        yield from _settings(settings, where)


def _settings(policy: TrafficPolicy | PortTrafficPolicy, path: Path) -> Iterator[Problem]:
    yield from _connection_pool(policy.connection_pool, (*path, "connectionPool"))
    yield from _outlier_detection(policy.outlier_detection, (*path, "outlierDetection"))
    yield from _load_balancer(policy.load_balancer, (*path, "loadBalancer"))
    yield from _tls(policy.tls, (*path, "tls"))


def _positive(duration: object, path: Path) -> Iterator[Problem]:
    if duration is not None and duration < MILLISECOND:  # type: ignore[operator]
        yield Problem(path, "duration must be greater than 1ms")


def connection_pool_problems(pool: ConnectionPoolSettings | None, path: Path) -> Iterator[Problem]:
    """Shared with Sidecar's inboundConnectionPool."""
    yield from _connection_pool(pool, path)


def _connection_pool(pool: ConnectionPoolSettings | None, path: Path) -> Iterator[Problem]:
    if pool is None:
        return
    if pool.tcp is None and pool.http is None:
        yield Problem(path, "connection pool must have at least one field")
    if http := pool.http:
        where: Path = (*path, "http")
        for field, value in (
            ("http1MaxPendingRequests", http.http1_max_pending_requests),
            ("http2MaxRequests", http.http2_max_requests),
            ("maxRequestsPerConnection", http.max_requests_per_connection),
            ("maxRetries", http.max_retries),
            ("maxConcurrentStreams", http.max_concurrent_streams),
        ):
            if value < 0:
                yield Problem((*where, field), f"{field} must be non-negative")
        yield from _positive(http.idle_timeout, (*where, "idleTimeout"))
        if http.h2_upgrade_policy == "UPGRADE" and http.use_client_protocol:
            yield Problem(
                where, "use client protocol must not be true when H2UpgradePolicy is UPGRADE"
            )
    if tcp := pool.tcp:
        where = (*path, "tcp")
        if tcp.max_connections < 0:
            yield Problem((*where, "maxConnections"), "max connections must be non-negative")
        for field, duration in (
            ("connectTimeout", tcp.connect_timeout),
            ("maxConnectionDuration", tcp.max_connection_duration),
        ):
            yield from _positive(duration, (*where, field))
        if keepalive := tcp.tcp_keepalive:
            yield from _positive(keepalive.time, (*where, "tcpKeepalive", "time"))
            yield from _positive(keepalive.interval, (*where, "tcpKeepalive", "interval"))


def _outlier_detection(outlier: OutlierDetection | None, path: Path) -> Iterator[Problem]:
    if outlier is None:
        return
    yield from _positive(outlier.interval, (*path, "interval"))
    yield from _positive(outlier.base_ejection_time, (*path, "baseEjectionTime"))
    for field, value in (
        ("maxEjectionPercent", outlier.max_ejection_percent),
        ("minHealthPercent", outlier.min_health_percent),
    ):
        if value is not None and not 0 <= value <= 100:
            yield Problem((*path, field), f"percentage {value} is not in range 0..100")
    if outlier.consecutive_local_origin_failures and not outlier.split_external_local_origin_errors:
        yield Problem(
            path,
            "outlier detection consecutive local origin failures is specified, "
            "but split external local origin errors is set to false",
        )


def _load_balancer(balancer: LoadBalancer | None, path: Path) -> Iterator[Problem]:
    if balancer is None:
        return
    if balancer.simple and balancer.consistent_hash:
        yield Problem(path, "only one of simple and consistentHash may be set")
    if balancer.simple == "PASSTHROUGH":
        yield Problem(
            (*path, "simple"),
            "not supported by the lab: PASSTHROUGH needs the original destination of a redirected "
            "connection",
        )
    if balancer.simple == "LEAST_CONN":
        yield Problem(
            (*path, "simple"), "LEAST_CONN is deprecated; use LEAST_REQUEST instead", "warning"
        )
    if balancer.locality_lb_setting and balancer.locality_lb_setting.enabled is not False:
        yield Problem(
            (*path, "localityLbSetting"),
            "not supported by the lab: it is one locality (enabled: false is accepted)",
        )
    if balancer.warmup or balancer.warmup_duration_secs:
        duration = balancer.warmup.duration if balancer.warmup else balancer.warmup_duration_secs
        yield from _positive(duration, (*path, "warmup", "duration"))
        if balancer.simple not in (None, "UNSPECIFIED", "ROUND_ROBIN", "LEAST_REQUEST"):
            yield Problem(path, "warmup is for ROUND_ROBIN and LEAST_REQUEST")
        if balancer.consistent_hash:
            yield Problem(path, "warmup is not for consistentHash")
        warmup = balancer.warmup
        if warmup and warmup.minimum_percent is not None and not 0 <= warmup.minimum_percent <= 100:
            yield Problem((*path, "warmup", "minimumPercent"), "must be in range 0..100")
        if warmup and warmup.aggression is not None and warmup.aggression < 1:
            yield Problem((*path, "warmup", "aggression"), "should be greater than or equal to 1")
    if hashing := balancer.consistent_hash:
        where: Path = (*path, "consistentHash")
        keys = [
            hashing.http_header_name,
            hashing.http_cookie,
            hashing.use_source_ip,
            hashing.http_query_parameter_name,
        ]
        if sum(key is not None for key in keys) != 1:
            yield Problem(where, "consistentHash needs exactly one hash key")
        if hashing.http_cookie and not hashing.http_cookie.name:
            yield Problem((*where, "httpCookie", "name"), "name required for HttpCookie")
        if hashing.ring_hash and hashing.maglev:
            yield Problem(where, "only one of ringHash and maglev may be set")
        if hashing.maglev and (size := hashing.maglev.table_size):
            if not _is_prime(size):
                yield Problem((*where, "maglev", "tableSize"), f"{size} is no prime number")
            elif size >= 5000011:
                yield Problem((*where, "maglev", "tableSize"), "must be less than 5000011")
        ring = hashing.ring_hash.minimum_ring_size if hashing.ring_hash else 0
        if max(ring, hashing.minimum_ring_size or 0) > 8 * 1024 * 1024:
            yield Problem((*where, "ringHash"), "Envoy takes at most 8388608")


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))


def _tls(tls: ClientTLSSettings | None, path: Path) -> Iterator[Problem]:
    if tls is None:
        return
    if (
        tls.insecure_skip_verify
        and tls.mode == "SIMPLE"
        and (tls.ca_certificates or tls.subject_alt_names)
    ):
        yield Problem(
            path, "cannot specify CaCertificates or SubjectAltNames with InsecureSkipVerify"
        )
    if tls.mode == "MUTUAL":
        for field, value in (
            ("clientCertificate", tls.client_certificate),
            ("privateKey", tls.private_key),
        ):
            if not value:
                yield Problem(path, f"{field} required for mutual tls")
    if tls.mode == "ISTIO_MUTUAL":
        for field, value in (
            ("clientCertificate", tls.client_certificate),
            ("privateKey", tls.private_key),
            ("caCertificates", tls.ca_certificates),
        ):
            if value:
                yield Problem((*path, field), f"{field} must be empty for ISTIO_MUTUAL mode")
    if tls.mode in ("DISABLE", "SIMPLE"):
        for field, value in (
            ("clientCertificate", tls.client_certificate),
            ("privateKey", tls.private_key),
        ):
            if value:
                yield Problem(
                    (*path, field), f"{field} has no effect with mode {tls.mode}", "warning"
                )


KINDS: tuple[Kind, ...] = (
    Kind(
        group="networking.istio.io",
        kind="DestinationRule",
        plural="destinationrules",
        versions=NETWORKING_VERSIONS,
        body=DestinationRule,
        short_names=("dr",),
        validate=validate,
    ),
)
