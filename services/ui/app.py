"""Puts the ui together."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypedDict

from fastapi import FastAPI
from redis.asyncio import Redis
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from services.common.app import instrument
from services.common.telemetry import for_fastapi
from services.ui import clients, routes, view
from services.ui.routes import Resources
from services.ui.security import add_headers, content_security_policy
from services.ui.settings import Settings


class State(TypedDict):
    resources: Resources


def create_app(settings: Settings, redis: Redis) -> ASGIApp:
    """The ui. It takes over the Redis client, and closes it at the end of the lifespan."""

    pages = view.load(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        async with clients.connect(settings) as backends, redis:
            yield {"resources": Resources(backends, redis, pages)}

    app = FastAPI(
        lifespan=lifespan,
        telemetry=for_fastapi(settings),
        openapi_url=None,
        routes=[
            Route("/", routes.show),
            Route("/greet", routes.greet, methods=["GET", "POST"]),
            Route("/logout", routes.logout, methods=["GET", "POST"]),
            Mount("/static", StaticFiles(directory=view.STATIC)),
        ],
    )
    instrumented = instrument(app, settings)
    _add_error_pages(app, pages)
    return add_headers(instrumented, settings)


def _add_error_pages(app: FastAPI, pages: view.View) -> None:
    """Errors as pages: who reads them here is a person."""

    def answer(status: int, detail: str, headers: dict[str, str]) -> Response:
        nonce = secrets.token_urlsafe(16)
        headers["content-security-policy"] = content_security_policy(nonce)
        headers["cache-control"] = "no-store"
        return HTMLResponse(pages.error_page(status, detail, nonce), status, headers)

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> Response:
        detail = _DETAILS.get(error.status_code, str(error.detail))
        return answer(error.status_code, detail, dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def unexpected(_: Request, __: Exception) -> Response:
        return answer(500, "Something went wrong here; the log of the ui says what.", {})


_DETAILS = {
    404: "There is no such page.",
    405: "This address does not answer such a request.",
}
