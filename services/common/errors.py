"""Error answers in JSON with a reason (RFC 9457, `application/problem+json`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Match

from services.common.context import current_request

FAILED = "the service failed; see its log"


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
"""For `responses=` of a route of FastAPI."""

ErrorAnswer = Callable[[int, str, Mapping[str, str] | None], Response]
"""Makes the answer to an error of its status, its reason and further headers."""


class ProblemResponse(JSONResponse):
    media_type = "application/problem+json"


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """Returns a problem document: title, status, reason and the id of the request."""
    content: dict[str, Any] = {"title": phrase(status), "status": status, "detail": detail}
    if request := current_request.get(None):
        content["request_id"] = request.request_id
    return ProblemResponse(content, status, headers)


def add_error_handlers(app: Starlette, answer: ErrorAnswer) -> None:
    """Answers errors of routing, of the routes and of validation with their reason."""

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101
        headers = dict(error.headers or {})
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = ", ".join(sorted(_allowed_methods(app.routes, request)))
        detail = error.detail
        if detail == phrase(error.status_code):
            detail = f"{request.method} {request.url.path}: {detail.lower()}"
        return answer(error.status_code, detail, headers)

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101
        return answer(HTTPStatus.BAD_REQUEST, reasons(error.errors()), None)

    async def unexpected(_request: Request, _error: Exception) -> Response:
        return answer(HTTPStatus.INTERNAL_SERVER_ERROR, FAILED, None)  # The log has the traceback.

    app.add_exception_handler(Exception, unexpected)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(RequestValidationError, invalid)


def reasons(errors: Sequence[Any]) -> str:
    """Returns all that pydantic found wrong, in words for a client."""
    return "; ".join(map(_reason, errors))


def phrase(status: int) -> str:
    """Returns the name of a status."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def _allowed_methods(routes: list[BaseRoute], request: Request) -> set[str]:
    """Returns the methods of all routes with the request's path; a router names one route's."""
    methods: set[str] = set()
    for context in iter_route_contexts(routes):
        route = context.original_route
        if route.matches(request.scope)[0] is not Match.NONE:
            methods |= getattr(route, "methods", None) or set()
    return methods | {"HEAD"} if "GET" in methods else methods


def _reason(error: Mapping[str, Any]) -> str:
    if error["type"] == "json_invalid":
        why = error.get("ctx", {}).get("error", error["msg"])
        return f"the body is not valid JSON ({why})"
    location = [str(part) for part in error["loc"] if part not in ("body", "query", "path")]
    if not location:
        return "the body must be a JSON object"
    if error["type"] == "missing":
        return f"{'.'.join(location)}: missing"
    return f"{'.'.join(location)}: {error['msg'].removeprefix('Value error, ')}"
