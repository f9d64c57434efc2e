"""The OpenAPI document of a service: the answers all routes share, and a page to read it."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response


class Problem(BaseModel):
    """An error answer (RFC 9457)."""

    title: str
    status: int
    detail: str
    request_id: str


_PROBLEM = {
    "description": "An error, with its reason",
    "content": {"application/problem+json": {"schema": Problem.model_json_schema()}},
}

PROBLEMS: dict[int | str, dict[str, Any]] = {"4XX": _PROBLEM, "5XX": _PROBLEM}
"""For `responses=` of a route: each error answer is a problem document."""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1em }}
h2 {{ font: 600 1rem monospace; margin-top: 2rem }}
pre {{ background: #f4f6f9; overflow: auto; padding: .5em }}
</style></head><body><h1>{title}</h1>
<p>For machines: <a href="openapi.json">openapi.json</a></p>{sections}</body></html>"""


def add_docs(app: FastAPI) -> None:
    """Adds `/docs`, a page of all operations; it needs no script and nothing from elsewhere."""

    async def docs(_: Request) -> Response:
        document = app.openapi()
        sections = [
            _section(f"{method.upper()} {path}", operation)
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
        ]
        schemas = document.get("components", {}).get("schemas", {})
        sections += [_section(name, schema) for name, schema in schemas.items()]
        title = escape(f"{document['info']['title']} {document['info']['version']}")
        return HTMLResponse(_PAGE.format(title=title, sections="".join(sections)))

    app.add_route("/docs", docs, include_in_schema=False)


def _section(heading: str, described: dict[str, Any]) -> str:
    details = {key: value for key, value in described.items() if key not in _SHOWN}
    return (
        f"<h2>{escape(heading)}</h2><p>{escape(described.get('description', ''))}</p><details>"
        f"<summary>Details</summary><pre>{escape(json.dumps(details, indent=2))}</pre></details>"
    )


_SHOWN = ("description", "summary", "operationId", "title")
