"""The two back ends: their answers, and every way in which they can fail to give one.

Retries are the mesh's business, with one exception: a connection out of the pool that turns out
to be closed before a byte of the answer came. aiohttp then repeats a GET by itself; `store`
repeats its POST once, where the guestbook has shown that its `Idempotency-Key` makes it safe.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import Annotated, Any, TypeVar
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport
from opentelemetry.trace import Span
from pydantic import AliasPath, BaseModel, BeforeValidator, Field, ValidationError, WrapValidator
from pydantic_core import to_json

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
_parse_url = lru_cache(maxsize=1000)(httpx.URL)  # A tenth of the time of a call; few are new.

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
    """A back end, and the pool of connections to it, which are opened when they are needed.

    The transport is used without `httpx.AsyncClient` around it: all it could add are redirects
    and cookies, neither of which a back end shall cause here, and it doubles the time of a call.
    """

    knows_keys = False
    """Whether it has shown that it stores a message once for an `Idempotency-Key`."""

    def __init__(self, name: str, base_url: str, settings: Settings) -> None:
        self._name = name
        self._base_url = base_url
        self._timeout = settings.backend_timeout
        self._headers = {
            "accept": "application/json",
            "accept-encoding": "identity",
            "user-agent": f"guestbook-ui/{header_value(settings.demo_version)}",
        }
        url = httpx.URL(base_url)
        self._attributes: Attributes = {
            "server.address": url.host,
            "server.port": url.port or (443 if url.scheme == "https" else 80),
            "peer.service": name,
        }
        limits = httpx.Limits(max_connections=200, keepalive_expiry=KEEP_ALIVE_SECONDS)
        # Reading the authorities takes 50 ms of the start; in a mesh the sidecars speak TLS.
        tls = ssl.create_default_context() if url.scheme == "https" else False
        self._transport = AiohttpTransport(verify=tls, limits=limits, proxy=_proxy(base_url))

    async def close(self) -> None:
        """Closes all connections."""
        await self._transport.aclose()

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
            request = httpx.Request(
                method,
                _parse_url(url),
                headers={**self._headers, **outgoing_headers(), **(headers or {})},
                content=content,
                extensions={"timeout": {"connect": CONNECT_SECONDS, "read": self._timeout}},
            )
            try:
                return await self._ask(request, span, expected, parse)
            except UnavailableError as error:
                outcome = error.outcome
                raise
            finally:
                backend_counter(self._name, outcome).inc()

    async def _ask(
        self, request: httpx.Request, span: Span, expected: int, parse: Callable[[bytes], T]
    ) -> T:
        try:
            async with asyncio.timeout(self._timeout):
                answer = await self._transport.handle_async_request(request)
                body = await _read(answer)
            span.set_attribute("http.response.status_code", answer.status_code)
            if "idempotency-key-retention" in answer.headers:
                self.knows_keys = True
            if answer.status_code != expected:
                raise _unexpected(answer, body)
            return parse(body)
        except (httpx.HTTPError, aiohttp.ClientError, OSError, ValueError) as error:
            raise _unusable(error, self._timeout) from error


class MessageService(_Backend):
    """The service that greets."""

    async def greet(self, name: str) -> Greeting:
        """Asks for a greeting. Raises UnavailableError."""
        path = f"/hello/{quote(name, safe='')}"
        return await self._call("GET", "/hello/{name}", path, 200, Greeting.model_validate_json)


class GuestbookService(_Backend):
    """The service that keeps the messages."""

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


def _proxy(base_url: str) -> httpx.Proxy | None:
    """Returns the proxy that `http_proxy`, `https_proxy` and `no_proxy` name for an address."""
    address = urlsplit(base_url)
    url = getproxies().get(address.scheme)
    if not url or proxy_bypass(address.netloc):
        return None
    return httpx.Proxy(url if "://" in url else f"http://{url}")


async def _read(answer: httpx.Response) -> bytes:
    """Reads the body as it comes from the transport; it is not encoded, as nothing was asked."""
    assert isinstance(answer.stream, httpx.AsyncByteStream)  # noqa: S101
    body = bytearray()
    async with contextlib.aclosing(answer):
        async for chunk in answer.stream:
            body += chunk
            if len(body) > MAX_ANSWER_BYTES:
                raise ValueError("answer too large")
    return bytes(body)


def _unexpected(answer: httpx.Response, body: bytes) -> UnavailableError:
    """Describes an answer of another status, in its own words where it has some for people."""
    kind = answer.headers.get("content-type", "").partition(";")[0].strip()
    words = ""
    with contextlib.suppress(ValueError):
        if kind == "text/plain":
            words = body.decode().strip()
        elif kind == "application/problem+json":
            words = _Problem.model_validate_json(body).detail
    status = answer.status_code
    reason = f"it answered {status}"
    if words.isprintable() and 0 < len(words) <= LONGEST_REASON:
        reason += f": {words}"
    if 400 <= status < 500 and status not in _TRY_AGAIN:
        return RefusedError(reason, "refused", status)
    return UnavailableError(reason, "error", status)


def _unusable(error: Exception, timeout: float) -> UnavailableError:
    """Describes a failure by the error of aiohttp that is below the one of httpx."""
    match error if isinstance(error, TimeoutError) else error.__cause__ or error:
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
