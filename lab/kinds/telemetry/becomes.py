"""Telemetry and MeshConfig: the access log and the tracing of a proxy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from lab import names
from lab.kinds.mesh_config import becomes as mesh_config
from lab.kinds.mesh_config.checks import ExtensionProvider, FileAccessLogProvider, MeshConfig
from lab.kinds.telemetry.types import AccessLogging, CustomTag, ModeSelector, TelemetrySpec, Tracing
from lab.model import Json, Pod, Snapshot
from lab.resources.resource import Resource
from lab.xds import duration, extension, typed

Direction = Literal["inbound", "outbound", "gateway"]

KIND = "Telemetry"
LOG_FORMAT = (
    '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" '
    "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "
    '"%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% '
    '%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" '
    '"%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% '
    "%UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% "
    "%REQUESTED_SERVER_NAME% %ROUTE_NAME%\n"
)
"""Istio's default text format."""

JSON_FORMAT = {
    "start_time": "%START_TIME%",
    "route_name": "%ROUTE_NAME%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "protocol": "%PROTOCOL%",
    "response_code": "%RESPONSE_CODE%",
    "response_flags": "%RESPONSE_FLAGS%",
    "response_code_details": "%RESPONSE_CODE_DETAILS%",
    "connection_termination_details": "%CONNECTION_TERMINATION_DETAILS%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
    "duration": "%DURATION%",
    "upstream_service_time": "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
    "x_forwarded_for": "%REQ(X-FORWARDED-FOR)%",
    "user_agent": "%REQ(USER-AGENT)%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "authority": "%REQ(:AUTHORITY)%",
    "upstream_host": "%UPSTREAM_HOST%",
    "upstream_cluster": "%UPSTREAM_CLUSTER_RAW%",
    "upstream_local_address": "%UPSTREAM_LOCAL_ADDRESS%",
    "downstream_local_address": "%DOWNSTREAM_LOCAL_ADDRESS%",
    "downstream_remote_address": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "requested_server_name": "%REQUESTED_SERVER_NAME%",
    "upstream_transport_failure_reason": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
}
"""The labels of the JSON encoding."""

_ONLY_WITHOUT_CHAIN: Json = {"response_flag_filter": {"flags": ["NR"]}}


def applicable(snapshot: Snapshot, pod: Pod) -> list[Resource]:
    """The Telemetries for a pod, the mesh's first; what a later one says overrides."""
    found: list[Resource] = []
    for namespace in dict.fromkeys((snapshot.root_namespace, pod.namespace)):
        wide = (
            policy
            for policy in snapshot.of(KIND)
            if policy.namespace == namespace and not _labels(policy)
        )
        found.extend(policy for policy in [next(wide, None)] if policy is not None)
    found.extend(
        policy
        for policy in snapshot.of(KIND)
        if policy.namespace == pod.namespace
        and _labels(policy)
        and names.selects(_labels(policy), pod.labels)
    )
    return found


def _labels(policy: Resource) -> dict[str, str]:
    spec: TelemetrySpec = policy.spec
    return spec.selector.match_labels if spec.selector is not None else {}


def _concerns(match: ModeSelector | None, direction: Direction) -> bool:
    if match is None or match.mode == "CLIENT_AND_SERVER":
        return True
    return (match.mode == "SERVER") == (direction == "inbound")


def access_log(snapshot: Snapshot, pod: Pod, direction: Direction) -> list[Json]:
    """The access loggers of an HTTP connection manager or a TCP proxy."""
    return _loggers(snapshot, pod, direction, [])


def listener_access_log(snapshot: Snapshot, pod: Pod, direction: Direction) -> list[Json]:
    """The access loggers of a listener: connections that no filter chain matched (flag NR)."""
    return _loggers(snapshot, pod, direction, [_ONLY_WITHOUT_CHAIN])


def _loggers(
    snapshot: Snapshot, pod: Pod, direction: Direction, conditions: list[Json]
) -> list[Json]:
    mesh = mesh_config.defaults(snapshot.mesh)
    chosen = _log_providers(snapshot, pod, direction, mesh)
    if chosen is None:
        if not mesh.access_log_file:
            return []
        return [_file_log(_mesh_log(mesh, mesh.access_log_file), conditions)]
    loggers = []
    for name, expression in sorted(chosen.items()):
        provider = mesh_config.provider(mesh, name)
        if provider is None or provider.envoy_file_access_log is None:
            continue
        own = provider.envoy_file_access_log
        built_in = name == "envoy" and own.log_format is None and not own.omit_empty_values
        log = _mesh_log(mesh, own.path) if built_in else _provider_log(own)
        loggers.append(_file_log(log, [*conditions, *_expression(expression)]))
    return loggers


