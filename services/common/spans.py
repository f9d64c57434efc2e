"""The OpenTelemetry SDK, imported only by a process that exports spans."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from opentelemetry.exporter.otlp.json.http.trace_exporter import OTLPSpanExporter
from opentelemetry.exporter.zipkin.json import ZipkinExporter
from opentelemetry.propagators.b3 import B3MultiFormat
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from services.common.settings import CommonSettings

logger = logging.getLogger(__name__)

EXPORT_TIMEOUT = 2
"""Seconds an export may take; a collector that is away must not hold up the end of the process."""


class _Quiet(SpanExporter):
    """Says once that a collector is away and once that it is back; traces are no one's outage."""

    def __init__(self, exporter: SpanExporter, url: str) -> None:
        self._exporter = exporter
        self._url = url
        self._failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        reason = "it does not take them"
        try:
            result = self._exporter.export(spans)
        except Exception as error:  # Exporters raise whatever their HTTP client does.
            result, reason = SpanExportResult.FAILURE, _innermost(error)
        failed = result is not SpanExportResult.SUCCESS
        if failed and not self._failing:
            logger.warning("cannot export spans to %s: %s", self._url, reason)
        elif self._failing and not failed:
            logger.warning("exporting spans to %s works again", self._url)
        self._failing = failed
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def _innermost(error: BaseException) -> str:
    while error.__context__ is not None:
        error = error.__context__
    return str(error)


def provider(settings: CommonSettings) -> TracerProvider:
    """A provider that exports, in the background, to each collector the settings name."""
    resource = Resource.create(
        {
            "service.name": settings.otel_service_name,
            "service.version": settings.demo_version,
            "service.instance.id": settings.hostname,
        }
    )
    made = TracerProvider(resource=resource, shutdown_on_exit=False)
    exporters: dict[str, SpanExporter] = {}
    if settings.otel_exporter_otlp_endpoint:
        url = f"{settings.otel_exporter_otlp_endpoint}/v1/traces"
        exporters[url] = OTLPSpanExporter(url, timeout=EXPORT_TIMEOUT)
    if settings.zipkin_endpoint:
        url = settings.zipkin_endpoint
        exporters[url] = ZipkinExporter(endpoint=url, timeout=EXPORT_TIMEOUT)
    for url, exporter in exporters.items():
        made.add_span_processor(BatchSpanProcessor(_Quiet(exporter, url)))
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # `_Quiet` says it instead.
    return made


def propagator() -> TextMapPropagator:
    """Reads and writes both formats; where a request carries both, the W3C one is read last."""
    return CompositePropagator([B3MultiFormat(), TraceContextTextMapPropagator()])
