"""The application of the message service."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus
from string import Template
from time import monotonic
from typing import Annotated, Any
from urllib.parse import unquote_to_bytes

from fastapi import Depends, FastAPI, HTTPException, Path, Query, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic_core import to_json
from starlette.convertors import Convertor, register_url_convertor
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from services.common.app import NO_TELEMETRY
from services.common.errors import problem
from services.common.openapi import PROBLEMS, add_docs
from services.message.misbehaviour import Misbehaviour
from services.message.settings import Settings

JSON = "application/json;charset=UTF-8"
HELLO = b"/hello/"
MAX_NAME = 1000
"""Characters of a name."""

_MAX_RAW = MAX_NAME * 12
"""Bytes of a name in a path: four of UTF-8 a character, each written as `%XX`."""

logger = logging.getLogger(__name__)


class Greeting(BaseModel):
    """The answer to `/hello/{name}`."""

    greeting: str
    version: str
    hostname: str


class Misbehavior(BaseModel):
    """The answer to `/hello/{name}` of a pod that misbehaves."""

    misbehavior: str


def create_app(settings: Settings) -> FastAPI:
    """Returns the application; its state, whether it misbehaves, is this process's alone."""
    register_url_convertor("text", _Text())
    pod = Pod(settings)
    app = FastAPI(
        title="message",
        version=settings.demo_version,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=NO_TELEMETRY,
    )
    refusals: dict[int | str, dict[str, Any]] = {**PROBLEMS, "5XX": {"model": Misbehavior}}
    hello = APIRoute("/hello/{name:text}", pod.hello, response_model=Greeting, responses=refusals)
    app.router.routes.append(hello)
    _any_method(app, "/misbehave", pod.misbehave, dependencies=[Depends(_plain_query)])
    _any_method(app, "/behave", pod.behave)
    app.add_middleware(_DirectHello, pod=pod, route=hello)
    add_docs(app)
    return app


class Pod:
    """One replica of the service: it greets, and misbehaves from a call on."""

    def __init__(self, settings: Settings) -> None:
        self._hostname = settings.hostname
        self._version = settings.demo_version
        self._greet = _greeter(settings)
        self._misbehaviour: Misbehaviour | None = None
        self._until = 0.0

    async def hello(self, name: Annotated[str, Path(max_length=MAX_NAME)]) -> Response:
        """Greets the name in the path, or misbehaves."""
        logger.info("Version %s processed message for %s", self._version, name)
        if self._misbehaviour is not None and (status := await self._misbehave()):
            return JSONResponse({"misbehavior": self._hostname}, status, media_type=JSON)
        answer = {
            "greeting": self._greet(name),
            "version": self._version,
            "hostname": self._hostname,
        }
        return Response(to_json(answer), media_type=JSON)

    async def misbehave(self, how: Annotated[Misbehaviour, Query()]) -> Response:
        """Misbehaves from the next greeting on."""
        self._misbehaviour, self._until = how, monotonic() + (how.duration or 0)
        logger.info("'misbehave' has been set to 'true'")
        return PlainTextResponse(f"Next request to /hello/{{name}} will {how}\n")

    async def behave(self) -> Response:
        """Behaves again."""
        self._misbehaviour = None
        logger.info("'misbehave' has been set to 'false'")
        return PlainTextResponse("Next request to /hello/{name} will return 200\n")

    async def _misbehave(self) -> int | None:
        """Returns the status to refuse this request with, None to greet all the same."""
        how = self._misbehaviour
        if how is None:
            return None
        if how.duration is not None and monotonic() > self._until:
            await self.behave()
            return None
        if not how.strikes():
            return None
        logger.info("misbehaving!")
        await asyncio.sleep(how.delay)
        return None if how.status == HTTPStatus.OK else how.status


class _DirectHello:
    """Calls `hello` past FastAPI, which would cost half of the rate."""

    def __init__(self, app: ASGIApp, pod: Pod, route: BaseRoute) -> None:
        self._app = app
        self._pod = pod
        self._route = route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raw_path: bytes = scope.get("raw_path", b"")
        if not raw_path.startswith(HELLO) or scope["method"] != "GET":
            await self._app(scope, receive, send)
            return
        scope["route"] = self._route
        try:
            response = await self._pod.hello(_name(raw_path[len(HELLO) :]))
        except HTTPException as error:
            response = problem(error.status_code, error.detail)
        await response(scope, receive, send)


class _Text(Convertor[str]):
    """A path parameter of any characters: slashes (sent as `%2F`) and line ends, too."""

    regex = r"[\s\S]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


def _any_method(app: FastAPI, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
    """Serves an address by every method, and documents GET."""
    options |= {"response_class": PlainTextResponse, "responses": PROBLEMS}
    app.add_api_route(path, endpoint, methods=["GET"], **options)
    route = APIRoute(path, endpoint, include_in_schema=False, **options)
    route.methods = set()  # The empty set matches every method, not only OpenAPI's.
    app.router.routes.append(route)


def _plain_query(request: Request) -> None:
    """Refuses parameters that would be ignored: in a body, or given twice."""
    names = [name for name, _ in request.query_params.multi_items()]
    if len(set(names)) < len(names):
        raise HTTPException(HTTPStatus.BAD_REQUEST, "a parameter is given twice")
    if request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers:
        detail = "parameters belong into the query, as in /misbehave?status=500, not into a body"
        raise HTTPException(HTTPStatus.BAD_REQUEST, detail)


def _name(raw: bytes) -> str:
    """Returns the name in a path.

    Raises an HTTP error: 404 for a further path segment, 414 for a name over MAX_NAME, 400 for
    bytes that are not UTF-8.
    """
    if b"/" in raw:
        detail = "a name is one path segment; a slash in it is written %2F"
        raise HTTPException(HTTPStatus.NOT_FOUND, detail)
    if len(raw) <= _MAX_RAW:
        try:
            name = (unquote_to_bytes(raw) if b"%" in raw else raw).decode()
        except UnicodeDecodeError:
            raise HTTPException(HTTPStatus.BAD_REQUEST, "the name is not UTF-8") from None
        if len(name) <= MAX_NAME:
            return name
    detail = f"the name is over {MAX_NAME} characters long"
    raise HTTPException(HTTPStatus.REQUEST_URI_TOO_LONG, detail)


def _greeter(settings: Settings) -> Callable[[str], str]:
    """Returns the template of the greeting, filled in but for the name."""
    name = "\0"  # No environment variable can hold it.
    parts = (
        Template(settings.greeting)
        .safe_substitute(name=name, hostname=settings.hostname, version=settings.demo_version)
        .split(name)
    )
    return lambda value: value.join(parts)
