"""The HTTP connection manager: the path and the headers of a request, before its filters."""

from __future__ import annotations

import re
from dataclasses import replace

from lab.explain.interpret import matchers
from lab.explain.interpret.matchers import Request
from lab.model import Json

_ESCAPED = re.compile("%(?:2f|5c)", re.IGNORECASE)


def refusal(manager: Json, request: Request) -> tuple[int, str] | None:
    """Returns the status and the text of the manager's own answer; None when it takes a request."""
    common = manager.get("common_http_protocol_options", {})
    if common.get("headers_with_underscores_action") == "REJECT_REQUEST":
        named = next((name for name in request.headers if "_" in name), None)
        if named is not None:
            return 400, f"the header {named} has an underscore"
    action = manager.get("path_with_escaped_slashes_action", "KEEP_UNCHANGED")
    if _ESCAPED.search(request.bare_path) and action == "REJECT_REQUEST":
        return 400, "the path has an escaped slash"
    if _ESCAPED.search(request.bare_path) and action == "UNESCAPE_AND_REDIRECT":
        plain = replace(request, path=_ESCAPED.sub("/", request.path))
        return 307, f"redirect: path {accepted(manager, plain).path}"
    return None


def accepted(manager: Json, request: Request) -> Request:
    """Returns a request as the manager's filters and routes see it."""
    common = manager.get("common_http_protocol_options", {})
    headers = request.headers
    if common.get("headers_with_underscores_action") == "DROP_HEADER":
        headers = {name: values for name, values in headers.items() if "_" not in name}
    path = matchers.normalized(request.path, manager)
    return replace(request, path=path, headers=headers)
