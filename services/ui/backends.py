"""The two back ends: their answers, and every way in which they can fail to give one.

Retries are the mesh's business, with one exception: a connection out of the pool that turns out
to be closed before a byte of the answer came. aiohttp then repeats a GET by itself; `store`
repeats its POST once, where the guestbook has shown that its `Idempotency-Key` makes it safe.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cached_property, lru_cache, partial
from typing import Annotated, Any, TypeVar
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from pydantic import AliasPath, BaseModel, BeforeValidator, Field, ValidationError, WrapValidator
from pydantic_core import to_json
from yarl import URL

from services.common.metrics import backend_counter
from services.common.telemetry import Attributes, CallError, client_span, outgoing_headers
from services.ui.security import header_value
from services.ui.settings import Settings

PAGE_SIZE = 20
CONNECT_SECONDS = 1.0
KEEP_ALIVE_SECONDS = 60.0
"""Shorter than any server here keeps an idle connection, so that the ui closes it."""
MAX_ANSWER_BYTES = 4 * 1024 * 1024
LONGEST_REASON = 200
"""Characters of an answer's own words that the page shows."""

_TRY_AGAIN = (408, 425, 429)
"""Statuses below 500 that may become a success when the same request is sent again."""
_parse_url = lru_cache(maxsize=1000)(partial(URL, encoded=True))  # Few are new.

T = TypeVar("T")


def _in_utc(value: Any, read: Callable[[Any], datetime | None]) -> datetime | None:
    """Reads a timestamp (no offset means UTC); None for one that cannot be shown."""
    try:
        moment = read(value)
        if moment and moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return moment and moment.astimezone(UTC)
    except (ValidationError, OverflowError):
        return None


_Text = Annotated[str, BeforeValidator(lambda value: "" if value is None else value)]


class Greeting(BaseModel, frozen=True):
    """The message service's answer."""

    greeting: str
    version: str
    hostname: str


class Entry(BaseModel, frozen=True):
    """A message in the guestbook. The original service allowed any field to be null."""

    username: _Text = ""
    message: _Text = ""
    timestamp: Annotated[datetime | None, WrapValidator(_in_utc)] = None


class Messages(BaseModel, frozen=True):
    """A page of the guestbook: HAL, as Spring Data REST serves it."""

    entries: list[Entry] = Field([], validation_alias=AliasPath("_embedded", "messages"))
    total_elements: int = Field(ge=0, validation_alias=AliasPath("page", "totalElements"))
    total_pages: int = Field(ge=0, validation_alias=AliasPath("page", "totalPages"))


class _Problem(BaseModel, frozen=True):
    detail: str


class UnavailableError(CallError):
    """A back end gave no usable answer. The text is the reason, in words for a visitor."""

    def __init__(self, reason: str, outcome: str, status: int | None = None) -> None:
        super().__init__(reason, str(status or outcome))
        self.outcome = outcome
        """For the metric."""


class RefusedError(UnavailableError):
    """The guestbook does not take this message, however often it is sent. The text is why."""


class _ClosedError(UnavailableError):
    """The connection was closed before an answer began."""


