"""Pure ASGI middlewares around every application: functions from an application to one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from http import HTTPStatus
from time import perf_counter

from starlette.exceptions import HTTPException
from starlette.routing import Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.common import logs, telemetry
from services.common.context import current_request, new_request
from services.common.errors import FAILED, ErrorAnswer
from services.common.metrics import http_recorder

logger = logging.getLogger(__name__)

LONGEST_TARGET = 1000
"""Characters of a path and query in the access log."""

CLIENT_CLOSED = 499
"""Status in log and metrics of a request whose client closed the connection (nginx's)."""

UNMATCHED = "unmatched"
"""Route label of a path without a route: a client must not be able to make new series."""


def observe(app: ASGIApp, answer: ErrorAnswer) -> ASGIApp:
    """Gives each request its context, and logs, counts and times it when it is answered.

    An exception is logged and answered here; it ends here, as the server closes the connection of
    a request that raised.
    """
    record = http_recorder()
    access = logging.getLogger(logs.ACCESS)
    tracing = telemetry.tracing_enabled()

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        started = perf_counter()
        request = new_request(scope["method"], scope["headers"])
        current_request.set(request)

        def note_status(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                request.status = message["status"]
                request.answered = True
                if tracing:
                    request.span_trace_id = telemetry.trace_id()
            return send(message)

        refusal: tuple[int, str] | None = None
        try:
            await app(scope, receive, note_status)
        except asyncio.CancelledError:
            # The server cancels a request that is still running when the shutdown grace ends.
            refusal = (503, "the service is stopping and could not finish in time")
        except Exception:
            logger.exception("%s %s failed", request.method, scope["path"])
            refusal = (500, FAILED)
        if refusal and not request.answered:
            await answer(*refusal, None)(scope, receive, note_status)
        seconds = perf_counter() - started
        record(request.method, _route(scope), request.status, seconds)
        access.info(
            logs.ACCESS_LINE, request.method, _target(scope), request.status, seconds * 1000
        )

    return handle


def head(app: ASGIApp) -> ASGIApp:
    """Answers HEAD wherever GET is answered: the same headers, no body."""

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        def without_body(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            return send(message)

        as_get = {**scope, "method": "GET"}
        try:
            await app(as_get, receive, without_body)
        finally:
            scope["route"] = as_get.get("route")

    def choose(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        return (handle if scope["method"] == "HEAD" else app)(scope, receive, send)

    return choose


def without_final_slash(app: ASGIApp) -> ASGIApp:
    """Serves a path with a slash at its end as the one without it, with no redirect."""

    def handle(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        raw_path: bytes = scope["raw_path"]
        if raw_path[-1:] == b"/" != raw_path:
            scope["raw_path"] = raw_path[:-1]
            scope["path"] = scope["path"][:-1]
        return app(scope, receive, send)

    return handle


def limit_body(app: ASGIApp, limit: int) -> ASGIApp:
    """Refuses a body of more than `limit` bytes, declared or not, when it is read: 413.

    The client that leaves before its body is whole gets a status as well, for log and metrics.
    """

    def refuse() -> None:
        # The rest of the body is not read, so the connection cannot be used again.
        raise HTTPException(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"the body is over {limit} bytes long",
            {"Connection": "close"},
        )

    def handle(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["method"] == "GET":
            return app(scope, receive, send)
        lengths = [int(value) for name, value in scope["headers"] if name == b"content-length"]
        declared = lengths[0] if lengths else 0
        size = 0

        async def receive_some() -> Message:
            nonlocal size
            if declared > limit:
                refuse()
            message = await receive()
            if message["type"] == "http.disconnect" and not current_request.get().answered:
                raise HTTPException(CLIENT_CLOSED, "the client closed the connection")
            size += len(message.get("body", b""))
            if size > limit:
                refuse()
            return message

        return app(scope, receive_some, send)

    return handle


def _target(scope: Scope) -> str:
    target: str = scope["raw_path"].decode("latin-1")
    if query := scope["query_string"]:
        target += "?" + query.decode("latin-1")
    return target if len(target) <= LONGEST_TARGET else target[:LONGEST_TARGET] + "…"


def _route(scope: Scope) -> str:
    """Returns the template of the route that matched, which routing leaves in the scope."""
    route = scope.get("route")
    if isinstance(route, Mount):
        return f"{route.path}/{{path}}"
    return str(route.path_format) if route is not None else UNMATCHED
