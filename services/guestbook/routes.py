"""Routes: `/api/messages`, as Spring Data REST serves it, and the descriptions of the API."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Query, Request
from fastapi.routing import APIRoute
from pydantic_core import from_json, to_json
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from services.common.errors import PROBLEMS
from services.guestbook import hal
from services.guestbook.database import DatabaseUnavailableError
from services.guestbook.models import (
    Changes,
    Entry,
    LinksDocument,
    Message,
    MessageDocument,
    PageDocument,
)
from services.guestbook.pages import PageRequest, page_request
from services.guestbook.settings import Settings
from services.guestbook.storage import KEYS_KEPT, Storage
from services.guestbook.tables import MAX_KEY

MAX_ID = 2**63 - 1
LARGE = 100
"""Messages of a page from which on its answer takes a turn."""
LARGE_AT_ONCE = 4
"""Large answers at the same time; each takes some 20 MB until its client has read it."""
TURN_TIMEOUT = 3.0
"""Seconds a large page waits for its turn."""
CHUNK = 64 * 1024
"""Bytes of a large answer that are handed to the connection at once."""

_PATCH_TYPES = "application/merge-patch+json, application/json"
_JSON_TYPES = "application/json, application/hal+json"
_JSON = re.compile(r"application/(?:[\w.!#$&^-]+\+)?json", re.ASCII)
_TAG = re.compile(r'(?:W/)?"[^"]*"|\*')
_RETENTION = {"idempotency-key-retention": str(int(KEYS_KEPT.total_seconds()))}
"""For how many seconds a key is known; it tells clients that keys are known at all."""


class HalResponse(JSONResponse):
    media_type = hal.MEDIA_TYPE


class _JsonRequest(Request):
    """A request whose JSON may be in UTF-8, UTF-16 or UTF-32, with or without a byte order mark."""

    async def json(self) -> Any:
        body = await self.body()
        try:
            return from_json(body.decode(json.detect_encoding(body)))
        except ValueError as error:
            raise json.JSONDecodeError(str(error), "", 0) from None


class _JsonRoute(APIRoute):
    """A route whose body is JSON of any name; 415 for another type."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle

        async def handle_json(request: Request) -> Response:
            _check_type(request)
            json_request = _JsonRequest(request.scope, request.receive)
            if not await json_request.body():
                raise HTTPException(HTTPStatus.BAD_REQUEST, "the body is not valid JSON: no body")
            return await handle(json_request)

        return handle_json


def _check_type(request: Request) -> None:
    """Refuses a body that is no JSON, and a JSON Patch, which is a list of operations."""
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip()
    if not _JSON.fullmatch(kind.lower()) or kind.lower() == "application/json-patch+json":
        types = _PATCH_TYPES if request.method == "PATCH" else _JSON_TYPES
        raise HTTPException(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"Content-Type {kind!r} is not supported; send {types}",
            {"Accept-Patch": types} if request.method == "PATCH" else None,
        )


@dataclass(frozen=True, slots=True)
class _Resources:
    """The objects that the routes work with, made once for the process."""

    storage: Storage
    headers: dict[str, str]
    """Headers of every answer."""
    large: asyncio.Semaphore


def add_routes(app: FastAPI, settings: Settings, storage: Storage) -> None:
    """Serves the messages of a storage."""
    headers = {
        "x-guestbook-version": settings.demo_version,
        "x-guestbook-hostname": settings.hostname,
    }
    app.state.resources = _Resources(storage, headers, asyncio.Semaphore(LARGE_AT_ONCE))
    app.include_router(messages)
    app.include_router(descriptions)


async def _resources(request: Request) -> _Resources:
    resources: _Resources = request.app.state.resources
    return resources


async def _page_request(
    page: Annotated[str | None, Query(description="Number of the page, from 0")] = None,
    size: Annotated[str | None, Query(description="Messages on a page, 1 to 1000; else 20")] = None,
    sort: Annotated[
        list[str] | None,
        Query(description="`field,asc` or `field,desc` of id, username, timestamp"),
    ] = None,
) -> PageRequest:
    try:
        return page_request(page, size, sort or [])
    except ValueError as error:
        raise HTTPException(HTTPStatus.BAD_REQUEST, str(error)) from None


async def _tags(
    if_match: Annotated[list[str] | None, Header(description="Entity tags, or `*`")] = None,
) -> list[str] | None:
    return None if if_match is None else _TAG.findall(",".join(if_match))


Resources = Annotated[_Resources, Depends(_resources)]
Tags = Annotated[list[str] | None, Depends(_tags)]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=rf"^[!-~]{{1,{MAX_KEY}}}$",
        description="A post with a key that came before is answered as the first one was",
    ),
]

messages = APIRouter(
    prefix=hal.COLLECTION,
    route_class=_JsonRoute,
    default_response_class=HalResponse,
    responses=PROBLEMS,
)


