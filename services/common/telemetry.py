"""Traces, in one of two modes, so that the mesh's trace stays whole in both.

*Relay* (no exporter configured): the trace headers of the incoming request go on outgoing calls
untouched. A span of our own that nobody exports would be a missing parent in the mesh's trace.
*Spans* (an exporter configured): Starlette's middleware makes the server span, `client_span` those
of calls; W3C Trace Context and B3 are read and written. `x-request-id` is passed on in both.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from opentelemetry import propagate, trace
from starlette.types import ASGIApp, Receive, Scope, Send

from services.common.context import current_request
from services.common.settings import CommonSettings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_provider: "TracerProvider | None" = None

Attributes = dict[str, str | int]
"""Attributes of a span, by OpenTelemetry's semantic conventions."""


def configure(settings: CommonSettings) -> None:
    """Turns on span export when the settings name a collector; does nothing otherwise."""
    global _provider
    if settings.otel_exporter_otlp_endpoint or settings.zipkin_endpoint:
        # The SDK costs start time and memory: only those who export pay.
        sys.modules.pop("opentelemetry.sdk.metrics", None)  # `start` keeps it out.
        from services.common import spans

        _provider = spans.set_up_export(settings)


def server_spans(app: ASGIApp) -> ASGIApp:
    """Makes a span of each request, where spans are exported."""
    if _provider is None:
        return app
    from starlette.middleware.opentelemetry import OpenTelemetryMiddleware

    async def noting_trace_id(scope: Scope, receive: Receive, send: Send) -> None:
        if request := current_request.get(None):
            span_context = trace.get_current_span().get_span_context()
            request.trace_id = trace.format_trace_id(span_context.trace_id)
        await app(scope, receive, send)

    return OpenTelemetryMiddleware(noting_trace_id, tracer_provider=_provider)


def shutdown() -> None:
    """Exports the spans that are left, as far as the collector answers in time."""
    if _provider is not None:
        _provider.shutdown()


def outgoing_headers() -> dict[str, str]:
    """Returns the headers for an HTTP call made while handling the current request."""
    request = current_request.get(None)
    headers: dict[str, str] = {}
    if _provider is not None:
        propagate.inject(headers)
        if request is not None:
            headers["x-request-id"] = request.request_id
    elif request is not None:
        headers = {name.decode(): value.decode() for name, value in request.kept.items()}
    return headers


class CallError(Exception):
    """A call of another service or of a database failed; the text is the reason."""

    def __init__(self, reason: str, error_type: str = "unreachable") -> None:
        super().__init__(reason)
        self.error_type = error_type
        """`error.type` of its span, by OpenTelemetry's conventions."""


@contextmanager
def client_span(name: str, attributes: Attributes) -> Iterator[trace.Span]:
    """Makes a span around a call; in relay mode it records nothing.

    An exception sets the span's status to Error, and its `error.type`.
    """
    if _provider is None:
        yield trace.INVALID_SPAN
        return
    tracer = trace.get_tracer("services")
    with tracer.start_as_current_span(
        name, kind=trace.SpanKind.CLIENT, attributes=attributes, record_exception=False
    ) as span:
        try:
            yield span
        except Exception as error:
            name = error.error_type if isinstance(error, CallError) else type(error).__name__
            span.set_attribute("error.type", name)
            span.set_status(trace.StatusCode.ERROR)
            raise
