"""DestinationRule: types of the API of Istio.

Written by `python -m scripts.istio_schema` from lab/resources/istio.json.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lab.kinds.types import LabelSelector, PortSelector
from lab.resources.resource import Model
from lab.resources.values import Duration, Int32, PositiveDuration, Unsigned


class ConnectionKeepalive(Model):
    interval: PositiveDuration | None = None
    timeout: PositiveDuration | None = None


class HTTPSettings(Model):
    h2_upgrade_policy: Literal["DEFAULT", "DO_NOT_UPGRADE", "UPGRADE"] | None = None
    http1_max_pending_requests: Int32 = 0
    http2_keep_alive: ConnectionKeepalive | None = None
    http2_max_requests: Int32 = 0
    idle_timeout: PositiveDuration | None = None
    max_concurrent_streams: Int32 = 0
    max_requests_per_connection: Int32 = 0
    max_retries: Int32 = 0
    use_client_protocol: bool = False


class TcpKeepalive(Model):
    interval: PositiveDuration | None = None
    probes: Unsigned | None = None
    time: PositiveDuration | None = None


class TCPSettings(Model):
    connect_timeout: PositiveDuration | None = None
    idle_timeout: Duration | None = None
    max_connection_duration: PositiveDuration | None = None
    max_connections: Int32 = 0
    tcp_keepalive: TcpKeepalive | None = None


class ConnectionPoolSettings(Model):
    http: HTTPSettings = HTTPSettings()
    tcp: TCPSettings = TCPSettings()


class CookieAttribute(Model):
    name: str
    value: str | None = None


class HTTPCookie(Model):
    attributes: list[CookieAttribute] = Field(default_factory=list)
    name: str
    path: str | None = None
    ttl: Duration | None = None


class Maglev(Model):
    table_size: Annotated[int, Field(ge=0)] = 0


class RingHash(Model):
    minimum_ring_size: Annotated[int, Field(ge=0)] = 0


class ConsistentHash(Model):
    one_of = (
        ("httpHeaderName", "httpCookie", "useSourceIp", "httpQueryParameterName"),
        ("ringHash", "maglev"),
    )
    http_cookie: HTTPCookie | None = None
    http_header_name: str | None = None
    http_query_parameter_name: str | None = None
    maglev: Maglev | None = None
    minimum_ring_size: Annotated[int, Field(ge=0)] = 0
    ring_hash: RingHash | None = None
    use_source_ip: bool | None = None


class Distribute(Model):
    from_: str = Field(default="", alias="from")
    to: dict[str, Unsigned] = Field(default_factory=dict)


class Failover(Model):
    from_: str = Field(default="", alias="from")
    to: str = ""


class LocalityLbSetting(Model):
    distribute: list[Distribute] = Field(default_factory=list)
    enabled: bool | None = None
    failover: list[Failover] = Field(default_factory=list)
    failover_priority: list[str] = Field(default_factory=list)


class Warmup(Model):
    aggression: Annotated[float, Field(ge=0)] | None = None
    duration: PositiveDuration
    minimum_percent: Annotated[float, Field(ge=0, le=100)] | None = None


class ZoneAwareLbSetting(Model):
    enabled: bool | None = None
    failover: list[Failover] = Field(default_factory=list)
    failover_priority: list[str] = Field(default_factory=list)
    min_cluster_size: Annotated[int, Field(ge=1, le=4294967295)] | None = None


class LoadBalancer(Model):
    one_of = (("simple", "consistentHash"),)
    consistent_hash: ConsistentHash | None = None
    locality_lb_setting: LocalityLbSetting | None = None
    simple: (
        Literal[
            "UNSPECIFIED", "LEAST_CONN", "RANDOM", "PASSTHROUGH", "ROUND_ROBIN", "LEAST_REQUEST"
        ]
        | None
    ) = None
    warmup: Warmup | None = None
    warmup_duration_secs: PositiveDuration | None = None
    zone_aware_lb_setting: ZoneAwareLbSetting | None = None


class OutlierDetection(Model):
    base_ejection_time: PositiveDuration | None = None
    consecutive_5xx_errors: Unsigned | None = Field(default=None, alias="consecutive5xxErrors")
    consecutive_errors: Int32 | None = None
    consecutive_gateway_errors: Unsigned | None = None
    consecutive_local_origin_failures: Unsigned | None = None
    interval: PositiveDuration | None = None
    max_ejection_percent: Int32 | None = None
    min_health_percent: Int32 | None = None
    outlier_detection_http_error_codes: list[Annotated[int, Field(ge=100, le=599)]] | None = None
    split_external_local_origin_errors: bool = False


class ClientTLSSettings(Model):
    ca_certificates: str | None = None
    ca_crl: str | None = None
    client_certificate: str | None = None
    credential_name: str | None = None
    insecure_skip_verify: bool | None = None
    mode: Literal["DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"] = "DISABLE"
    private_key: str | None = None
    sni: str | None = None
    subject_alt_names: list[str] = Field(default_factory=list)


class PortTrafficPolicy(Model):
    connection_pool: ConnectionPoolSettings | None = None
    load_balancer: LoadBalancer | None = None
    outlier_detection: OutlierDetection | None = None
    port: PortSelector | None = None
    tls: ClientTLSSettings | None = None


class ProxyProtocol(Model):
    version: Literal["V1", "V2"] | None = None


class RetryBudget(Model):
    budget_interval: Duration | None = None
    min_retry_concurrency: Unsigned | None = None
    percent: Annotated[float, Field(ge=0, le=100)] | None = None


class Tunnel(Model):
    protocol: str | None = None
    target_host: str
    target_port: Unsigned


class TrafficPolicy(Model):
    connection_pool: ConnectionPoolSettings | None = None
    load_balancer: LoadBalancer | None = None
    outlier_detection: OutlierDetection | None = None
    port_level_settings: list[PortTrafficPolicy] = Field(default_factory=list, max_length=4096)
    proxy_protocol: ProxyProtocol | None = None
    retry_budget: RetryBudget | None = None
    tls: ClientTLSSettings | None = None
    tunnel: Tunnel | None = None


class Subset(Model):
    labels: dict[str, str] = Field(default_factory=dict)
    name: str
    traffic_policy: TrafficPolicy | None = None


class DestinationRuleSpec(Model):
    export_to: list[str] | None = None
    host: str
    subsets: list[Subset] = Field(default_factory=list)
    traffic_policy: TrafficPolicy | None = None
    workload_selector: LabelSelector | None = None


class DestinationRule(Model):
    spec: DestinationRuleSpec