@messages.get("", response_model=PageDocument)
async def list_messages(
    request: Request, resources: Resources, wanted: Annotated[PageRequest, Depends(_page_request)]
) -> Response:
    """Returns a page of messages."""
    if wanted.size <= LARGE:
        return await _page(request, resources, wanted)
    try:
        async with asyncio.timeout(TURN_TIMEOUT):
            await resources.large.acquire()
    except TimeoutError:
        raise DatabaseUnavailableError("other large pages are being sent") from None
    try:
        return _LargeAnswer(await _page(request, resources, wanted), resources.large)
    except BaseException:
        resources.large.release()
        raise


@messages.post("", status_code=HTTPStatus.CREATED, response_model=MessageDocument)
async def add_message(
    request: Request, resources: Resources, entry: Entry, key: Key = None
) -> Response:
    """Stores a message."""
    added = await resources.storage.add(entry, key)
    document = hal.message(added.message, _base(request))
    headers = {**_RETENTION, "Location": document["_links"]["self"]["href"]}
    if added.replayed:
        headers["Idempotent-Replayed"] = "true"
    headers["ETag"] = added.message.etag()
    return _answer(request, resources, document, HTTPStatus.CREATED, headers)


@messages.get("/{id:int}", response_model=MessageDocument)
async def get_message(request: Request, resources: Resources, id: int) -> Response:
    """Returns a message."""
    stored = await resources.storage.get(id) if id <= MAX_ID else None
    return _item(request, resources, stored)


@messages.put("/{id:int}", response_model=MessageDocument)
async def replace_message(
    request: Request, resources: Resources, id: int, entry: Entry, tags: Tags
) -> Response:
    """Replaces a message; without a timestamp it keeps the one it has."""
    return await _change(request, resources, id, entry, tags)


@messages.patch("/{id:int}", response_model=MessageDocument)
async def change_message(
    request: Request, resources: Resources, id: int, changes: Changes, tags: Tags
) -> Response:
    """Changes the given fields of a message."""
    return await _change(request, resources, id, changes, tags)


@messages.delete("/{id:int}", status_code=HTTPStatus.NO_CONTENT)
async def delete_message(resources: Resources, id: int, tags: Tags) -> Response:
    """Deletes a message."""
    if id > MAX_ID or not await resources.storage.delete(id, tags):
        raise HTTPException(HTTPStatus.NOT_FOUND, "There is no such message")
    return Response(status_code=HTTPStatus.NO_CONTENT, headers=resources.headers)


@messages.options("", include_in_schema=False)
async def collection_options() -> Response:
    """Names the methods of the collection."""
    return Response(headers={"Allow": "GET, HEAD, OPTIONS, POST"})


@messages.options("/{id:int}", include_in_schema=False)
async def item_options() -> Response:
    """Names the methods of a message."""
    allow = "DELETE, GET, HEAD, OPTIONS, PATCH, PUT"
    return Response(headers={"Allow": allow, "Accept-Patch": _PATCH_TYPES})


descriptions = APIRouter(prefix="/api", default_response_class=HalResponse, responses=PROBLEMS)


@descriptions.get("", response_model=LinksDocument)
async def root(request: Request, resources: Resources) -> Response:
    """Returns the entry of the API."""
    return _answer(request, resources, hal.root(_base(request)))


@descriptions.get("/profile", response_model=LinksDocument)
async def profile(request: Request, resources: Resources) -> Response:
    """Returns the links to the descriptions."""
    return _answer(request, resources, hal.profile(_base(request)))


@descriptions.get("/profile/messages")
async def message_profile(request: Request) -> Response:
    """Returns the description of a message (ALPS)."""
    return Response(to_json(hal.alps(_base(request))), media_type="application/alps+json")


class _LargeAnswer(StreamingResponse):
    """An answer that waits until its client takes it, and gives its turn back then."""

    def __init__(self, whole: Response, turns: asyncio.Semaphore) -> None:
        super().__init__(_chunks(bytes(whole.body)), whole.status_code, dict(whole.headers))
        self._turns = turns

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._turns.release()


async def _chunks(body: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(body), CHUNK):
        yield body[at : at + CHUNK]


async def _page(request: Request, resources: _Resources, wanted: PageRequest) -> Response:
    page = await resources.storage.page(wanted)
    document = hal.page(wanted, page.messages, page.total, _base(request))
    return _answer(request, resources, document, headers=_RETENTION)


async def _change(
    request: Request,
    resources: _Resources,
    message_id: int,
    fields: Entry | Changes,
    tags: list[str] | None,
) -> Response:
    stored = None
    if message_id <= MAX_ID:
        stored = await resources.storage.change(message_id, fields.values(), tags)
    return _item(request, resources, stored)


def _item(request: Request, resources: _Resources, stored: Message | None) -> Response:
    if stored is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, "There is no such message")
    document = hal.message(stored, _base(request))
    return _answer(request, resources, document, headers={"ETag": stored.etag()})


def _answer(
    request: Request,
    resources: _Resources,
    document: Mapping[str, Any],
    status: int = HTTPStatus.OK,
    headers: Mapping[str, str] | None = None,
) -> Response:
    media_type = hal.media_type(request.headers.get("accept", ""))
    return Response(to_json(document), status, {**resources.headers, **(headers or {})}, media_type)


def _base(request: Request) -> str:
    return hal.base_url(request.headers, request.scope["scheme"])
