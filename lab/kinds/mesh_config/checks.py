"""MeshConfig: the settings of a whole mesh, with Istio's defaults.

It is no object of its own; `istioctl install` takes it as `spec.meshConfig` of an IstioOperator.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from http import HTTPStatus
from typing import Annotated, Any, Literal

from pydantic import Field

from lab.kinds.destination_rule.checks import CONNECTION_POOL, LOCALITY, OUTLIER_DETECTION
from lab.kinds.destination_rule.types import (
    ConnectionPoolSettings,
    LocalityLbSetting,
    OutlierDetection,
    TcpKeepalive,
    ZoneAwareLbSetting,
)
from lab.kinds.virtual_service.checks import retry_on_problems
from lab.kinds.virtual_service.types import HTTPRetry
from lab.resources.checks import newer
from lab.resources.fields import ignored, refused
from lab.resources.resource import Check, Model, Problem
from lab.resources.values import Duration, duplicates, host_problem, port_problem, within

OutboundMode = Literal["REGISTRY_ONLY", "ALLOW_ANY", "ALLOW_ANY_DYNAMIC_DNS"]


class OutboundTrafficPolicy(Model):
    mode: OutboundMode = "ALLOW_ANY"
    tls: dict[str, Any] | None = refused("TLS towards unknown hosts; name them in a ServiceEntry")


class DefaultTrafficPolicy(Model):
    connection_pool: ConnectionPoolSettings | None = None
    outlier_detection: OutlierDetection | None = None


class HttpHeader(Model):
    name: str
    value: str


class ZipkinProvider(Model):
    service: str
    port: int
    max_tag_length: int | None = None
    enable_64bit_trace_id: bool = Field(default=False, alias="enable64bitTraceId")
    path: str = "/api/v2/spans"
    trace_context_option: Literal["USE_B3", "USE_B3_WITH_W3C_PROPAGATION"] = "USE_B3"
    timeout: Duration = timedelta(seconds=5)
    headers: list[HttpHeader] = Field(default_factory=list)


class OpenTelemetryProvider(Model):
    service: str
    port: int
    max_tag_length: int | None = None
    http: dict[str, Any] | None = refused("OTLP over HTTP; OTLP over gRPC is supported")
    grpc: dict[str, Any] | None = refused("options of the gRPC exporter")
    resource_detectors: dict[str, Any] | None = refused("resource detectors")
    dynatrace_sampler: dict[str, Any] | None = refused("the Dynatrace sampler")


class LogFormat(Model):
    text: str | None = None
    labels: dict[str, Any] | None = None


class FileAccessLogProvider(Model):
    path: str = "/dev/stdout"
    log_format: LogFormat | None = None
    omit_empty_values: bool = False


_OTHER = "the lab knows zipkin, opentelemetry, envoyFileAccessLog, envoyExtAuthzHttp and -Grpc"
_LATER = "Istio 1.31 accepts this and makes nothing of it"


class AuthorizerBody(Model):
    max_request_bytes: Annotated[int, Field(ge=0)] = 0
    allow_partial_message: bool = False
    pack_as_bytes: bool = False


class GrpcAuthorizer(Model):
    service: str
    port: int
    timeout: Duration | None = None
    fail_open: bool = False
    clear_route_cache: bool | None = ignored(_LATER)
    status_on_error: str = ""
    include_request_body_in_check: AuthorizerBody | None = None


class HttpAuthorizer(GrpcAuthorizer):
    path_prefix: str = ""
    include_headers_in_check: list[str] = Field(default_factory=list)
    include_request_headers_in_check: list[str] = Field(default_factory=list)
    include_additional_headers_in_check: dict[str, str] = Field(default_factory=dict)
    headers_to_upstream_on_allow: list[str] = Field(default_factory=list)
    headers_to_downstream_on_deny: list[str] = Field(default_factory=list)
    headers_to_downstream_on_allow: list[str] = Field(default_factory=list)


class ExtensionProvider(Model):
    name: str
    zipkin: ZipkinProvider | None = None
    opentelemetry: OpenTelemetryProvider | None = None
    envoy_file_access_log: FileAccessLogProvider | None = None
    prometheus: dict[str, Any] | None = ignored(
        "the lab makes Istio's metrics without the filter istio.stats, which would take this"
    )
    envoy_ext_authz_http: HttpAuthorizer | None = None
    envoy_ext_authz_grpc: GrpcAuthorizer | None = None
    lightstep: dict[str, Any] | None = refused(_OTHER)
    datadog: dict[str, Any] | None = refused(_OTHER)
    skywalking: dict[str, Any] | None = refused(_OTHER)
    stackdriver: dict[str, Any] | None = refused(_OTHER)
    opencensus: dict[str, Any] | None = refused(_OTHER)
    envoy_http_als: dict[str, Any] | None = refused(_OTHER)
    envoy_tcp_als: dict[str, Any] | None = refused(_OTHER)
    envoy_otel_als: dict[str, Any] | None = refused(_OTHER)
    sds: dict[str, Any] | None = refused(_OTHER)


class DefaultProviders(Model):
    tracing: list[str] = Field(default_factory=list)
    access_logging: list[str] = Field(default_factory=list)
    metrics: list[str] | None = ignored(
        "the lab makes Istio's metrics without the filter istio.stats, which would take this"
    )


_TRACER = "a tracer in the bootstrap; name a provider in extensionProviders and in a Telemetry"


class ProxyTracing(Model):
    sampling: float = 1.0
    max_path_tag_length: int | None = None
    zipkin: dict[str, Any] | None = refused(_TRACER)
    custom_tags: dict[str, Any] | None = refused("tags for all proxies; put them into a Telemetry")
    enable_istio_tags: bool | None = refused("put enableIstioTags into a Telemetry")
    lightstep: dict[str, Any] | None = refused(_TRACER)
    datadog: dict[str, Any] | None = refused(_TRACER)
    stackdriver: dict[str, Any] | None = refused(_TRACER)
    open_census_agent: dict[str, Any] | None = refused(_TRACER)
    tls_settings: dict[str, Any] | None = refused(_TRACER)


_ClientCertificate = (
    Literal["SANITIZE", "FORWARD_ONLY", "APPEND_FORWARD", "SANITIZE_SET", "ALWAYS_FORWARD_ONLY"]
    | None
)


class GatewayTopology(Model):
    num_trusted_proxies: Annotated[int, Field(ge=0)] = 0
    forward_client_cert_details: _ClientCertificate = None
    proxy_protocol: dict[str, Any] | None = refused("the PROXY protocol from a load balancer")


_NAMED = "other names in spans than by default"
_SINK = "statistics sent elsewhere; scrape them from :15090"
_AGENT = "the pilot-agent's business; the lab has Envoy alone"
_VARIABLE = "no effect in the lab: there is no agent; customTags.environment of Telemetry reads it"


HTTP10 = "ISTIO_META_HTTP10"
IDLE_TIMEOUT = "ISTIO_META_IDLE_TIMEOUT"
_Window = Annotated[int, Field(ge=65535)]


class ConnectionSettings(Model):
    profile: Literal["SIDECAR", "EDGE"] = "SIDECAR"
    listener_per_connection_buffer_limit_bytes: Annotated[int, Field(ge=0)] | None = None
    http_idle_timeout: Duration | None = None
    http_max_connection_duration: Duration | None = None
    http_drain_timeout: Duration | None = None
    http_request_timeout: Duration | None = None
    http_request_headers_timeout: Duration | None = None
    http_stream_idle_timeout: Duration | None = None
    http_max_stream_duration: Duration | None = None
    http_max_concurrent_streams: Annotated[int, Field(ge=1)] | None = None
    http2_initial_stream_window_size: _Window | None = None
    http2_initial_connection_window_size: _Window | None = None
    http_headers_with_underscores_action: (
        Literal[
            "HEADERS_WITH_UNDERSCORES_ALLOW",
            "HEADERS_WITH_UNDERSCORES_REJECT_REQUEST",
            "HEADERS_WITH_UNDERSCORES_DROP_HEADER",
        ]
        | None
    ) = None
    http_merge_slashes: bool | None = None
    http_path_with_escaped_slashes_action: (
        Literal["KEEP_UNCHANGED", "REJECT_REQUEST", "UNESCAPE_AND_REDIRECT", "UNESCAPE_AND_FORWARD"]
        | None
    ) = None
    cluster_per_connection_buffer_limit_bytes: int | None = ignored(_LATER)
    listener_connection_limit: int | None = ignored(_LATER)
    global_downstream_connection_limit: int | None = ignored(_LATER)


class DisabledHeader(Model):
    disabled: bool | None = None


class ServerHeader(Model):
    disabled: bool | None = None
    value: str = ""


class EnabledHeader(Model):
    enabled: bool | None = None


class ClientCertificateDetails(Model):
    subject: bool | None = None
    cert: bool | None = None
    chain: bool | None = None
    dns: bool | None = None
    uri: bool | None = None


class ProxyHeaders(Model):
    forwarded_client_cert: _ClientCertificate = None
    set_current_client_cert_details: ClientCertificateDetails = ClientCertificateDetails()
    request_id: DisabledHeader = DisabledHeader()
    server: ServerHeader = ServerHeader()
    attempt_count: DisabledHeader = DisabledHeader()
    envoy_debug_headers: DisabledHeader = DisabledHeader()
    metadata_exchange_headers: dict[str, Any] | None = ignored(
        "the lab's Envoy has no filter that exchanges metadata"
    )
    preserve_http1_header_case: bool | None = refused(
        "capitals in names of headers; to HTTP they are the same", alias="preserveHttp1HeaderCase"
    )
    x_forwarded_host: dict[str, Any] | None = refused(
        "the host before a rewrite; set a header in the VirtualService"
    )
    x_forwarded_port: EnabledHeader = EnabledHeader()


ONE_THREAD = "an Envoy of the lab has one worker thread, so that a limit of one connection is one"


class ProxyConfig(Model):
    gateway_topology: GatewayTopology = GatewayTopology()
    tracing: ProxyTracing = ProxyTracing()
    hold_application_until_proxy_starts: bool | None = ignored(
        "in the lab an application always starts after its proxy"
    )
    connection_settings: ConnectionSettings = ConnectionSettings()
    proxy_stats_matcher: dict[str, Any] | None = ignored(
        "in the lab Envoy keeps all its statistics"
    )
    concurrency: int | None = ignored(ONE_THREAD)
    proxy_headers: ProxyHeaders = ProxyHeaders()
    ca_certificates_pem: list[str] | None = refused("another authority than the lab's own")
    private_key_provider: dict[str, Any] | None = refused("keys outside Envoy")
    interception_mode: str | None = refused("there are no iptables in the lab to choose from")
    runtime_values: dict[str, str] | None = refused("flags of Envoy's runtime")
    proxy_metadata: dict[str, str] = Field(default_factory=dict)
    drain_duration: str | None = ignored(_AGENT)
    termination_drain_duration: str | None = ignored(_AGENT)
    readiness_probe: dict[str, Any] | None = ignored(_AGENT)
    status_port: int | None = ignored(_AGENT)
    image: dict[str, Any] | None = ignored("the lab pulls no images")
    extra_stat_tags: list[str] | None = ignored("in the lab Envoy keeps all its statistics")
    stats_compression: bool | None = ignored("statistics are not compressed")
    config_path: str | None = ignored(_AGENT)
    binary_path: str | None = ignored(_AGENT)
    discovery_address: str | None = ignored(_AGENT)
    discovery_refresh_delay: str | None = ignored(_AGENT)
    control_plane_auth_policy: str | None = ignored(_AGENT)
    availability_zone: str | None = ignored("the lab is one locality")
    stat_name_length: int | None = ignored("Envoy has no such limit any more")
    sds: dict[str, Any] | None = ignored("certificates always come by SDS")
    service_cluster: str | None = refused(_NAMED)
    tracing_service_name: str | None = refused(_NAMED)
    mesh_id: str | None = refused(_NAMED)
    proxy_admin_port: int | None = refused("Envoy's own port is 15000")
    custom_config_file: str | None = refused("another bootstrap than Istio's")
    proxy_bootstrap_template_path: str | None = refused("another bootstrap than Istio's")
    zipkin_address: str | None = refused(_TRACER)
    statsd_udp_address: str | None = refused(_SINK)
    envoy_metrics_service_address: str | None = refused(_SINK)
    envoy_metrics_service: dict[str, Any] | None = refused(_SINK)
    envoy_access_log_service: dict[str, Any] | None = refused("access logs over gRPC")
    file_flush_interval: str | None = ignored("access logs are written at once")
    file_flush_min_size_kb: int | None = ignored(
        "access logs are written at once", alias="fileFlushMinSizeKb"
    )


class PathNormalization(Model):
    normalization: Literal[
        "DEFAULT", "NONE", "BASE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES"
    ] = "DEFAULT"


_PORTS = "other ports than Istio's default: 15001, 15006"
_INGRESS = "the lab has no Ingress"


class MeshConfig(Model):
    """Every field the lab understands; one that is missing has Istio's default."""

    access_log_file: str = ""
    access_log_format: str = ""
    access_log_encoding: Literal["TEXT", "JSON"] = "TEXT"
    enable_tracing: bool = True
    enable_auto_mtls: bool = True
    outbound_traffic_policy: OutboundTrafficPolicy = OutboundTrafficPolicy()
    connect_timeout: Duration = timedelta(seconds=10)
    protocol_detection_timeout: Duration = timedelta()
    dns_refresh_rate: Duration = timedelta(seconds=60)
    extension_providers: list[ExtensionProvider] = Field(default_factory=list)
    default_providers: DefaultProviders = DefaultProviders()
    default_config: ProxyConfig = ProxyConfig()
    trust_domain: str = "cluster.local"
    root_namespace: str = "istio-system"
    trust_domain_aliases: list[str] = Field(default_factory=list)
    default_http_retry_policy: HTTPRetry | None = None
    default_traffic_policy: DefaultTrafficPolicy | None = None
    service_entry_visibility: dict[str, Any] | None = refused(
        "rules for all ServiceEntries; say exportTo in each"
    )
    inbound_traffic_policy: dict[str, Any] | None = refused(
        "ports that no Service names are always served, as by default"
    )
    path_normalization: PathNormalization = PathNormalization()
    h2_upgrade_policy: Literal["DO_NOT_UPGRADE", "UPGRADE"] = "DO_NOT_UPGRADE"
    tcp_keepalive: TcpKeepalive | None = None
    default_service_export_to: list[str] = Field(default_factory=list)
    default_virtual_service_export_to: list[str] = Field(default_factory=list)
    default_destination_rule_export_to: list[str] = Field(default_factory=list)
    proxy_http_port: int = 0
    service_settings: list[Any] | None = refused("several clusters; the lab is one")
    locality_lb_setting: LocalityLbSetting | None = None
    zone_aware_lb_setting: ZoneAwareLbSetting | None = None
    mesh_mtls: dict[str, Any] | None = refused(
        "TLS versions other than the default", alias="meshMTLS"
    )
    tls_defaults: dict[str, Any] | None = refused("TLS versions other than the default")
    ca: dict[str, Any] | None = refused("another authority than the lab's own")
    ca_certificates: list[Any] | None = refused("another authority than the lab's own")
    discovery_selectors: list[Any] | None = refused("all namespaces are in the mesh")
    proxy_listen_port: int | None = refused(_PORTS)
    proxy_inbound_listen_port: int | None = refused(_PORTS)
    service_scope_configs: list[Any] | None = refused("several clusters; the lab is one")
    hbone_idle_timeout: str | None = ignored("ambient mode; the lab has sidecars")
    config_sources: list[Any] | None = refused("resources from elsewhere; apply them")
    certificates: list[Any] | None = ignored("Istio no longer makes these certificates")
    enable_envoy_access_log_service: bool | None = refused("access logs over gRPC")
    disable_envoy_listener_log: bool | None = refused("name providers in a Telemetry")
    inbound_cluster_stat_name: str | None = refused("other names of statistics")
    outbound_cluster_stat_name: str | None = refused("other names of statistics")
    enable_prometheus_merge: bool | None = ignored("the lab has no agent that merges metrics")
    verify_certificate_at_client: bool | None = refused("name caCertificates in a DestinationRule")
    ingress_class: str | None = ignored(_INGRESS)
    ingress_service: str | None = ignored(_INGRESS)
    ingress_selector: str | None = ignored(_INGRESS)
    ingress_controller_mode: str | None = ignored(_INGRESS)


