"""The application of the message service: greetings, and the switches of misbehaviour."""

import asyncio
import logging
from http import HTTPStatus
from string import Template
from time import monotonic
from typing import Annotated
from urllib.parse import unquote_to_bytes

from fastapi import HTTPException, Path, Query, Request
from fastapi.responses import PlainTextResponse, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic_core import to_json
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from services.common.api import PROBLEMS, api
from services.common.app import instrument
from services.common.errors import problem
from services.message.misbehaviour import Misbehaviour
from services.message.settings import Settings

HELLO = b"/hello/"
MAX_NAME = 1000
"""Characters of a name; in a path each takes up to twelve bytes (four of UTF-8, as `%XX`)."""

logger = logging.getLogger(__name__)


class Greeting(BaseModel):
    """The answer to `/hello/{name}`."""

    greeting: str
    version: str
    hostname: str


class Misbehavior(BaseModel):
    """The answer to `/hello/{name}` of a pod that misbehaves."""

    misbehavior: str


def create_app(settings: Settings) -> ASGIApp:
    """Returns the application; its state, whether it misbehaves, is this process's alone."""
    pod = Pod(settings)
    app = api("message", settings)
    refusals = {code: {"model": Misbehavior, **error} for code, error in PROBLEMS.items()}
    hello = APIRoute("/hello/{name:path}", pod.hello, response_model=Greeting, responses=refusals)
    app.routes.append(hello)
    app.add_middleware(_direct_hello, pod=pod, route=hello)
    for path, switch in (("/misbehave", pod.misbehave), ("/behave", pod.behave)):
        app.get(path, response_class=PlainTextResponse, responses=PROBLEMS)(switch)
        other = APIRoute(path, switch, include_in_schema=False)
        other.methods = set()  # The empty set matches every method, not only OpenAPI's.
        app.routes.append(other)
    return instrument(app, settings)


class Pod:
    """One replica of the service: it greets, and misbehaves from a call on."""

    def __init__(self, settings: Settings) -> None:
        self._identity = {"version": settings.demo_version, "hostname": settings.hostname}
        # The template, filled in but for the name; no environment variable can hold "\0".
        template = Template(settings.greeting)
        self._greeting = template.safe_substitute(self._identity, name="\0").split("\0")
        self._misbehaviour: Misbehaviour | None = None
        self._until = 0.0

    async def hello(self, name: Annotated[str, Path(max_length=MAX_NAME)]) -> Response:
        """Greets the name in the path, or misbehaves."""
        logger.info("Version %s processed message for %s", self._identity["version"], name)
        if self._misbehaviour is not None and (status := await self._misbehave()):
            return _json({"misbehavior": self._identity["hostname"]}, status)
        return _json({"greeting": name.join(self._greeting), **self._identity})

    async def misbehave(self, request: Request, how: Annotated[Misbehaviour, Query()]) -> Response:
        """Misbehaves from the next greeting on."""
        _refuse_ignored_parameters(request)
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
        if how is None or not how.strikes():
            return None
        if how.duration is not None and monotonic() > self._until:
            await self.behave()
            return None
        logger.info("misbehaving!")
        await asyncio.sleep(how.delay)
        return None if how.status == HTTPStatus.OK else how.status


def _refuse_ignored_parameters(request: Request) -> None:
    """Raises HTTPException 400 for parameters in a body or given twice."""
    names = [name for name, _ in request.query_params.multi_items()]
    if len(set(names)) < len(names):
        raise HTTPException(HTTPStatus.BAD_REQUEST, "a parameter is given twice")
    if request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers:
        detail = "parameters belong into the query, as in /misbehave?status=500, not into a body"
        raise HTTPException(HTTPStatus.BAD_REQUEST, detail)


def _direct_hello(app: ASGIApp, pod: Pod, route: BaseRoute) -> ASGIApp:
    """Calls `hello` past FastAPI, which would cost half of the rate."""

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        raw_path: bytes = scope.get("raw_path", b"")
        if not raw_path.startswith(HELLO) or scope["method"] != "GET":
            await app(scope, receive, send)
            return
        scope["route"] = route
        try:
            response = await pod.hello(_name(raw_path[len(HELLO) :]))
        except HTTPException as error:
            response = problem(error.status_code, error.detail)
        await response(scope, receive, send)

    return handle


def _name(raw: bytes) -> str:
    """Returns the name in a path; raises HTTPException 400, 404 and 414."""
    if b"/" in raw or not raw:
        detail = "a name is one path segment; a slash in it is written %2F"
        raise HTTPException(HTTPStatus.NOT_FOUND, detail)
    try:
        name = unquote_to_bytes(raw).decode() if len(raw) <= 12 * MAX_NAME else None
    except UnicodeDecodeError:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "the name is not UTF-8") from None
    if name is None or len(name) > MAX_NAME:
        detail = f"the name is over {MAX_NAME} characters long"
        raise HTTPException(HTTPStatus.REQUEST_URI_TOO_LONG, detail)
    return name


def _json(content: dict[str, str], status: int = HTTPStatus.OK) -> Response:
    return Response(to_json(content), status, media_type="application/json;charset=UTF-8")
