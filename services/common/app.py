"""The application of FastAPI with its page of documentation, and the layers around every app."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from fastapi import FastAPI, Request
from fastapi.telemetry import TelemetryConfig
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp

from services.common import middleware, telemetry
from services.common.errors import ErrorAnswer, add_error_handlers, problem
from services.common.settings import CommonSettings

MAX_BODY = 64 * 1024
"""Bytes of a request's body."""

# Spans and metrics are made here, for Starlette as for FastAPI.
_NO_TELEMETRY = TelemetryConfig(
    tracing=False, operation_spans=False, metrics=False, logs=False, auto_configure=False
)

_DOCS = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1em }}
h2 {{ font: 600 1rem monospace; margin-top: 2rem }}
pre {{ background: #f4f6f9; overflow: auto; padding: .5em }}
</style></head><body><h1>{title}</h1>
<p>For machines: <a href="openapi.json">openapi.json</a></p>{sections}</body></html>"""

_SECTION = (
    "<h2>{heading}</h2><p>{about}</p>"
    "<details><summary>Details</summary><pre>{details}</pre></details>"
)


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
        return HTMLResponse(_docs_page(app.openapi()))

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
    add_error_handlers(app, answer)
    limited = middleware.limit_body(app, max_body)
    return middleware.observe(telemetry.server_spans(limited), answer)


def _docs_page(document: dict[str, Any]) -> str:
    """Returns the operations and schemas to read, with no script and nothing from elsewhere."""
    parts = {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    parts |= document.get("components", {}).get("schemas", {})
    sections = [
        _SECTION.format(
            heading=escape(heading),
            about=escape(part.get("description", "")),
            details=escape(json.dumps(part, indent=2)),
        )
        for heading, part in parts.items()
    ]
    title = escape(f"{document['info']['title']} {document['info']['version']}")
    return _DOCS.format(title=title, sections="".join(sections))
