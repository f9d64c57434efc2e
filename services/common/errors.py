"""Every error answer is JSON with a reason (RFC 9457, `application/problem+json`)."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Match


class ProblemResponse(JSONResponse):
    media_type = "application/problem+json"


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> ProblemResponse:
    """An error answer: the status, its name, and what was wrong in words for a client."""
    content = {"title": _phrase(status), "status": status, "detail": detail}
    return ProblemResponse(content, status, headers)


def add_error_handlers(app: FastAPI) -> None:
    """Turn whatever goes wrong in the application into a problem answer."""

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        headers = dict(error.headers or {})
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = ", ".join(sorted(_allowed_methods(app, request)))
        detail = error.detail
        if detail == _phrase(error.status_code):
            detail = f"{request.method} {request.url.path}: {detail.lower()}"
        return problem(error.status_code, detail, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return problem(HTTPStatus.BAD_REQUEST, "; ".join(map(_reason, error.errors())))

    @app.exception_handler(Exception)
    async def unexpected(_request: Request, _error: Exception) -> Response:
        # The log has the traceback; the client is told nothing of our insides.
        return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "the service failed; see its log")


def _allowed_methods(app: FastAPI, request: Request) -> set[str]:
    """All methods of all routes with the request's path (a router names only the first route's)."""
    methods: set[str] = set()
    for route in app.routes:
        if route.matches(request.scope)[0] is not Match.NONE:
            methods |= getattr(route, "methods", None) or set()
    return methods | {"HEAD"} if "GET" in methods else methods


def _reason(error: Mapping[str, Any]) -> str:
    location = error["loc"]
    where = ".".join(str(part) for part in location[1:]) or str(location[0])
    if error["type"] == "json_invalid":
        return "the body is not valid JSON"
    return f"{where}: {error['msg'].removeprefix('Value error, ')}"


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
