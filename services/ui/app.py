"""The application of the ui."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypedDict

from starlette.applications import Starlette
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from services.common.app import instrument
from services.ui import backends, page, routes
from services.ui.routes import Resources
from services.ui.security import add_headers
from services.ui.sessions import Sessions
from services.ui.settings import Settings


class State(TypedDict):
    """The state of the lifespan, which each request has."""

    resources: Resources


def create_app(settings: Settings, sessions: Sessions) -> ASGIApp:
    """Returns the ui. It closes the sessions at the end of the lifespan."""

    templates = page.load(settings)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[State]:
        async with backends.connect(settings) as connected:
            yield {"resources": Resources(connected, sessions, templates)}
        await sessions.close()

    app = Starlette(
        lifespan=lifespan,
        routes=[
            Route("/", routes.show),
            Route("/greet", routes.greet, methods=["GET", "POST"]),
            Route("/logout", routes.logout, methods=["GET", "POST"]),
            Mount("/static", StaticFiles(directory=page.STATIC)),
        ],
    )
    app.router.redirect_slashes = False
    return add_headers(instrument(app, settings, answer=templates.error_answer), settings)
