"""The application of the ui: page, form, logout."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from services.common.app import instrument
from services.common.telemetry import CallError
from services.ui import form as forms
from services.ui.backends import GuestbookService, Messages, MessageService, RefusedError
from services.ui.form import Form
from services.ui.page import STATIC, Templates
from services.ui.security import add_headers, is_secure, refuse_other_sites
from services.ui.sessions import COOKIE, Sessions
from services.ui.settings import Settings

MAX_PAGE = 1_000_000

T = TypeVar("T")

logger = logging.getLogger(__name__)


def create_app(settings: Settings, sessions: Sessions) -> ASGIApp:
    """Returns the ui. It closes all connections at the end of the lifespan."""
    ui = _Ui(settings, sessions)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await ui.close()

    app = Starlette(
        lifespan=lifespan,
        routes=[
            Route("/", ui.show),
            Route("/greet", ui.greet, methods=["POST"]),
            Route("/logout", ui.logout, methods=["POST"]),
            # The address bar, after a failed post.
            Route("/greet", _to_the_page),
            Route("/logout", _to_the_page),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
    )
    app.router.redirect_slashes = False
    return add_headers(instrument(app, settings, answer=ui.templates.error), settings)


class _Ui:
    """The routes. A part of the page that could not be had is shown as its error."""

    def __init__(self, settings: Settings, sessions: Sessions) -> None:
        self.templates = Templates(settings)
        self._message = MessageService(settings)
        self._guestbook = GuestbookService(settings)
        self._sessions = sessions

    async def close(self) -> None:
        """Closes all connections."""
        for each in (self._message, self._guestbook, self._sessions):
            await each.close()

    async def show(self, request: Request) -> Response:
        """Answers with the page. It starts no session: probes and crawlers would fill Redis."""
        number = _page_number(request)
        messages = asyncio.create_task(self._messages(number))
        visitor = await self._visitor(request)
        form = Form(visitor if isinstance(visitor, str) else "")
        return await self._page(form, visitor, messages, number)

    async def greet(self, request: Request) -> Response:
        """Remembers the name, stores the message, and leads back to the page.

        When something was not stored the answer is the page itself, its form filled in as it was
        sent, so that nothing is lost even where there is no session to keep it in.
        """
        refuse_other_sites(request)
        form = await forms.read(request)
        if form.problem:
            messages = asyncio.create_task(self._messages(1))
            return await self._page(form, await self._visitor(request), messages, status=422)

        save = self._sessions.save(request.cookies.get(COOKIE, ""), form.name)
        session, failure = await asyncio.gather(_attempt(save), self._store(form))
        remembered = isinstance(session, str)
        response: Response
        if failure is None and (remembered or form.has_message):
            response = RedirectResponse("/", 303)
        else:
            form.problem = self._explain(failure)
            visitor = form.name if remembered else session
            messages = asyncio.create_task(self._messages(1, failure))
            response = await self._page(form, visitor, messages)
        if isinstance(session, str):
            # Without a lifetime: Redis ends the session.
            secure = is_secure(request)
            response.set_cookie(COOKIE, session, httponly=True, samesite="lax", secure=secure)
        return response

    async def logout(self, request: Request) -> Response:
        """Ends the session; without Redis, this browser forgets it all the same."""
        refuse_other_sites(request)
        await _attempt(self._sessions.end(request.cookies.get(COOKIE, "")))
        response = RedirectResponse("/", 303)
        response.delete_cookie(COOKIE, httponly=True, samesite="lax")
        return response

    async def _page(
        self,
        form: Form,
        visitor: str | CallError | None,
        messages: Awaitable[Messages | CallError],
        number: int = 1,
        status: int = 200,
    ) -> Response:
        greeting = None
        if isinstance(visitor, str):
            failed = "The message service is unavailable"
            greeting = await _attempt(self._message.greet(visitor), failed)
        return self.templates.page(form, visitor, greeting, await messages, number, status)

    async def _visitor(self, request: Request) -> str | CallError | None:
        """Returns the name in the session, None without one."""
        return await _attempt(self._sessions.name_of(request.cookies.get(COOKIE, "")))

    async def _messages(
        self, number: int, failure: CallError | None = None
    ) -> Messages | CallError:
        """Returns a page of messages. A guestbook that just failed is not asked again."""
        if failure is not None and not isinstance(failure, RefusedError):
            return failure
        failed = "The guestbook service is unavailable"
        return await _attempt(self._guestbook.messages(number - 1), failed)

    async def _store(self, form: Form) -> CallError | None:
        """Stores the message, if there is one."""
        if not form.has_message:
            return None
        store = self._guestbook.store(form.name, form.message, form.timestamp, form.idempotency_key)
        return await _attempt(store, "A message could not be stored")

    def _explain(self, failure: CallError | None) -> str:
        if failure is None:
            return "Your name could not be remembered, because sessions are unavailable."
        if isinstance(failure, RefusedError):
            return f"The guestbook service did not accept your message: {failure}"
        kept = f"Your message could not be stored ({failure}). It is still in the form"
        if self._guestbook.knows_keys:
            return f"{kept}: sending it again is safe, it will not be stored twice."
        return f"{kept}. It may have been stored all the same; look before you send it again."


async def _attempt(call: Awaitable[T], failed: str | None = None) -> T | CallError:
    """Returns the result of a call, or its error, which it logs as `failed`."""
    try:
        return await call
    except CallError as error:
        if failed:
            logger.warning("%s: %s", failed, error)
        return error


async def _to_the_page(_: Request) -> Response:
    return RedirectResponse("/", 303)


def _page_number(request: Request) -> int:
    text = request.query_params.get("page", "1")
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= MAX_PAGE):
        raise HTTPException(400, f"Pages are numbered from 1 to {MAX_PAGE}.")
    return int(text)
