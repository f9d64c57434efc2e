"""Routes: page, form, logout."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from services.ui import form as forms
from services.ui import sessions
from services.ui.backends import Backends, Greeting, Messages, RefusedError, UnavailableError
from services.ui.form import Form
from services.ui.page import Page, Templates, Visitor
from services.ui.security import first_forwarded, is_from_elsewhere
from services.ui.sessions import Sessions, SessionsDownError

MAX_PAGE = 1_000_000

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Resources:
    """The objects that the routes work with, made once for the process."""

    backends: Backends
    sessions: Sessions
    templates: Templates


async def show(request: Request) -> Response:
    """Answers GET / with the page. It starts no session: probes and crawlers would fill Redis."""
    resources = _resources(request)
    number = _page_number(request)
    messages = asyncio.create_task(_messages(resources, number))
    visitor = await _visitor(request)
    greeting = await _greeting(resources, visitor.name)
    form = forms.empty(visitor.name or "")
    page = Page(form, await messages, visitor, greeting, number)
    return resources.templates.answer(page)


async def greet(request: Request) -> Response:
    """Answers POST /greet: remembers the name, stores the message, and leads back to the page.

    When something was not stored the answer is the page itself, its form filled in as it was
    sent, so that nothing is lost even where there is no session to keep it in.
    """
    if request.method == "GET":  # The address bar, after a failed post.
        return RedirectResponse("/", 303)
    _refuse_other_sites(request)
    form = await forms.read(request)
    if problem := forms.problem(form):
        return await _form_again(request, form, problem, await _visitor(request), status=422)

    remembered, failure = await asyncio.gather(_remember(request, form.name), _store(request, form))
    response: Response
    if failure is None and (remembered or form.has_message):
        response = RedirectResponse("/", 303)
    else:
        visitor = Visitor(form.name) if remembered else Visitor(None, sessions_down=True)
        problem = _explain(failure, _resources(request).backends.keys_known)
        response = await _form_again(request, form, problem, visitor, failure)
    if remembered:
        _set_cookie(request, response, remembered)
    return response


async def logout(request: Request) -> Response:
    """Answers POST /logout: ends the session."""
    if request.method == "GET":
        return RedirectResponse("/", 303)
    _refuse_other_sites(request)
    response = RedirectResponse("/", 303)
    response.delete_cookie(sessions.COOKIE, httponly=True, samesite="lax")
    try:
        await _resources(request).sessions.end(request.cookies.get(sessions.COOKIE))
    except SessionsDownError:
        return response  # Without its cookie the session is forgotten in this browser.
    return response


async def _form_again(
    request: Request,
    form: Form,
    problem: str,
    visitor: Visitor,
    failure: UnavailableError | None = None,
    status: int = 200,
) -> Response:
    """Answers with the form as it was sent. A guestbook that just failed is not asked again."""
    resources = _resources(request)
    messages, greeting = await asyncio.gather(
        _messages(resources, 1, failure), _greeting(resources, visitor.name)
    )
    page = Page(form, messages, visitor, greeting, problem=problem)
    return resources.templates.answer(page, status)


async def _visitor(request: Request) -> Visitor:
    """Returns the visitor of the session."""
    try:
        token = request.cookies.get(sessions.COOKIE)
        return Visitor(await _resources(request).sessions.name_of(token))
    except SessionsDownError:
        return Visitor(None, sessions_down=True)


async def _remember(request: Request, name: str) -> str | None:
    """Puts the name into the session; returns its token, None without Redis."""
    try:
        token = request.cookies.get(sessions.COOKIE)
        return await _resources(request).sessions.save(token, name)
    except SessionsDownError:
        return None


async def _messages(
    resources: Resources, number: int, failure: UnavailableError | None = None
) -> Messages | UnavailableError:
    if failure is not None and not isinstance(failure, RefusedError):
        return failure
    try:
        return await resources.backends.messages(number - 1)
    except UnavailableError as error:
        logger.warning("The guestbook service is unavailable: %s", error)
        return error


async def _greeting(resources: Resources, name: str | None) -> Greeting | UnavailableError | None:
    if name is None:
        return None
    try:
        return await resources.backends.greet(name)
    except UnavailableError as error:
        logger.warning("The message service is unavailable: %s", error)
        return error


async def _store(request: Request, form: Form) -> UnavailableError | None:
    """Stores the message, if there is one; returns the failure, if it was not stored."""
    if not form.has_message:
        return None
    backends = _resources(request).backends
    try:
        await backends.store(form.name, form.message, form.time, form.idempotency_key)
    except UnavailableError as error:
        logger.warning("A message could not be stored: %s", error)
        return error
    return None


def _explain(failure: UnavailableError | None, keys_known: bool) -> str:
    match failure:
        case RefusedError():
            return f"The guestbook service did not accept your message: {failure}"
        case UnavailableError() if keys_known:
            return (
                f"Your message could not be stored ({failure}). It is still in the form: "
                "sending it again is safe, it will not be stored twice."
            )
        case UnavailableError():
            return (
                f"Your message could not be stored ({failure}). It is still in the form. "
                "It may have been stored all the same; look before you send it again."
            )
        case None:
            return "Your name could not be remembered, because sessions are unavailable."


def _page_number(request: Request) -> int:
    text = request.query_params.get("page", "1")
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= MAX_PAGE):
        raise HTTPException(400, f"Pages are numbered from 1 to {MAX_PAGE}.")
    return int(text)


def _refuse_other_sites(request: Request) -> None:
    if is_from_elsewhere(request.headers):
        raise HTTPException(403, "The form was sent from another site, so it was not accepted.")


def _set_cookie(request: Request, response: Response, token: str) -> None:
    """Sets the cookie, without a lifetime: Redis ends the session."""
    forwarded = first_forwarded(request.headers, "x-forwarded-proto")
    secure = "https" in (request.url.scheme, forwarded)
    response.set_cookie(
        sessions.COOKIE, token, path="/", httponly=True, samesite="lax", secure=secure
    )


def _resources(request: Request) -> Resources:
    resources: Resources = request.state.resources
    return resources
