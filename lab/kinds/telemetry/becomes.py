"""Telemetry and MeshConfig: the access log and the tracing of a proxy."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from lab import names
from lab.kinds import selection
from lab.kinds.mesh_config import becomes as mesh_config
from lab.kinds.mesh_config.checks import ExtensionProvider, FileAccessLogProvider, MeshConfig
from lab.kinds.telemetry.types import CustomTag, ModeSelector, Tracing
from lab.kinds.visible import View
from lab.model import Json, Pod, Snapshot
from lab.resources.resource import Resource
from lab.xds import duration, extension, given, typed

Direction = Literal["inbound", "outbound", "gateway"]

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
"""Istio's default labels of the JSON encoding."""

_ONLY_WITHOUT_CHAIN: Json = {"response_flag_filter": {"flags": ["NR"]}}


def _policies(view: View) -> list[Resource]:
    """Returns the Telemetries for a proxy, the mesh's first; a later one overrides."""
    snapshot, pod = view.snapshot, view.pod
    namespaces = dict.fromkeys((snapshot.root_namespace, pod.namespace))
    wide = [selection.of_namespace(snapshot, "Telemetry", namespace) for namespace in namespaces]
    return [
        *(policy for policy in wide if policy is not None),
        *selection.of_workload(snapshot, "Telemetry", pod),
    ]


def _concerns(match: ModeSelector | None, direction: Direction) -> bool:
    if match is None or match.mode == "CLIENT_AND_SERVER":
        return True
    return (match.mode == "SERVER") == (direction == "inbound")


def access_log(view: View, direction: Direction) -> list[Json]:
    """Returns the access loggers of an HTTP connection manager or a TCP proxy."""
    return _loggers(view, direction, [])


def listener_access_log(view: View, direction: Direction) -> list[Json]:
    """Returns the access loggers of a listener, for connections that no filter chain matched."""
    return _loggers(view, direction, [_ONLY_WITHOUT_CHAIN])


def _loggers(view: View, direction: Direction, conditions: list[Json]) -> list[Json]:
    mesh = view.mesh
    chosen = _log_providers(view, direction)
    if chosen is None:
        path = mesh.access_log_file
        return [_file_log(_mesh_log(mesh, path), conditions)] if path else []
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


def _log_providers(view: View, direction: Direction) -> dict[str, str] | None:
    """Returns the providers that log, each with its filter; None without any Telemetry.

    Those that the last policy names are in question, with the last filter of each; a block without
    providers has those of the one before.
    """
    standard = list(view.mesh.default_providers.access_logging)
    policies = [policy for policy in _policies(view) if policy.spec.access_logging]
    if not policies:
        return dict.fromkeys(standard, "") or None
    filters: dict[str, str] = {}
    wanted = standard
    for policy in policies:
        named = [
            (provider.name, block.filter.expression if block.filter is not None else "")
            for block in policy.spec.access_logging
            if _concerns(block.match, direction)
            for provider in block.providers
        ]
        filters |= dict(named)
        wanted = list(dict(named)) or wanted
    current = standard
    enabled: dict[str, bool] = {}
    for block in (block for policy in policies for block in policy.spec.access_logging):
        current = [provider.name for provider in block.providers] or current
        if _concerns(block.match, direction):
            enabled |= {name: not block.disabled for name in current if name in wanted}
    # Without a provider there is none to disable: the mesh's `accessLogFile` stays.
    return {name: filters.get(name, "") for name, on in enabled.items() if on} if enabled else None


def _mesh_log(mesh: MeshConfig, path: str) -> Json:
    if mesh.access_log_encoding == "JSON":
        labels = _labels(mesh.access_log_format)
        return {"path": path, "log_format": {"json_format": labels, "json_format_options": {}}}
    return {"path": path, "log_format": _text(mesh.access_log_format)}


def _labels(layout: str) -> Json:
    """Returns the labels of a JSON log: those of `accessLogFormat`, else Istio's."""
    with contextlib.suppress(ValueError):
        if isinstance(own := json.loads(layout), dict):
            return own
    return dict(JSON_FORMAT)


