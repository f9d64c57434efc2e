"""Puts around an application what every service does with a request."""

from __future__ import annotations

from collections.abc import Awaitable

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from services.common import telemetry
from services.common.errors import add_error_handlers
from services.common.metrics import set_build_info
from services.common.middleware import MIDDLEWARES, declared_length
from services.common.settings import CommonSettings


def instrument(app: FastAPI, settings: CommonSettings) -> ASGIApp:
    """Add error answers, traces, metrics and the access log to an application."""
    telemetry.configure(settings)
    set_build_info(settings)
    add_error_handlers(app)
    http: ASGIApp = app
    if app.max_body_size is not None:
        http = declared_length(http, app.max_body_size)
    for middleware in reversed(MIDDLEWARES):
        http = middleware(http)

    def instrumented(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        return (http if scope["type"] == "http" else app)(scope, receive, send)

    return instrumented
