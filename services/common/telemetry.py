"""Traces, in one of two modes, so that the mesh's trace stays whole in both.

*Relay* (no exporter configured): the trace headers of the incoming request go on outgoing calls
untouched. A span of our own that nobody exports would be a missing parent in the mesh's trace.
*Spans* (an exporter configured): FastAPI makes the server span, `client_span` those of calls, and
W3C Trace Context and B3 are both read and written. `x-request-id` is passed on in both.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fastapi.telemetry import TelemetryConfig
from opentelemetry import propagate, trace

from services.common.context import current_request
from services.common.settings import CommonSettings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_provider: TracerProvider | None = None


def for_fastapi(settings: CommonSettings) -> TelemetryConfig:
    """For `FastAPI(telemetry=…)`: a server span a request where spans are exported, nothing else.

    Where they are not, FastAPI need not look for a provider at each request.
    """
    return {
        "tracing": _exports(settings),
        "operation_spans": False,
        "metrics": False,
        "logs": False,
        "auto_configure": False,
    }


def tracing_enabled() -> bool:
    """Whether this process makes and exports spans of its own."""
    return _provider is not None


def configure(settings: CommonSettings) -> None:
    """Turn on span export when the settings name a collector; do nothing otherwise."""
    global _provider
    if _exports(settings):
        # The SDK costs start time and memory: only those who export pay.
        from services.common import spans

        _provider = spans.provider(settings)
        trace.set_tracer_provider(_provider)
        propagate.set_global_textmap(spans.propagator())


def _exports(settings: CommonSettings) -> bool:
    return bool(settings.otel_exporter_otlp_endpoint or settings.zipkin_endpoint)


def shutdown() -> None:
    """Export what is left, as far as the collector answers in time."""
    if _provider is not None:
        _provider.shutdown()


def trace_id() -> str | None:
    """The current trace, as hexadecimal digits, for log lines."""
    if _provider is not None:
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            return trace.format_trace_id(context.trace_id)
    request = current_request.get(None)
    return request.trace_id if request else None


def outgoing_headers() -> dict[str, str]:
    """Headers to put on an HTTP call made while handling the current request."""
    request = current_request.get(None)
    headers: dict[str, str] = {}
    if request is not None:
        if _provider is None:
            headers = {
                name.decode("latin-1"): value.decode("latin-1")
                for name, value in request.kept.items()
            }
        headers["x-request-id"] = request.request_id
    if _provider is not None:
        propagate.inject(headers)
    return headers


@contextmanager
def client_span(name: str, **attributes: str | int | float | bool) -> Iterator[trace.Span]:
    """A span around a call to another service; in relay mode one that records nothing.

    Attributes are OpenTelemetry's, as in `**{"http.request.method": "GET"}`.
    """
    if _provider is None:
        yield trace.INVALID_SPAN
        return
    tracer = trace.get_tracer("services")
    with tracer.start_as_current_span(
        name, kind=trace.SpanKind.CLIENT, attributes=attributes
    ) as span:
        yield span
