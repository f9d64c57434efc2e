"""`/api/messages`, as Spring Data REST serves it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from http import HTTPStatus
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, HTTPException, Path, Request
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.datastructures import QueryParams
from starlette.responses import Response

from services.common.telemetry import client_span
from services.guestbook import bodies, hal, links
from services.guestbook.entry import Changes, Entry
from services.guestbook.hal import Message
from services.guestbook.paging import PageQuery, PageRequest, orders
from services.guestbook.settings import Settings
from services.guestbook.storage import CONNECTIONS, DatabaseUnavailableError, Storage

PATIENCE = 3.0
"""Seconds a request waits for its turn at the database before it is told to come back."""
MAX_ID = 2**63 - 1

ITEM = hal.COLLECTION + "/{id:int}"

Id = Annotated[int, Path(description="Number at the end of the message's link")]

T = TypeVar("T")


class HalResponse(Response):
    media_type = hal.MEDIA_TYPE


class _Plain(APIRoute):
    """A route that hands the request to its function, without FastAPI's injection: the list is
    what is asked for all the time."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        return self.endpoint


def add_routes(app: FastAPI, settings: Settings, storage: Storage) -> None:
    """Serve the messages of a storage."""
    whoami = {
        "x-guestbook-version": settings.demo_version,
        "x-guestbook-hostname": settings.hostname,
    }
    turns = asyncio.Semaphore(CONNECTIONS)
    threads = ThreadPoolExecutor(CONNECTIONS, "database")

    async def ask(operation: str, question: Callable[[], T]) -> T:
        """Put a question to the storage, in a thread. There are as many as connections, and the
        wait for one ends, so that a database that hangs does not gather ever more requests."""
        try:
            async with asyncio.timeout(PATIENCE):
                await turns.acquire()
        except TimeoutError:
            raise DatabaseUnavailableError("all connections are busy") from None
        try:
            with client_span(f"{operation} message", **{"db.operation.name": operation}):
                run = copy_context().run
                return await asyncio.get_running_loop().run_in_executor(threads, run, question)
        finally:
            turns.release()

    def answer(
        request: Request,
        document: Mapping[str, Any],
        status: int = HTTPStatus.OK,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        media_type = hal.media_type(request.headers.get("accept", ""))
        return Response(hal.encode(document), status, whoami | dict(headers or {}), media_type)

    def item(request: Request, stored: Message | None) -> Response:
        if stored is None:
            raise HTTPException(HTTPStatus.NOT_FOUND, "There is no such message")
        return answer(request, hal.message(stored, _base(request)))

    async def list_messages(request: Request) -> Response:
        """A page of messages."""
        wanted = _page_request(request.query_params)
        messages, total = await ask("SELECT", lambda: storage.page(wanted))
        return answer(request, hal.page(wanted, messages, total, _base(request)))

    app.router.routes.append(
        _Plain(
            hal.COLLECTION,
            list_messages,
            methods=["GET"],
            response_class=HalResponse,
            openapi_extra=_query(PageQuery),
        )
    )

    @app.post(
        hal.COLLECTION,
        status_code=HTTPStatus.CREATED,
        response_class=HalResponse,
        openapi_extra=_body(Entry, *bodies.JSON_TYPES.split(", ")),
    )
    async def add_message(request: Request) -> Response:
        """Store a message; with an `Idempotency-Key` that came before, answer as then."""
        key = bodies.idempotency_key(request)
        entry = await bodies.read(request, Entry)
        added = await ask("INSERT", lambda: storage.add(entry, key))
        document = hal.message(added.message, _base(request))
        headers = {"Location": document["_links"]["self"]["href"]}
        if added.replayed:
            headers["Idempotent-Replayed"] = "true"
        return answer(request, document, HTTPStatus.CREATED, headers)

    @app.get(ITEM, response_class=HalResponse)
    async def get_message(request: Request, id: Id) -> Response:
        """One message."""
        return item(request, await ask("SELECT", lambda: storage.get(id)) if id <= MAX_ID else None)

    @app.put(ITEM, response_class=HalResponse, openapi_extra=_body(Entry, "application/json"))
    async def replace_message(request: Request, id: Id) -> Response:
        """Replace a message; without a timestamp it keeps the one it has."""
        return await change(request, id, Entry)

    @app.patch(
        ITEM,
        response_class=HalResponse,
        openapi_extra=_body(Changes, *bodies.PATCH_TYPES.split(", ")),
    )
    async def change_message(request: Request, id: Id) -> Response:
        """Change the fields that are given."""
        return await change(request, id, Changes)

    async def change(request: Request, message_id: int, model: type[Entry | Changes]) -> Response:
        values = (await bodies.read(request, model)).values()
        if message_id > MAX_ID:
            return item(request, None)
        return item(request, await ask("UPDATE", lambda: storage.change(message_id, values)))

    @app.delete(ITEM, status_code=HTTPStatus.NO_CONTENT)
    async def delete_message(id: Id) -> Response:
        """Delete a message."""
        if id > MAX_ID or not await ask("DELETE", lambda: storage.delete(id)):
            raise HTTPException(HTTPStatus.NOT_FOUND, "There is no such message")
        return Response(status_code=HTTPStatus.NO_CONTENT, headers=whoami)

    @app.options(hal.COLLECTION, include_in_schema=False)
    async def collection_options() -> Response:
        return Response(headers={"Allow": "GET, HEAD, OPTIONS, POST"})

    @app.options(ITEM, include_in_schema=False)
    async def item_options(id: Id) -> Response:  # noqa: ARG001
        allow = "DELETE, GET, HEAD, OPTIONS, PATCH, PUT"
        return Response(headers={"Allow": allow, "Accept-Patch": bodies.PATCH_TYPES})

    @app.get("/api", response_class=HalResponse)
    async def root(request: Request) -> Response:
        """What the API has."""
        return answer(request, hal.root(_base(request)))

    @app.get("/api/profile", response_class=HalResponse)
    async def profile(request: Request) -> Response:
        """Where the descriptions are."""
        return answer(request, hal.profile(_base(request)))

    @app.get("/api/profile/messages")
    async def message_profile(request: Request) -> Response:
        """What a message consists of (ALPS)."""
        return Response(hal.encode(hal.alps(_base(request))), media_type="application/alps+json")


def _page_request(parameters: QueryParams) -> PageRequest:
    given: dict[str, Any] = {**parameters, "sort": parameters.getlist("sort")}
    try:
        query = PageQuery.model_validate(given)
        return PageRequest(query.page, query.size, orders(query.sort))
    except ValidationError as error:
        raise HTTPException(HTTPStatus.BAD_REQUEST, bodies.reasons(error)) from None
    except ValueError as error:
        raise HTTPException(HTTPStatus.BAD_REQUEST, str(error)) from None


def _base(request: Request) -> str:
    return links.base_url(request.headers, request.scope["scheme"])


def _query(model: type[BaseModel]) -> dict[str, Any]:
    properties = model.model_json_schema()["properties"]
    return {
        "parameters": [
            {"name": name, "in": "query", "schema": schema} for name, schema in properties.items()
        ]
    }


def _body(model: type[BaseModel], *media_types: str) -> dict[str, Any]:
    schema = {"schema": model.model_json_schema()}
    return {"requestBody": {"required": True, "content": dict.fromkeys(media_types, schema)}}
