"""An application of FastAPI that documents itself, and the errors it documents."""

import json
from collections.abc import Mapping
from html import escape
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.telemetry import TelemetryConfig
from pydantic import BaseModel
from starlette.responses import HTMLResponse, Response

from services.common.errors import problem
from services.common.settings import CommonSettings


class Problem(BaseModel):
    """An error answer (RFC 9457)."""

    title: str
    status: int
    detail: str
    request_id: str


_CONTENT = {"application/problem+json": {"schema": Problem.model_json_schema()}}
_PROBLEM = {"description": "An error, with its reason", "content": _CONTENT}
PROBLEMS: dict[int | str, dict[str, Any]] = {"4XX": _PROBLEM, "5XX": _PROBLEM}
"""For `responses=` of a route of FastAPI."""

# Spans and metrics are made in `instrument`, for Starlette as for FastAPI.
_NO_TELEMETRY = TelemetryConfig(
    tracing=False, operation_spans=False, metrics=False, logs=False, auto_configure=False
)

_DOCS = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<link rel="icon" href="data:,"><style>
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

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return problem(HTTPStatus.BAD_REQUEST, "; ".join(map(_reason, error.errors())))

    app.add_route("/docs", docs, include_in_schema=False)
    return app


def _reason(error: Mapping[str, Any]) -> str:
    """Returns what pydantic found wrong, in words for a client."""
    if error["type"] == "json_invalid":
        return f"the body is not valid JSON ({error['ctx']['error']})"
    location = [str(part) for part in error["loc"] if part not in ("body", "query", "path")]
    if not location:
        return "the body must be a JSON object"
    wrong = "missing" if error["type"] == "missing" else error["msg"]
    return f"{'.'.join(location)}: {wrong.removeprefix('Value error, ')}"


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
