"""The OpenTelemetry SDK, imported only by a process that exports spans."""

import logging
from collections.abc import Sequence
from typing import Any

from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.json.http.trace_exporter import OTLPSpanExporter
from opentelemetry.exporter.zipkin.json import ZipkinExporter
from opentelemetry.exporter.zipkin.json.v2 import JsonV2Encoder
from opentelemetry.propagators.b3 import B3MultiFormat
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from services.common.outage import Outage
from services.common.settings import CommonSettings

logger = logging.getLogger(__name__)

EXPORT_TIMEOUT = 2
"""Seconds an export may take; a collector that is away must not hold up the end of the process."""


class _Quiet(SpanExporter):
    """Logs one warning when export starts to fail and one line when it works again."""

    def __init__(self, exporter: SpanExporter, url: str) -> None:
        failed, works = f"cannot export spans to {url}", f"exporting spans to {url} works again"
        self._exporter, self._outage = exporter, Outage(logger, failed, works)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._exporter.export(spans)
        except Exception as error:
            self._outage.fails(_innermost(error))
            return SpanExportResult.FAILURE
        if result is SpanExportResult.SUCCESS:
            self._outage.works()
        else:
            self._outage.fails("the collector did not take them")
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


class _WithRemoteEndpoint(JsonV2Encoder):
    """Names the called service, so that databases too are nodes of Zipkin's dependency graph."""

    def _encode_span(self, span: Any, encoded_local_endpoint: Any) -> dict[str, Any]:
        encoded: dict[str, Any] = super()._encode_span(span, encoded_local_endpoint)
        name = span.attributes.get("peer.service") or span.attributes.get("db.system.name")
        if name:
            encoded["remoteEndpoint"] = {"serviceName": name}
            if port := span.attributes.get("server.port"):
                encoded["remoteEndpoint"]["port"] = port
        return encoded


def _innermost(error: BaseException) -> str:
    while error.__context__ is not None:
        error = error.__context__
    return str(error)


def set_up_export(settings: CommonSettings) -> TracerProvider:
    """Has spans exported, in the background, to each collector of the settings."""
    attributes = {
        "service.name": settings.otel_service_name,
        "service.version": settings.demo_version,
        "service.instance.id": settings.hostname,
    }
    provider = TracerProvider(resource=Resource.create(attributes), shutdown_on_exit=False)
    exporters: dict[str, SpanExporter] = {}
    if settings.otel_exporter_otlp_endpoint:
        url = f"{settings.otel_exporter_otlp_endpoint}/v1/traces"
        exporters[url] = OTLPSpanExporter(url, timeout=EXPORT_TIMEOUT)
    if settings.zipkin_endpoint:
        zipkin = ZipkinExporter(endpoint=settings.zipkin_endpoint, timeout=EXPORT_TIMEOUT)
        exporters[settings.zipkin_endpoint] = zipkin
        zipkin.encoder = _WithRemoteEndpoint()  # type: ignore[assignment]
    for url, exporter in exporters.items():
        provider.add_span_processor(BatchSpanProcessor(_Quiet(exporter, url)))
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # `_Quiet` logs it instead.
    trace.set_tracer_provider(provider)
    # Both formats; where a request carries both, W3C is read last.
    formats = [B3MultiFormat(), TraceContextTextMapPropagator()]
    propagate.set_global_textmap(CompositePropagator(formats))
    return provider
