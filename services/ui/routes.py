"""The addresses of the ui: the page, the form behind it, and the way out of a session."""

from __future__ import annotations

import asyncio
import logging
import secrets
from dataclasses import dataclass

from redis.asyncio import Redis
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from services.ui import form as forms
from services.ui import sessions
from services.ui.clients import Backends, Greeting, Messages, RefusedError, UnavailableError
from services.ui.form import Form
from services.ui.security import content_security_policy, header_value, is_from_elsewhere
from services.ui.view import Page, View, Visitor

MAX_PAGE = 1_000_000

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Resources:
    """What the routes work with, made once for the process."""

    backends: Backends
    redis: Redis
    view: View


async def show(request: Request) -> Response:
    """GET /: the page. Without a session it makes none: probes and crawlers would fill Redis."""
    resources = _resources(request)
    number = _page_number(request)
    messages = asyncio.create_task(_messages(resources, number))
    visitor = await _visitor(request)
    greeting = await _greeting(resources, visitor.name)
    form = forms.empty(visitor.name or "")
    return _html(resources, Page(form, await messages, visitor, greeting, number))


async def greet(request: Request) -> Response:
    """POST /greet: remember the name, store the message if there is one, and back to the page.

    When something was not stored the answer is the page itself, its form filled in as it was
    sent, so that nothing is lost even where there is no session to keep it in.
    """
    if request.method == "GET":  # the address bar, after a failed post
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
        response = await _form_again(request, form, _explain(failure), visitor, failure)
    if remembered:
        _set_cookie(request, response, remembered)
    return response


async def logout(request: Request) -> Response:
    """POST /logout: end the session."""
    if request.method == "GET":
        return RedirectResponse("/", 303)
    _refuse_other_sites(request)
    try:
        await sessions.end(_resources(request).redis, request.cookies.get(sessions.COOKIE))
    except sessions.Down as error:
        logger.warning("Sessions are unavailable: %s", error)
    response = RedirectResponse("/", 303)
    response.delete_cookie(sessions.COOKIE, httponly=True, samesite="lax")
    return response


async def _form_again(
    request: Request,
    form: Form,
    problem: str,
    visitor: Visitor,
    failure: UnavailableError | RefusedError | None = None,
    status: int = 200,
) -> Response:
    """The page with the form as it was sent. A guestbook that just failed is not asked again."""
    resources = _resources(request)
    messages, greeting = await asyncio.gather(
        _messages(resources, 1, failure), _greeting(resources, visitor.name)
    )
    return _html(resources, Page(form, messages, visitor, greeting, problem=problem), status)


async def _visitor(request: Request) -> Visitor:
    """Who the session says this is."""
    try:
        token = request.cookies.get(sessions.COOKIE)
        return Visitor(await sessions.name_of(_resources(request).redis, token))
    except sessions.Down as error:
        logger.warning("Sessions are unavailable: %s", error)
        return Visitor(None, sessions_down=True)


async def _remember(request: Request, name: str) -> str | None:
    """Put the name into the session; its token, or None when Redis could not be asked."""
    try:
        token = request.cookies.get(sessions.COOKIE)
        return await sessions.save(_resources(request).redis, token, name)
    except sessions.Down as error:
        logger.warning("Sessions are unavailable: %s", error)
        return None


async def _messages(
    resources: Resources, number: int, failure: UnavailableError | RefusedError | None = None
) -> Messages | UnavailableError:
    if isinstance(failure, UnavailableError):
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


async def _store(request: Request, form: Form) -> UnavailableError | RefusedError | None:
    """Store the message, if there is one; what kept it from being stored, otherwise None."""
    if not form.has_message:
        return None
    try:
        await _resources(request).backends.store(form.name, form.message, form.idempotency_key)
    except (UnavailableError, RefusedError) as error:
        logger.warning("A message could not be stored: %s", error)
        return error
    return None


def _explain(failure: UnavailableError | RefusedError | None) -> str:
    match failure:
        case UnavailableError():
            return (
                f"Your message could not be stored ({failure}). It is still in the form: "
                "sending it again is safe, it will not be stored twice."
            )
        case RefusedError():
            return f"The guestbook service did not accept your message: {failure}"
        case None:
            return "Your name could not be remembered, because sessions are unavailable."


def _html(resources: Resources, page: Page, status: int = 200) -> Response:
    nonce = secrets.token_urlsafe(16)
    headers = {
        "content-security-policy": content_security_policy(nonce),
        "cache-control": "no-store",
    }
    if isinstance(page.greeting, Greeting):
        headers["x-message-version"] = header_value(page.greeting.version)
        headers["x-message-hostname"] = header_value(page.greeting.hostname)
    return HTMLResponse(resources.view.page(page, nonce), status, headers)


def _page_number(request: Request) -> int:
    text = request.query_params.get("page", "1")
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= MAX_PAGE):
        raise HTTPException(400, f"Pages are numbered from 1 to {MAX_PAGE}.")
    return int(text)


def _refuse_other_sites(request: Request) -> None:
    if is_from_elsewhere(request.headers):
        raise HTTPException(403, "The form was sent from another site, so it was not accepted.")


def _set_cookie(request: Request, response: Response, token: str) -> None:
    """No lifetime: Redis ends the session, half an hour after it was last used."""
    secure = "https" in (request.url.scheme, request.headers.get("x-forwarded-proto"))
    response.set_cookie(
        sessions.COOKIE, token, path="/", httponly=True, samesite="lax", secure=secure
    )


def _resources(request: Request) -> Resources:
    resources: Resources = request.state.resources
    return resources
