"""The layers that every service has around its application."""

from __future__ import annotations

from collections.abc import Awaitable

from fastapi.telemetry import TelemetryConfig
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from services.common import middleware, telemetry
from services.common.errors import ErrorAnswer, add_error_handlers, problem
from services.common.metrics import set_build_info
from services.common.settings import CommonSettings

MAX_BODY = 64 * 1024
"""Bytes of a request's body."""

NO_TELEMETRY: TelemetryConfig = {
    "tracing": False,
    "operation_spans": False,
    "metrics": False,
    "logs": False,
    "auto_configure": False,
}
"""For `FastAPI(telemetry=…)`: spans and metrics are made here, for Starlette as for FastAPI."""


def instrument(
    app: Starlette,
    settings: CommonSettings,
    *,
    answer: ErrorAnswer = problem,
    max_body: int = MAX_BODY,
) -> ASGIApp:
    """Adds error answers, traces, metrics, the access log and limits to an application."""
    telemetry.configure(settings)
    set_build_info(settings)
    add_error_handlers(app, answer)
    http: ASGIApp = middleware.limit_body(app, max_body)
    http = telemetry.server_spans(http)
    http = middleware.head(http)
    http = middleware.without_final_slash(http)
    http = middleware.observe(http, answer)

    def instrumented(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        return (http if scope["type"] == "http" else app)(scope, receive, send)

    return instrumented
