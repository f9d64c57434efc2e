"""The application of the guestbook service: its routes, and its answers to errors."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from http import HTTPStatus

from fastapi import FastAPI, Request
from starlette.responses import Response

from services.common.app import api
from services.common.errors import problem
from services.guestbook.database import DatabaseUnavailableError, DataRefusedError
from services.guestbook.maintenance import maintain
from services.guestbook.routes import add_routes
from services.guestbook.settings import Settings
from services.guestbook.storage import KeyReusedError, PreconditionFailedError, Storage

RETRY_AFTER = "2"
"""Seconds after which a client may try again: the database comes back within a few."""

_UNAVAILABLE = (
    "The database is unavailable, and the request may not have been carried out. "
    "Send it again later; a POST with the same Idempotency-Key stores nothing twice."
)


def create_app(settings: Settings, storage: Storage) -> FastAPI:
    """Returns the application on a database that need not be up yet."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        maintenance = asyncio.create_task(maintain(storage))
        yield
        maintenance.cancel()
        await asyncio.wait((maintenance,))
        storage.close()

    app = api("guestbook", settings, lifespan=lifespan)

    @app.exception_handler(DatabaseUnavailableError)
    async def unavailable(_request: Request, _error: DatabaseUnavailableError) -> Response:
        headers = {"Retry-After": RETRY_AFTER}
        return problem(HTTPStatus.SERVICE_UNAVAILABLE, _UNAVAILABLE, headers)

    @app.exception_handler(DataRefusedError)
    async def refused(_: Request, error: DataRefusedError) -> Response:
        return problem(HTTPStatus.BAD_REQUEST, f"The database refuses this: {error}")

    @app.exception_handler(KeyReusedError)
    async def reused(_request: Request, _error: KeyReusedError) -> Response:
        detail = "This Idempotency-Key came before with another message; use a new key."
        return problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail)

    @app.exception_handler(PreconditionFailedError)
    async def changed(_request: Request, _error: PreconditionFailedError) -> Response:
        detail = "The message is not in the state that If-Match names; get it again."
        return problem(HTTPStatus.PRECONDITION_FAILED, detail)

    add_routes(app, settings, storage)
    return app