def _log_providers(
    snapshot: Snapshot, pod: Pod, direction: Direction, mesh: MeshConfig
) -> dict[str, str] | None:
    """The providers that log, each with its filter expression; None without any Telemetry."""
    blocks = [
        block
        for policy in applicable(snapshot, pod)
        for block in policy.spec.access_logging
        if _concerns(block.match, direction)
    ]
    standard = mesh.default_providers.access_logging
    if not blocks and not standard:
        return None
    chosen: dict[str, str] = dict.fromkeys(standard, "")
    current = list(standard) or ["envoy"]
    for block in blocks:
        current = [provider.name for provider in block.providers] or current
        for name in current:
            _switch(chosen, name, block)
    return chosen


def _switch(chosen: dict[str, str], name: str, block: AccessLogging) -> None:
    if block.disabled:
        chosen.pop(name, None)
    else:
        expression = block.filter.expression if block.filter is not None else chosen.get(name, "")
        chosen[name] = expression


def _mesh_log(mesh: MeshConfig, path: str) -> Json:
    if mesh.access_log_encoding == "JSON":
        return {"path": path, "log_format": {"json_format": dict(JSON_FORMAT)}}
    text = mesh.access_log_format or LOG_FORMAT
    return {"path": path, "log_format": _text(text)}


def _provider_log(provider: FileAccessLogProvider) -> Json:
    layout = provider.log_format
    if layout is not None and layout.labels is not None:
        log_format: Json = {"json_format": dict(layout.labels) or dict(JSON_FORMAT)}
    else:
        log_format = _text((layout.text if layout is not None else None) or LOG_FORMAT)
    if provider.omit_empty_values:
        log_format["omit_empty_values"] = True
    return {"path": provider.path, "log_format": log_format}


def _text(layout: str) -> Json:
    ended = layout if layout.endswith("\n") else layout + "\n"
    return {"text_format_source": {"inline_string": ended}}


def _expression(expression: str) -> list[Json]:
    if not expression:
        return []
    kind = "extensions.access_loggers.filters.cel.v3.ExpressionFilter"
    name = "envoy.access_loggers.extension_filters.cel"
    return [{"extension_filter": extension(name, kind, expression=expression)}]


def _file_log(log: Json, conditions: list[Json]) -> Json:
    logger = extension(
        "envoy.access_loggers.file", "extensions.access_loggers.file.v3.FileAccessLog", **log
    )
    if len(conditions) == 1:
        logger["filter"] = conditions[0]
    elif conditions:
        logger["filter"] = {"and_filter": {"filters": conditions}}
    return logger


@dataclass(frozen=True, slots=True)
class TracingSpec:
    """What the Telemetries for one proxy and direction come to."""

    provider: ExtensionProvider | None = None
    disabled: bool = False
    sampling: float | None = None
    custom_tags: dict[str, CustomTag] = field(default_factory=dict)
    istio_tags: bool = True
    context_propagation: bool = True
    request_id_sampling: bool = True


def tracing(snapshot: Snapshot, pod: Pod, direction: Direction) -> Json | None:
    """The `tracing` of an HTTP connection manager; None switches tracing off.

    A Telemetry whose provider is unknown, or whose service is in no registry, traces nothing.
    """
    mesh = mesh_config.defaults(snapshot.mesh)
    proxy = mesh.default_config.tracing
    spec = tracing_spec(snapshot, pod, direction)
    if spec is None:
        if not mesh.enable_tracing:
            return None
        # Without a provider nothing is exported; istiod writes it all the same.
        return _sampled(proxy.sampling, _tags(pod, TracingSpec()), proxy.max_path_tag_length)
    if spec.disabled or spec.provider is None:
        return None
    exporter = _exporter(snapshot, pod, spec.provider)
    if exporter is None:
        return None
    own = spec.provider.zipkin or spec.provider.opentelemetry
    length = (own.max_tag_length if own is not None else None) or proxy.max_path_tag_length
    sampling = proxy.sampling if spec.sampling is None else spec.sampling
    result = _sampled(sampling, _tags(pod, spec), length)
    result["provider"] = exporter
    if pod.proxy == "gateway":
        result["spawn_upstream_span"] = True
    if not spec.context_propagation:
        result["no_context_propagation"] = True
    return result


def tracing_spec(snapshot: Snapshot, pod: Pod, direction: Direction) -> TracingSpec | None:
    """The merged tracing of all Telemetries; None when neither they nor the mesh name any."""
    mesh = mesh_config.defaults(snapshot.mesh)
    blocks: list[Tracing] = [
        block for policy in applicable(snapshot, pod) for block in policy.spec.tracing
    ]
    standard = mesh.default_providers.tracing
    if not blocks and not standard:
        return None
    merged: dict[str, object] = {}
    if standard:
        merged["provider"] = mesh_config.provider(mesh, standard[0])
    for block in blocks:
        if _concerns(block.match, direction):
            merged.update(_said(block, mesh))
    return TracingSpec(**merged)  # type: ignore[arg-type]