class _Backend:
    """A back end, and the pool of connections to it, which are opened when they are needed."""

    def __init__(self, name: str, base_url: str, settings: Settings) -> None:
        self.knows_keys = False
        """Whether it has shown that it stores a message once for an `Idempotency-Key`."""
        self._name = name
        self._base_url = base_url
        self._timeout = settings.backend_timeout
        self._headers = {
            "accept": "application/json",
            "accept-encoding": "identity",
            "user-agent": f"guestbook-ui/{header_value(settings.demo_version)}",
        }
        url = URL(base_url)
        self._attributes: Attributes = {
            "server.address": url.host or "",
            "server.port": url.port or 0,
            "peer.service": name,
        }

    @cached_property
    def _session(self) -> aiohttp.ClientSession:
        """The pool; it belongs to the event loop in which it is first used."""
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=200, keepalive_timeout=KEEP_ALIVE_SECONDS),
            headers=self._headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
            auto_decompress=False,
            proxy=_proxy(self._base_url),
        )

    async def close(self) -> None:
        """Closes all connections."""
        await self._session.close()

    async def _call(
        self,
        method: str,
        template: str,
        path: str,
        expected: int,
        parse: Callable[[bytes], T],
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> T:
        """Makes a call, with its span and its metric; returns the body of the answer, parsed."""
        url = self._base_url + path
        called = {"http.request.method": method, "url.full": url, "url.template": template}
        outcome = "ok"
        with client_span(f"{method} {template}", {**self._attributes, **called}) as span:
            sent = {**outgoing_headers(), **(headers or {})}
            ask = self._session.request
            try:
                async with (
                    asyncio.timeout(self._timeout),
                    ask(
                        method, _parse_url(url), headers=sent, data=content, allow_redirects=False
                    ) as answer,
                ):
                    body = await _read(answer)
                span.set_attribute("http.response.status_code", answer.status)
                if "idempotency-key-retention" in answer.headers:
                    self.knows_keys = True
                if answer.status != expected:
                    raise _unexpected(answer, body)
                return parse(body)
            except UnavailableError as error:
                outcome = error.outcome
                raise
            except (aiohttp.ClientError, OSError, ValueError) as error:
                unusable = _unusable(error, self._timeout)
                outcome = unusable.outcome
                raise unusable from error
            finally:
                backend_counter(self._name, outcome).inc()


class MessageService(_Backend):
    """The service that greets."""

    def __init__(self, settings: Settings) -> None:
        super().__init__("message-service", settings.message_host, settings)

    async def greet(self, name: str) -> Greeting:
        """Asks for a greeting. Raises UnavailableError."""
        path = f"/hello/{quote(name, safe='')}"
        return await self._call("GET", "/hello/{name}", path, 200, Greeting.model_validate_json)


class GuestbookService(_Backend):
    """The service that keeps the messages."""

    def __init__(self, settings: Settings) -> None:
        super().__init__("guestbook-service", settings.guestbook_host, settings)

    async def messages(self, page: int) -> Messages:
        """Asks for a page (from 0) of messages, the newest first. Raises UnavailableError."""
        path = f"/api/messages?page={page}&size={PAGE_SIZE}&sort=id,desc"
        return await self._call("GET", "/api/messages", path, 200, Messages.model_validate_json)

    async def store(self, name: str, message: str, timestamp: str | None, key: str) -> None:
        """Stores a message; a guestbook that knows keys stores it once for a key.

        Raises UnavailableError and RefusedError.
        """
        content = to_json({"username": name, "message": message, "timestamp": timestamp})
        headers = {"content-type": "application/json", "idempotency-key": key}
        path = "/api/messages"
        post = partial(self._call, "POST", path, path, 201, bytes, headers, content)
        try:
            await post()
        except _ClosedError:
            if not self.knows_keys:
                raise
            await post()


def _proxy(base_url: str) -> str | None:
    """Returns the proxy that `http_proxy`, `https_proxy` and `no_proxy` name for an address.

    aiohttp can look for it itself, but does so in a thread for each call.
    """
    address = urlsplit(base_url)
    url = getproxies().get(address.scheme)
    if not url or proxy_bypass(address.netloc):
        return None
    return url if "://" in url else f"http://{url}"


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise ValueError("answer too large")
    return bytes(body)


def _unexpected(answer: aiohttp.ClientResponse, body: bytes) -> UnavailableError:
    """Describes an answer of another status, in its own words where it has some for people."""
    kind = answer.headers.get("content-type", "").partition(";")[0].strip()
    words = ""
    with contextlib.suppress(ValueError):
        if kind == "text/plain":
            words = body.decode().strip()
        elif kind == "application/problem+json":
            words = _Problem.model_validate_json(body).detail
    status = answer.status
    reason = f"it answered {status}"
    if words.isprintable() and 0 < len(words) <= LONGEST_REASON:
        reason += f": {words}"
    if 400 <= status < 500 and status not in _TRY_AGAIN:
        return RefusedError(reason, "refused", status)
    return UnavailableError(reason, "error", status)


def _unusable(error: Exception, timeout: float) -> UnavailableError:
    """Describes a failure of a call."""
    match error:
        case aiohttp.ConnectionTimeoutError():
            return UnavailableError(f"no connection within {CONNECT_SECONDS:g} s", "timeout")
        case TimeoutError():
            return UnavailableError(f"no answer within {timeout:g} s", "timeout")
        case aiohttp.ClientConnectorDNSError():
            return UnavailableError("its name cannot be resolved", "unreachable")
        case aiohttp.ClientConnectorError(os_error=ConnectionRefusedError()):
            return UnavailableError("the connection was refused", "unreachable")
        case aiohttp.ClientConnectorError():
            return UnavailableError("it cannot be reached", "unreachable")
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError() | ConnectionError():
            return _ClosedError("the connection was closed", "unreachable")
        case _:
            return UnavailableError("its answer cannot be read", "unreadable")