def _provider_log(provider: FileAccessLogProvider) -> Json:
    layout = provider.log_format
    if layout is not None and layout.labels is not None:
        labels = dict(layout.labels or JSON_FORMAT)
        log_format: Json = {"json_format": labels, "json_format_options": {}}
    else:
        log_format = _text(layout.text if layout is not None else None)
    if provider.omit_empty_values:
        log_format["omit_empty_values"] = True
    return {"path": provider.path, "log_format": log_format}


def _text(layout: str | None) -> Json:
    text = (layout or LOG_FORMAT).removesuffix("\n")
    return {"text_format_source": {"inline_string": f"{text}\n"}}


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
    """The merged tracing of the Telemetries for one proxy and direction."""

    provider: ExtensionProvider | None = None
    disabled: bool = False
    sampling: float | None = None
    custom_tags: dict[str, CustomTag] = field(default_factory=dict)
    istio_tags: bool = True
    context_propagation: bool = True
    request_id_sampling: bool = True


def tracing(view: View, direction: Direction) -> Json | None:
    """Returns the `tracing` of an HTTP connection manager; None switches tracing off.

    A Telemetry whose provider is unknown, or whose service is in no registry, traces nothing.
    """
    proxy = view.mesh.default_config.tracing
    spec = tracing_spec(view, direction)
    if spec is None:
        if not view.mesh.enable_tracing:
            return None
        # Without a provider nothing is exported; istiod writes it all the same.
        return _sampled(proxy.sampling, _tags(view.pod, TracingSpec()), proxy.max_path_tag_length)
    exporter = None if spec.disabled else _exporter(view, spec.provider)
    if spec.provider is None or exporter is None:
        return None
    own = spec.provider.zipkin or spec.provider.opentelemetry
    length = (own.max_tag_length if own is not None else None) or proxy.max_path_tag_length
    sampling = proxy.sampling if spec.sampling is None else spec.sampling
    return _sampled(sampling, _tags(view.pod, spec), length) | given(
        provider=exporter,
        spawn_upstream_span=True if view.pod.proxy == "gateway" else None,
        no_context_propagation=None if spec.context_propagation else True,
    )


def tracing_spec(view: View, direction: Direction) -> TracingSpec | None:
    """Returns the merged tracing of the Telemetries; None when they and the mesh have none."""
    blocks: list[Tracing] = [block for policy in _policies(view) for block in policy.spec.tracing]
    standard = view.mesh.default_providers.tracing
    if not blocks and not standard:
        return None
    spec = TracingSpec(mesh_config.provider(view.mesh, standard[0]) if standard else None)
    for block in blocks:
        if _concerns(block.match, direction):
            spec = replace(spec, **_explicit(block, view.mesh))
    return spec


def _explicit(block: Tracing, mesh: MeshConfig) -> dict[str, Any]:
    """Returns the fields of a TracingSpec that a Telemetry sets."""
    fields = given(
        disabled=block.disable_span_reporting,
        sampling=block.random_sampling_percentage,
        custom_tags=block.custom_tags,
        istio_tags=block.enable_istio_tags,
        request_id_sampling=block.use_request_id_for_trace_sampling,
    )
    if block.disable_context_propagation is not None:
        fields["context_propagation"] = not block.disable_context_propagation
    if block.providers:
        fields["provider"] = mesh_config.provider(mesh, block.providers[0].name)
    return fields


def request_id_extension(view: View, direction: Direction) -> Json:
    """Returns the `request_id_extension` of an HTTP connection manager."""
    spec = tracing_spec(view, direction)
    return {
        "typed_config": typed(
            "extensions.request_id.uuid.v3.UuidRequestIdConfig",
            use_request_id_for_trace_sampling=spec is None
            or spec.request_id_sampling
            or tracing(view, direction) is None,
        )
    }


def _sampled(percentage: float, tags: list[Json], max_length: int | None) -> Json:
    return given(
        client_sampling={"value": 100},
        random_sampling={"value": percentage},
        overall_sampling={"value": 100},
        custom_tags=tags,
        max_path_tag_length=max_length or None,
    )


