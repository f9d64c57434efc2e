"""Error answers in JSON with a reason (RFC 9457, `application/problem+json`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.client import responses
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match

from services.common.context import current_request

FAILED = "the service failed; see its log"


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

ErrorAnswer = Callable[[int, str, Mapping[str, str] | None], Response]
"""Makes the answer to an error of its status, its reason and further headers."""


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """Returns a problem document: title, status, reason and the id of the request."""
    content: dict[str, Any] = {"title": phrase(status), "status": status, "detail": detail}
    if request := current_request.get(None):
        content["request_id"] = request.request_id
    return JSONResponse(content, status, headers, media_type="application/problem+json")


def phrase(status: int) -> str:
    """Returns the name of a status."""
    return responses.get(status, "Error")


def add_error_handlers(app: Starlette, answer: ErrorAnswer) -> None:
    """Answers errors of routing, of the routes and of validation with their reason."""

    async def http_error(request: Request, error: HTTPException) -> Response:
        headers = dict(error.headers or {})
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = ", ".join(sorted(_allowed_methods(app, request)))
        detail = error.detail
        if detail == phrase(error.status_code):
            detail = f"{request.method} {request.url.path}: {detail.lower()}"
        return answer(error.status_code, detail, headers)

    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return answer(HTTPStatus.BAD_REQUEST, "; ".join(map(_reason, error.errors())), None)

    async def unexpected(_request: Request, _error: Exception) -> Response:
        return answer(HTTPStatus.INTERNAL_SERVER_ERROR, FAILED, None)  # The log has the traceback.

    app.add_exception_handler(HTTPException, http_error)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, invalid)  # type: ignore[arg-type]
    app.add_exception_handler(Exception, unexpected)


def _allowed_methods(app: Starlette, request: Request) -> set[str]:
    """Returns the methods of all routes with the request's path; a router names one route's."""
    methods: set[str] = set()
    for context in iter_route_contexts(app.routes):
        route = context.original_route
        if route.matches(request.scope)[0] is not Match.NONE:
            methods |= getattr(route, "methods", None) or set()
    return methods | {"HEAD"} if "GET" in methods else methods


def _reason(error: Mapping[str, Any]) -> str:
    """Returns what pydantic found wrong, in words for a client."""
    if error["type"] == "json_invalid":
        return f"the body is not valid JSON ({error['ctx']['error']})"
    location = [str(part) for part in error["loc"] if part not in ("body", "query", "path")]
    if not location:
        return "the body must be a JSON object"
    wrong = "missing" if error["type"] == "missing" else error["msg"]
    return f"{'.'.join(location)}: {wrong.removeprefix('Value error, ')}"
