"""The layers around every application: error answers, traces, metrics, access log, limits."""

import asyncio
import logging
from collections.abc import Awaitable
from http import HTTPStatus
from time import perf_counter

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.common import logs, telemetry
from services.common.context import current_request, new_request
from services.common.errors import FAILED, ErrorAnswer, add_error_handlers, problem
from services.common.metrics import UNMATCHED, record_request
from services.common.settings import CommonSettings

logger = logging.getLogger(__name__)

MAX_BODY = 64 * 1024
"""Bytes of a request's body."""

LONGEST_TARGET = 1000
"""Characters of a path and query in the access log."""

CLIENT_CLOSED = 499
"""Status in log and metrics of a request whose client closed the connection (nginx's)."""


def instrument(
    app: Starlette,
    settings: CommonSettings,
    *,
    answer: ErrorAnswer = problem,
    max_body: int = MAX_BODY,
) -> ASGIApp:
    """Adds error answers, traces, metrics, the access log and limits to an application."""
    telemetry.configure(settings)
    add_error_handlers(app, answer)
    limited = _limit_body(app, max_body)
    return _observe(telemetry.server_spans(limited), answer)


def _observe(app: ASGIApp, answer: ErrorAnswer) -> ASGIApp:
    """Gives each request its context, and logs, counts and times it when it is answered.

    An exception is logged and answered here; it ends here, as the server closes the connection of
    a request that raised.
    """
    access = logging.getLogger(logs.ACCESS)

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        started = perf_counter()
        method: str = scope["method"]
        scope = _normal(scope)
        request = new_request(scope["headers"])
        current_request.set(request)

        def note_status(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                request.status = message["status"]
            return send(message)

        refusal: tuple[int, str] | None = None
        try:
            await app(scope, receive, note_status)
        except asyncio.CancelledError:
            # The server cancels a request that is still running when the shutdown grace ends.
            refusal = (503, "the service is stopping and could not finish in time")
        except Exception:
            logger.exception("%s %s failed", method, scope["path"])
            refusal = (500, FAILED)
        if refusal and request.status is None:
            await answer(*refusal, None)(scope, receive, note_status)
        seconds = perf_counter() - started
        status = request.status or 500
        record_request(method, _route(scope), status, seconds)
        access.info(logs.ACCESS_LINE, method, _target(scope), status, round(seconds * 1000, 3))

    return handle


def _limit_body(app: ASGIApp, limit: int) -> ASGIApp:
    """Refuses a body of more than `limit` bytes, declared or not, when it is read: 413.

    The client that leaves before its body is whole gets a status as well, for log and metrics.
    """

    def handle(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http" or scope["method"] == "GET":
            return app(scope, receive, send)
        size = 0
        declared = int(dict(scope["headers"]).get(b"content-length", 0))

        async def receive_some() -> Message:
            nonlocal size
            if declared <= limit:
                message = await receive()
                if message["type"] == "http.disconnect" and current_request.get().status is None:
                    raise HTTPException(CLIENT_CLOSED, "the client closed the connection")
                size += len(message.get("body", b""))
                if size <= limit:
                    return message
            detail = f"the body is over {limit} bytes long"
            # The rest of the body is not read, so the connection cannot be used again.
            headers = {"Connection": "close"}
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail, headers)

        return app(scope, receive_some, send)

    return handle


def _normal(scope: Scope) -> Scope:
    """Makes HEAD a GET, of which the server leaves the body out, and drops a slash at the end."""
    if scope["method"] == "HEAD":
        scope = {**scope, "method": "GET"}
    raw_path: bytes = scope["raw_path"]
    if raw_path[-1:] == b"/" != raw_path:
        scope["raw_path"] = raw_path[:-1]
        scope["path"] = scope["path"][:-1]
    return scope


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