def metadata_problems(metadata: dict[str, str]) -> Iterator[Problem]:
    """Refuses variables that no process can have, and warns of those that the lab does not read."""
    for name, value in metadata.items():
        if not name or "=" in name or "\0" in name + value:
            reason = "the lab refuses it: no process can have a variable of this name or value"
            yield Problem((name,), reason)
        elif name not in (HTTP10, IDLE_TIMEOUT):
            yield Problem((name,), _VARIABLE, "warning")


def _provider_names(providers: list[ExtensionProvider]) -> Iterator[Problem]:
    for index, name in duplicates(provider.name for provider in providers):
        yield Problem((index, "name"), f'duplicate extension provider name "{name}"')


def _status_on_error(status: str) -> str | None:
    known = status.isdecimal() and int(status) in list(HTTPStatus)
    return None if known or not status else f"invalid statusOnError value {status}"


def _trust_domain(name: str) -> str | None:
    if not name:
        return "trustDomain: empty domain name not allowed"
    return host_problem(name, wildcard=False)


CHECKS = (
    Check("spec.meshConfig.proxyHttpPort", lambda port: not port or port_problem(port)),
    Check("spec.meshConfig.trustDomain", _trust_domain),
    Check("spec.meshConfig.trustDomainAliases[]", _trust_domain),
    Check(
        "spec.meshConfig.rootNamespace",
        lambda name: name == "istio-system",
        "not supported by the lab: another root namespace than istio-system",
    ),
    newer("spec.meshConfig.defaultInboundHttpRetryPolicy", "1.32"),
    Check("spec.meshConfig.defaultHttpRetryPolicy.retryOn", retry_on_problems),
    Check("**.defaultConfig.proxyMetadata", metadata_problems),
    *CONNECTION_POOL,
    *OUTLIER_DETECTION,
    *LOCALITY,
    Check("**.meshConfig.extensionProviders", _provider_names),
    Check("**.envoyExtAuthzHttp|envoyExtAuthzGrpc.port", port_problem),
    Check("**.statusOnError", _status_on_error),
    Check(
        "**.envoyExtAuthzHttp.pathPrefix",
        lambda path: not path or path.startswith("/"),
        'pathPrefix should begin with `/` but found "{value}"',
    ),
    Check(
        "**.meshConfig.extensionProviders[]",
        lambda provider: len(provider.model_fields_set) == 2,
        "a provider has a name and exactly one configuration",
    ),
    Check(
        "**.meshConfig.defaultConfig.tracing.sampling",
        within(0, 100),
        "must be in range [0.0, 100.0]",
    ),
)
