"""The application of the guestbook service: its routes, and its answers to errors."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from http import HTTPStatus

from fastapi import FastAPI, Request
from starlette.responses import Response
from starlette.types import ASGIApp

from services.common.api import api
from services.common.app import instrument
from services.common.errors import problem
from services.guestbook import routes
from services.guestbook.database import DatabaseUnavailableError, RefusedError
from services.guestbook.settings import Settings
from services.guestbook.storage import Storage

RETRY_AFTER = "2"
"""Seconds after which a client may try again: the database comes back within a few."""

_UNAVAILABLE = (
    "The database is unavailable, and the request may not have been carried out. "
    "Send it again later; a POST with the same Idempotency-Key stores nothing twice."
)


def create_app(settings: Settings, storage: Storage) -> ASGIApp:
    """Returns the application on a database that need not be up yet."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        maintenance = asyncio.create_task(storage.maintain())
        yield
        maintenance.cancel()
        await asyncio.wait((maintenance,))
        storage.close()

    app = api("guestbook", settings, lifespan=lifespan)
    app.state.storage = storage
    app.state.large_answers = asyncio.Semaphore(routes.LARGE_AT_ONCE)
    app.state.headers = {
        "x-guestbook-version": settings.demo_version,
        "x-guestbook-hostname": settings.hostname,
    }
    app.routes.extend(routes.routes.routes)

    @app.exception_handler(DatabaseUnavailableError)
    async def unavailable(_request: Request, _error: DatabaseUnavailableError) -> Response:
        headers = {"Retry-After": RETRY_AFTER}
        return problem(HTTPStatus.SERVICE_UNAVAILABLE, _UNAVAILABLE, headers)

    @app.exception_handler(RefusedError)
    async def refused(_: Request, error: RefusedError) -> Response:
        return problem(error.status, str(error))

    return instrument(app, settings)
