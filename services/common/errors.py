"""Error answers in JSON with a reason (RFC 9457, `application/problem+json`)."""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.client import responses
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match

from services.common.context import current_request

FAILED = "the service failed; see its log"

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
    """Answers errors of routing and of the routes with their reason."""

    async def http_error(request: Request, error: HTTPException) -> Response:
        headers = dict(error.headers or {})
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = ", ".join(sorted(_allowed_methods(app, request)))
        detail = error.detail
        if detail == phrase(error.status_code):
            detail = f"{request.method} {request.url.path}: {detail.lower()}"
        return answer(error.status_code, detail, headers)

    async def unexpected(_request: Request, _error: Exception) -> Response:
        return answer(HTTPStatus.INTERNAL_SERVER_ERROR, FAILED, None)  # The log has the traceback.

    app.add_exception_handler(HTTPException, http_error)  # type: ignore[arg-type]
    app.add_exception_handler(Exception, unexpected)


def _allowed_methods(app: Starlette, request: Request) -> set[str]:
    """Returns the methods of all routes with the request's path; a router names one route's."""
    methods: set[str] = set()
    for route in app.routes:
        if route.matches(request.scope)[0] is not Match.NONE:
            methods |= getattr(route, "methods", None) or set()
    return methods | {"HEAD"} if "GET" in methods else methods
