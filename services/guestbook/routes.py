"""Routes: `/api` and `/api/messages`, as Spring Data REST serves them."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, HTTPException, Request
from fastapi.routing import APIRoute
from pydantic import AfterValidator
from pydantic_core import from_json, to_json
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from services.common.api import PROBLEMS
from services.guestbook import hal
from services.guestbook.hal import base_url
from services.guestbook.models import Changes, Entry, Message
from services.guestbook.pages import PageRequest, page_request
from services.guestbook.storage import KEYS_KEPT, Storage, turn
from services.guestbook.tables import MAX_KEY

MAX_ID = 2**63 - 1
LARGE = 100  # Messages of a page from which on its answer takes a turn.
LARGE_AT_ONCE = 4  # Each takes some 20 MB until its client has read it.
CHUNK = 64 * 1024  # Bytes of a large answer that are handed to the connection at once.

_PATCH_TYPES = "application/merge-patch+json, application/json"
_JSON_TYPES = "application/json, application/hal+json"
_JSON = re.compile(r"application/(?:[\w.!#$&^-]+\+)?json", re.ASCII)
_TAG = re.compile(r'(?:^|,)\s*((?:W/)?"[^"]*"|\*)\s*(?=,|$)')
# The seconds for which a key is known; it tells clients that keys are known at all.
_RETENTION = {"idempotency-key-retention": str(int(KEYS_KEPT.total_seconds()))}


class HalResponse(JSONResponse):
    """The type of the answers, for the OpenAPI document."""

    media_type = hal.MEDIA_TYPE


class JsonRequest(Request):
    """A request whose JSON may be in UTF-8, UTF-16 or UTF-32, with or without a byte order mark."""

    async def json(self) -> Any:
        body = await self.body()
        try:
            return from_json(body.decode(json.detect_encoding(body)))
        except ValueError as error:
            raise json.JSONDecodeError(str(error), "", 0) from None


class JsonRoute(APIRoute):
    """A route that reads JSON; refuses a body of another type, and a list of changes."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle

        async def handle_json(request: Request) -> Response:
            kind = request.headers.get("content-type", "application/json").partition(";")[0].strip()
            if not _JSON.fullmatch(kind.lower()) or kind.lower() == "application/json-patch+json":
                patch = request.method == "PATCH"
                types = _PATCH_TYPES if patch else _JSON_TYPES
                reason = f"Content-Type {kind!r} is not supported; send {types}"
                headers = {"Accept-Patch": types} if patch else None
                raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, reason, headers)
            json_request = JsonRequest(request.scope, request.receive)
            if not await json_request.body():
                raise HTTPException(HTTPStatus.BAD_REQUEST, "the body is not valid JSON: no body")
            return await handle(json_request)

        return handle_json


async def _storage(request: Request) -> Storage:
    storage: Storage = request.app.state.storage
    return storage


def _tags(lines: list[str] | None) -> list[str] | None:
    return None if lines is None else _TAG.findall(",".join(lines))


def _possible_id(id: int) -> int:
    if id > MAX_ID:
        raise _no_message()
    return id


Stored = Annotated[Storage, Depends(_storage)]
Wanted = Annotated[PageRequest, Depends(page_request)]
Id = Annotated[int, AfterValidator(_possible_id)]
Tags = Annotated[list[str] | None, Header(description="Entity tags, or `*`"), AfterValidator(_tags)]
_key_description = "A post with a key that came before is answered as the first one was"
_key_pattern = rf"^[!-~]{{1,{MAX_KEY}}}$"
Key = Annotated[
    str | None,
    Header(alias="Idempotency-Key", pattern=_key_pattern, description=_key_description),
]

routes = APIRouter(
    prefix="/api",
    route_class=JsonRoute,
    default_response_class=HalResponse,
    responses=PROBLEMS,
)


@routes.get("/messages", response_model=hal.PageDocument)
async def list_messages(request: Request, storage: Stored, wanted: Wanted) -> Response:
    """Returns a page of messages."""
    if wanted.size > LARGE:
        return LargePage(request, storage, wanted)
    return await _page(request, storage, wanted)


@routes.post("/messages", status_code=HTTPStatus.CREATED, response_model=hal.MessageDocument)
async def add_message(request: Request, storage: Stored, entry: Entry, key: Key = None) -> Response:
    """Stores a message."""
    stored, replayed = await storage.add(entry, key)
    document = hal.message(stored, base_url(request))
    headers = {**_RETENTION, "Location": document["_links"]["self"]["href"], "ETag": stored.etag()}
    if replayed:
        headers["Idempotent-Replayed"] = "true"
    return _answer(request, document, headers, HTTPStatus.CREATED)


@routes.get("/messages/{id:int}", response_model=hal.MessageDocument)
async def get_message(request: Request, storage: Stored, id: Id) -> Response:
    """Returns a message."""
    return _item(request, await storage.get(id))


@routes.put("/messages/{id:int}", response_model=hal.MessageDocument)
async def replace_message(
    request: Request, storage: Stored, id: Id, entry: Entry, if_match: Tags = None
) -> Response:
    """Replaces a message; without a timestamp it keeps the one it has."""
    return _item(request, await storage.change(id, entry, if_match))


@routes.patch("/messages/{id:int}", response_model=hal.MessageDocument)
async def change_message(
    request: Request, storage: Stored, id: Id, changes: Changes, if_match: Tags = None
) -> Response:
    """Changes the given fields of a message."""
    return _item(request, await storage.change(id, changes, if_match))


@routes.delete("/messages/{id:int}", status_code=HTTPStatus.NO_CONTENT)
async def delete_message(
    request: Request, storage: Stored, id: Id, if_match: Tags = None
) -> Response:
    """Deletes a message."""
    if not await storage.delete(id, if_match):
        raise _no_message()
    return Response(status_code=HTTPStatus.NO_CONTENT, headers=request.app.state.headers)


@routes.get("", response_model=hal.LinksDocument)
async def root(request: Request) -> Response:
    """Returns the entry of the API."""
    href = f"{base_url(request)}{hal.COLLECTION}{{?page,size,sort}}"
    return _answer(request, {"_links": {"messages": {"href": href, "templated": True}}})


class LargePage(Response):
    """A page that waits for its turn, and keeps it until the client has taken the answer."""

    def __init__(self, request: Request, storage: Storage, wanted: PageRequest) -> None:
        super().__init__()
        self._page = partial(_page, request, storage, wanted)
        self._turns: asyncio.Semaphore = request.app.state.large_answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with turn(self._turns, "other large pages are being sent"):
            page = await self._page()
            chunks = StreamingResponse(_chunks(bytes(page.body)), headers=page.headers)
            await chunks(scope, receive, send)


async def _chunks(body: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(body), CHUNK):
        yield body[at : at + CHUNK]


async def _page(request: Request, storage: Storage, wanted: PageRequest) -> Response:
    page = await storage.page(wanted)
    return _answer(request, hal.page(wanted, page, base_url(request)), _RETENTION)


def _item(request: Request, stored: Message | None) -> Response:
    if stored is None:
        raise _no_message()
    return _answer(request, hal.message(stored, base_url(request)), {"ETag": stored.etag()})


def _no_message() -> HTTPException:
    return HTTPException(HTTPStatus.NOT_FOUND, "There is no such message")


def _answer(
    request: Request,
    document: Mapping[str, object],
    headers: Mapping[str, str] | None = None,
    status: int = HTTPStatus.OK,
) -> Response:
    headers = {**request.app.state.headers, **(headers or {})}
    return Response(to_json(document), status, headers, hal.media_type(request))