def _said(block: Tracing, mesh: MeshConfig) -> Iterator[tuple[str, object]]:
    if block.providers:
        yield "provider", mesh_config.provider(mesh, block.providers[0].name)
    if block.disable_span_reporting is not None:
        yield "disabled", block.disable_span_reporting
    if block.random_sampling_percentage is not None:
        yield "sampling", block.random_sampling_percentage
    if block.custom_tags is not None:
        yield "custom_tags", block.custom_tags
    if block.enable_istio_tags is not None:
        yield "istio_tags", block.enable_istio_tags
    if block.disable_context_propagation is not None:
        yield "context_propagation", not block.disable_context_propagation
    if block.use_request_id_for_trace_sampling is not None:
        yield "request_id_sampling", block.use_request_id_for_trace_sampling


def request_id_extension(snapshot: Snapshot, pod: Pod, direction: Direction) -> Json:
    """The `request_id_extension` of an HTTP connection manager."""
    spec = tracing_spec(snapshot, pod, direction)
    return {
        "typed_config": typed(
            "extensions.request_id.uuid.v3.UuidRequestIdConfig",
            use_request_id_for_trace_sampling=spec is None or spec.request_id_sampling,
        )
    }


def _sampled(percentage: float, tags: list[Json], max_length: int | None) -> Json:
    result: Json = {
        "client_sampling": {"value": 100},
        "random_sampling": {"value": percentage},
        "overall_sampling": {"value": 100},
        "custom_tags": tags,
    }
    if max_length:
        result["max_path_tag_length"] = max_length
    return result


def service_name(pod: Pod) -> str:
    """The name a proxy's spans have: `app.namespace`, the cluster of its node."""
    return f"{pod.labels.get('app') or canonical_name(pod)}.{pod.namespace}"


def canonical_name(pod: Pod) -> str:
    for label in ("service.istio.io/canonical-name", "app.kubernetes.io/name", "app"):
        if value := pod.labels.get(label):
            return value
    return pod.name


def _canonical_revision(pod: Pod) -> str:
    for label in (
        "service.istio.io/canonical-revision",
        "app.kubernetes.io/version",
        "version",
    ):
        if value := pod.labels.get(label):
            return value
    return "latest"


_DRY_RUN_KEYS = {"name": "shadow_effective_policy_id", "result": "shadow_engine_result"}


def _tags(pod: Pod, spec: TracingSpec) -> list[Json]:
    tags: list[Json] = []
    if spec.istio_tags:
        literals = {
            "istio.canonical_revision": _canonical_revision(pod),
            "istio.canonical_service": canonical_name(pod),
            "istio.mesh_id": "cluster.local",
            "istio.namespace": pod.namespace,
            "istio.cluster_id": "Kubernetes",
        }
        tags.extend({"tag": tag, "literal": {"value": value}} for tag, value in literals.items())
        tags.extend(
            {
                "tag": f"istio.authorization.dry_run.{action}_policy.{what}",
                "metadata": {
                    "kind": {"request": {}},
                    "metadata_key": {
                        "key": "envoy.filters.http.rbac",
                        "path": [{"key": f"istio_dry_run_{action}_{key}"}],
                    },
                },
            }
            for action in ("allow", "deny")
            for what, key in _DRY_RUN_KEYS.items()
        )
    for name, tag in spec.custom_tags.items():
        if tag.literal is not None:
            tags.append({"tag": name, "literal": {"value": tag.literal.value}})
        elif tag.header is not None:
            header = {"name": tag.header.name, "default_value": tag.header.default_value}
            tags.append({"tag": name, "request_header": header})
        elif tag.formatter is not None:
            tags.append({"tag": name, "value": tag.formatter.value})
    return sorted(tags, key=lambda tag: str(tag["tag"]))


def _exporter(snapshot: Snapshot, pod: Pod, provider: ExtensionProvider) -> Json | None:
    target = provider.zipkin or provider.opentelemetry
    if target is None:
        return None
    host = _registered(snapshot, target.service)
    if host is None:
        return None
    cluster = names.cluster(target.port, host)
    if provider.zipkin is not None:
        zipkin = provider.zipkin
        service: Json = {
            "http_uri": {
                "uri": f"http://{host}{zipkin.path}",
                "cluster": cluster,
                "timeout": duration(zipkin.timeout),
            }
        }
        if zipkin.headers:
            service["request_headers_to_add"] = [
                {"header": {"key": header.name, "value": header.value}} for header in zipkin.headers
            ]
        return extension(
            "envoy.tracers.zipkin",
            "config.trace.v3.ZipkinConfig",
            collector_endpoint_version="HTTP_JSON",
            trace_id_128bit=not zipkin.enable_64bit_trace_id,
            shared_span_context=False,
            trace_context_option=zipkin.trace_context_option,
            collector_service=service,
        )
    return extension(
        "envoy.tracers.opentelemetry",
        "config.trace.v3.OpenTelemetryConfig",
        service_name=service_name(pod),
        grpc_service={"envoy_grpc": {"cluster_name": cluster, "authority": host}},
    )


def _registered(snapshot: Snapshot, service: str) -> str | None:
    """The registry's name for a provider's `[namespace/]host`; None when it has none."""
    _, _, host = service.rpartition("/")
    if any(found.host == host for found in snapshot.services):
        return host
    entries = snapshot.of("ServiceEntry")
    return host if any(host in entry.spec.hosts for entry in entries) else None