def service_name(pod: Pod) -> str:
    """Returns the service name of a proxy's spans: `app.namespace`, the cluster of its node."""
    return f"{pod.labels.get('app') or canonical_name(pod)}.{pod.namespace}"


def canonical_name(pod: Pod) -> str:
    """Returns the name of a pod's workload in Istio's telemetry."""
    labels = ("service.istio.io/canonical-name", "app.kubernetes.io/name", "app")
    return _first_label(pod, labels) or workload_name(pod)


def workload_name(pod: Pod) -> str:
    """Returns the name of a pod's Deployment or StatefulSet, or its own."""
    if template := pod.labels.get("pod-template-hash"):
        return pod.name.rpartition(f"-{template}-")[0] or pod.name
    if "statefulset.kubernetes.io/pod-name" in pod.labels:
        return pod.name.rpartition("-")[0]
    return pod.name


def canonical_revision(pod: Pod) -> str:
    labels = ("service.istio.io/canonical-revision", "app.kubernetes.io/version", "version")
    return _first_label(pod, labels) or "latest"


def _first_label(pod: Pod, labels: tuple[str, ...]) -> str | None:
    return next((value for label in labels if (value := pod.labels.get(label))), None)


_DRY_RUN_KEYS = {"name": "shadow_effective_policy_id", "result": "shadow_engine_result"}


def _tags(pod: Pod, spec: TracingSpec) -> list[Json]:
    tags: list[Json] = []
    if spec.istio_tags:
        literals = {
            "istio.canonical_revision": canonical_revision(pod),
            "istio.canonical_service": canonical_name(pod),
            "istio.mesh_id": "cluster.local",
            "istio.namespace": pod.namespace,
            "istio.cluster_id": "Kubernetes",
        }
        tags.extend({"tag": tag, "literal": {"value": value}} for tag, value in literals.items())
        tags.extend(
            _dry_run_tag(action, kind, key)
            for action in ("allow", "deny")
            for kind, key in _DRY_RUN_KEYS.items()
        )
    for name, tag in spec.custom_tags.items():
        if tag.literal is not None:
            tags.append({"tag": name, "literal": {"value": tag.literal.value}})
        elif tag.header is not None:
            header = {"name": tag.header.name, "default_value": tag.header.default_value}
            tags.append({"tag": name, "request_header": header})
        elif tag.environment is not None:
            variable = {
                "name": tag.environment.name,
                "default_value": tag.environment.default_value,
            }
            tags.append({"tag": name, "environment": variable})
        elif tag.formatter is not None:
            tags.append({"tag": name, "value": tag.formatter.value})
    return sorted(tags, key=lambda tag: str(tag["tag"]))


def _dry_run_tag(action: str, kind: str, key: str) -> Json:
    path = [{"key": f"istio_dry_run_{action}_{key}"}]
    return {
        "tag": f"istio.authorization.dry_run.{action}_policy.{kind}",
        "metadata": {
            "kind": {"request": {}},
            "metadata_key": {"key": "envoy.filters.http.rbac", "path": path},
        },
    }


def _exporter(view: View, provider: ExtensionProvider | None) -> Json | None:
    target = provider.zipkin or provider.opentelemetry if provider is not None else None
    if provider is None or target is None:
        return None
    host = _registered(view.snapshot, target.service)
    if host is None:
        return None
    cluster = names.cluster(target.port, host)
    if (zipkin := provider.zipkin) is not None:
        uri = f"http://{host}{zipkin.path}"
        headers = [{"header": {"key": one.name, "value": one.value}} for one in zipkin.headers]
        service = given(
            http_uri={"uri": uri, "cluster": cluster, "timeout": duration(zipkin.timeout)},
            request_headers_to_add=headers or None,
        )
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
        service_name=service_name(view.pod),
        grpc_service={"envoy_grpc": {"cluster_name": cluster, "authority": host}},
    )


def _registered(snapshot: Snapshot, service: str) -> str | None:
    """Returns the host of a provider's `[namespace/]host`; None when no registry has it."""
    _, _, host = service.rpartition("/")
    if any(found.host == host for found in snapshot.services):
        return host
    entries = snapshot.of("ServiceEntry")
    return host if any(host in entry.spec.hosts for entry in entries) else None
