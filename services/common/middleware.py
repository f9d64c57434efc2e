"""Pure ASGI middlewares: each a function from an application to an application.

They see HTTP requests only. `MIDDLEWARES` is the order, outermost first.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from time import perf_counter
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.common import logs, telemetry
from services.common.context import current_request, new_request
from services.common.errors import problem
from services.common.metrics import UNMATCHED, http_recorder

logger = logging.getLogger(__name__)

LONGEST_TARGET = 1000
"""Characters of a path and query that the access log shows."""


def request_context(app: ASGIApp) -> ASGIApp:
    """Remember the request and the status of its answer for the layers within."""

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        request = new_request(scope["method"], scope["headers"])
        current_request.set(request)

        def note_status(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                request.status = message["status"]
                request.answered = True
                if telemetry.tracing_enabled():
                    request.span_trace_id = telemetry.trace_id()
            return send(message)

        await app(scope, receive, note_status)

    return handle


def head(app: ASGIApp) -> ASGIApp:
    """Answer HEAD wherever GET is answered: the same headers, no body."""

    def handle(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["method"] != "HEAD":
            return app(scope, receive, send)

        def without_body(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            return send(message)

        return app({**scope, "method": "GET"}, receive, without_body)

    return handle


def observe(app: ASGIApp) -> ASGIApp:
    """Count and time the request under its route template, and write its line.

    Both when its answer is complete.
    """
    record = http_recorder()
    access = logging.getLogger(logs.ACCESS)

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        started = perf_counter()
        try:
            await app(scope, receive, send)
        finally:
            seconds = perf_counter() - started
            request = current_request.get()
            record(request.method, _route(scope), request.status, seconds)
            access.info(
                logs.ACCESS_LINE, request.method, _target(scope), request.status, seconds * 1000
            )

    return handle


def failures(app: ASGIApp) -> ASGIApp:
    """Log what the application raises, and answer for it where it has not.

    A connection that has had a whole answer stays usable: the exception ends here, for the server
    closes the connection of a request that raised.
    """

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except asyncio.CancelledError:
            # The server cancels a request that is still running when the shutdown grace ends.
            refusal = problem(503, "the service is stopping and could not finish in time")
        except Exception:
            logger.exception("%s %s failed", scope["method"], scope["path"])
            refusal = problem(500, "the service failed; see its log")
        else:
            return
        if not current_request.get().answered:
            await refusal(scope, receive, send)

    return handle


def declared_length(app: ASGIApp, limit: int) -> ASGIApp:
    """Refuse a body that is declared longer than `limit` bytes before any of it is read.

    One that turns out longer is FastAPI's to refuse (`max_body_size`).
    """

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        for name, value in scope["headers"]:
            if name == b"content-length" and int(value) > limit:
                refusal = problem(413, f"the body is over {limit} bytes long")
                await refusal(scope, receive, send)
                return
        await app(scope, receive, send)

    return handle


MIDDLEWARES = (
    request_context,
    head,
    observe,
    failures,
)


def _target(scope: Scope) -> str:
    target: str = scope["raw_path"].decode("latin-1")
    if query := scope["query_string"]:
        target += "?" + query.decode("latin-1")
    return target if len(target) <= LONGEST_TARGET else target[:LONGEST_TARGET] + "…"


def _route(scope: Scope) -> str:
    """The template of the route that matched, which routing leaves in the scope."""
    route: Any = scope.get("route")
    if route is not None:
        return str(route.path_format)
    mounted = scope.get("root_path", "")
    return f"{mounted}/{{path}}" if mounted and "endpoint" in scope else UNMATCHED
