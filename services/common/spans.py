"""The OpenTelemetry SDK, imported only by a process that exports spans."""

from __future__ import annotations

from opentelemetry.exporter.otlp.json.http.trace_exporter import OTLPSpanExporter
from opentelemetry.exporter.zipkin.json import ZipkinExporter
from opentelemetry.propagators.b3 import B3MultiFormat
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from services.common.settings import CommonSettings

EXPORT_TIMEOUT = 2
"""Seconds an export may take; a collector that is away must not hold up the end of the process."""


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
    if settings.otel_exporter_otlp_endpoint:
        endpoint = f"{settings.otel_exporter_otlp_endpoint}/v1/traces"
        made.add_span_processor(
            BatchSpanProcessor(OTLPSpanExporter(endpoint, timeout=EXPORT_TIMEOUT))
        )
    if settings.zipkin_endpoint:
        made.add_span_processor(
            BatchSpanProcessor(
                ZipkinExporter(endpoint=settings.zipkin_endpoint, timeout=EXPORT_TIMEOUT)
            )
        )
    return made


def propagator() -> TextMapPropagator:
    """Reads and writes both formats; where a request carries both, the W3C one is read last."""
    return CompositePropagator([B3MultiFormat(), TraceContextTextMapPropagator()])
