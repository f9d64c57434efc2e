"""The application of FastAPI, and the layers around every application."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.telemetry import TelemetryConfig
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from services.common import middleware, telemetry
from services.common.docs_page import docs_page
from services.common.errors import ErrorAnswer, add_error_handlers, problem
from services.common.metrics import set_build_info
from services.common.settings import CommonSettings

MAX_BODY = 64 * 1024
"""Bytes of a request's body."""

_NO_TELEMETRY: TelemetryConfig = {
    "tracing": False,
    "operation_spans": False,
    "metrics": False,
    "logs": False,
    "auto_configure": False,
}
"""Spans and metrics are made here, for Starlette as for FastAPI."""


def api(title: str, settings: CommonSettings, **options: Any) -> FastAPI:
    """Returns an application of FastAPI that documents itself at /openapi.json and /docs."""
    app = FastAPI(
        title=title,
        version=settings.demo_version,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        strict_content_type=False,
        telemetry=_NO_TELEMETRY,
        **options,
    )

    async def docs(_: Request) -> Response:
        return HTMLResponse(docs_page(app.openapi()))

    app.add_route("/docs", docs, include_in_schema=False)
    return app


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
