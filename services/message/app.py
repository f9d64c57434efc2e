"""The message service: it greets, and misbehaves when told to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from string import Template
from time import monotonic
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from fastapi.routing import APIRoute
from pydantic_core import to_json
from starlette.convertors import register_url_convertor
from starlette.types import Receive, Scope, Send

from services.common.telemetry import for_fastapi
from services.message import names
from services.message.misbehaviour import Misbehaviour
from services.message.settings import Settings

PREFIX = b"/hello/"
JSON = "application/json"

logger = logging.getLogger(__name__)


class _Plain(APIRoute):
    """A route that hands the request to its function: nothing to inject, no body, no model.

    Twice the requests a second of the full machinery.
    """

    endpoint: Callable[[Request], Awaitable[Response]]

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        self.app = self._answer

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self.endpoint(Request(scope))
        await response(scope, receive, send)


def create_app(settings: Settings) -> FastAPI:
    """The application; its state, whether it misbehaves, is this process's alone."""
    register_url_convertor("any", names.AnyText())
    app = FastAPI(
        title="message",
        version=settings.demo_version,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=for_fastapi(settings),
    )
    greet = _greeter(settings)
    hostname, version = settings.hostname, settings.demo_version
    misbehaviour: Misbehaviour | None = None
    until = 0.0

    async def hello(request: Request) -> Response:
        """Greet the name in the path, or misbehave."""
        name = names.decode(request.scope["raw_path"][len(PREFIX) :])
        logger.info("Version %s processed message for %s", version, name)
        if misbehaviour is not None and (refusal := await misbehave_now()):
            return refusal
        answer = {"greeting": greet(name), "version": version, "hostname": hostname}
        return Response(to_json(answer), media_type=JSON)

    async def misbehave_now() -> Response | None:
        nonlocal misbehaviour
        current = misbehaviour
        if current is None:
            return None
        if current.duration is not None and monotonic() > until:
            misbehaviour = None
            logger.info("'misbehave' has been set to 'false'")
            return None
        if not current.strikes():
            return None
        logger.info("misbehaving!")
        await asyncio.sleep(current.delay)
        if current.status == HTTPStatus.OK:
            return None
        return JSONResponse({"misbehavior": hostname}, current.status)

    async def misbehave(how: Annotated[Misbehaviour, Query()]) -> PlainTextResponse:
        """Misbehave from the next greeting on."""
        nonlocal misbehaviour, until
        misbehaviour, until = how, monotonic() + (how.duration or 0)
        logger.info("'misbehave' has been set to 'true'")
        return PlainTextResponse(f"Next request to /hello/{{name}} will {how}\n")

    async def behave() -> PlainTextResponse:
        """Behave again."""
        nonlocal misbehaviour
        misbehaviour = None
        logger.info("'misbehave' has been set to 'false'")
        return PlainTextResponse("Next request to /hello/{name} will return 200\n")

    app.router.routes.append(
        _Plain("/hello/{name:any}", hello, methods=["GET"], openapi_extra=_HELLO)
    )
    for path, switch in (("/misbehave", misbehave), ("/behave", behave)):
        app.add_api_route(path, switch, methods=["GET"])
        any_method = APIRoute(path, switch, include_in_schema=False)
        any_method.methods = set()  # An empty set matches every method, not only OpenAPI's.
        app.router.routes.append(any_method)
    return app


def _greeter(settings: Settings) -> Callable[[str], str]:
    """Fill in the template once, but for the name, whose own dollar signs mean nothing."""
    name = "\0"  # No environment variable can hold it.
    parts = (
        Template(settings.greeting)
        .safe_substitute(name=name, hostname=settings.hostname, version=settings.demo_version)
        .split(name)
    )
    return lambda value: value.join(parts)


_HELLO = {
    "parameters": [
        {
            "name": "name",
            "in": "path",
            "required": True,
            "schema": {"type": "string", "minLength": 1, "maxLength": names.MAX_LENGTH},
        }
    ],
}
