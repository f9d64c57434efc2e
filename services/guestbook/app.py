"""The guestbook's application: routes, and what its errors look like to a client."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from http import HTTPStatus

from fastapi import FastAPI, Request
from starlette.responses import Response

from services.common.errors import problem
from services.common.telemetry import for_fastapi
from services.guestbook import health
from services.guestbook.routes import add_routes
from services.guestbook.settings import Settings
from services.guestbook.storage import (
    DatabaseUnavailableError,
    DataRefusedError,
    KeyReusedError,
    Storage,
)

RETRY_AFTER = "2"
"""Seconds after which a client may try again: the database comes back within a few."""


def create_app(settings: Settings, storage: Storage) -> FastAPI:
    """The application on a database that need not be up yet."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        upkeep = asyncio.create_task(health.keep_up(storage))
        yield
        upkeep.cancel()
        await asyncio.wait((upkeep,))
        storage.close()

    app = FastAPI(
        title="guestbook",
        version=settings.demo_version,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=for_fastapi(settings),
    )

    @app.exception_handler(DatabaseUnavailableError)
    async def unavailable(_request: Request, _error: DatabaseUnavailableError) -> Response:
        detail = (
            "The database is unavailable, and the request may not have been carried out. "
            "Send it again later; a POST with the same Idempotency-Key stores nothing twice."
        )
        return problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, {"Retry-After": RETRY_AFTER})

    @app.exception_handler(DataRefusedError)
    async def refused(_: Request, error: DataRefusedError) -> Response:
        return problem(HTTPStatus.BAD_REQUEST, f"The database refuses this: {error}")

    @app.exception_handler(KeyReusedError)
    async def reused(_request: Request, _error: KeyReusedError) -> Response:
        detail = "This Idempotency-Key came before with another message; use a new key."
        return problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail)

    add_routes(app, settings, storage)
    return app
