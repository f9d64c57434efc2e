"""A page to read an OpenAPI document; it needs no script and nothing from elsewhere."""

from __future__ import annotations

import json
from html import escape
from typing import Any

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1em }}
h2 {{ font: 600 1rem monospace; margin-top: 2rem }}
pre {{ background: #f4f6f9; overflow: auto; padding: .5em }}
</style></head><body><h1>{title}</h1>
<p>For machines: <a href="openapi.json">openapi.json</a></p>{sections}</body></html>"""


def docs_page(document: dict[str, Any]) -> str:
    """Returns the page of a document: its operations and its schemas."""
    sections = [
        _section(f"{method.upper()} {path}", operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    schemas = document.get("components", {}).get("schemas", {})
    sections += [_section(name, schema) for name, schema in schemas.items()]
    title = escape(f"{document['info']['title']} {document['info']['version']}")
    return _PAGE.format(title=title, sections="".join(sections))


def _section(heading: str, described: dict[str, Any]) -> str:
    details = escape(json.dumps(described, indent=2))
    about = escape(described.get("description", ""))
    return (
        f"<h2>{escape(heading)}</h2><p>{about}</p>"
        f"<details><summary>Details</summary><pre>{details}</pre></details>"
    )
