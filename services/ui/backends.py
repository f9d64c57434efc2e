"""The two back ends: their answers, and every way in which they can fail to give one.

Retries are the mesh's business, with one exception: a connection out of the pool that turns out
to be closed before a byte of the answer came. aiohttp then repeats a GET by itself; `store`
repeats its POST once, where the guestbook has shown that its `Idempotency-Key` makes it safe.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, TypeVar
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport
from pydantic import BaseModel, BeforeValidator, Field, ValidationError, WrapValidator

from services.common.metrics import backend_counter
from services.common.telemetry import (
    Attributes,
    CallError,
    client_span,
    fail_span,
    outgoing_headers,
)
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

T = TypeVar("T")


def _lenient(value: Any, read: Callable[[Any], datetime | None]) -> datetime | None:
    """Reads a timestamp in UTC (no offset means UTC); None for one that cannot be shown."""
    try:
        moment = read(value)
        if moment is None:
            return None
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return aware.astimezone(UTC)
    except (ValidationError, OverflowError):
        return None


Text = Annotated[str, BeforeValidator(lambda value: "" if value is None else value)]


class Greeting(BaseModel, frozen=True):
    """The message service's answer."""

    greeting: str
    version: str
    hostname: str


class Entry(BaseModel, frozen=True):
    """A message in the guestbook. The original service allowed any field to be null."""

    username: Text = ""
    message: Text = ""
    timestamp: Annotated[datetime | None, WrapValidator(_lenient)] = None


class _Embedded(BaseModel, frozen=True):
    messages: list[Entry] = []


class _PageInfo(BaseModel, frozen=True):
    total_elements: Annotated[int, Field(alias="totalElements", ge=0)]
    total_pages: Annotated[int, Field(alias="totalPages", ge=0)]


class Messages(BaseModel, frozen=True):
    """A page of the guestbook: HAL, as Spring Data REST serves it."""

    embedded: Annotated[_Embedded, Field(alias="_embedded")] = _Embedded()
    page: _PageInfo

    @property
    def entries(self) -> list[Entry]:
        """The messages of the page."""
        return self.embedded.messages


class UnavailableError(CallError):
    """A back end gave no usable answer. The text is the reason, in words for a visitor."""

    def __init__(self, reason: str, outcome: str, status: int | None = None) -> None:
        super().__init__(reason, outcome if status is None else str(status))
        self.outcome = outcome
        """For the metric."""


class _ClosedError(UnavailableError):
    """The connection was closed before an answer began."""


class RefusedError(UnavailableError):
    """The guestbook does not take this message, however often it is sent. The text is why."""


class _Problem(BaseModel, frozen=True):
    detail: str


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: httpx.Headers
    body: bytes

    def reason(self) -> str:
        """Returns the answer's own words, where it has some for people; else its status."""
        kind = self.headers.get("content-type", "").partition(";")[0].strip()
        words = ""
        if kind == "text/plain":
            with contextlib.suppress(UnicodeDecodeError):
                words = self.body[: 4 * LONGEST_REASON].decode().strip()
        elif kind == "application/problem+json":
            with contextlib.suppress(ValidationError):
                words = _Problem.model_validate_json(self.body).detail
        if not words or not words.isprintable() or len(words) > LONGEST_REASON:
            return f"it answered {self.status}"
        return f"it answered {self.status}: {words}"


@dataclass(frozen=True, slots=True)
class Backend:
    """A back end: its name, its address, and its pool of connections."""

    name: str
    base_url: str
    transport: httpx.AsyncBaseTransport


@dataclass(slots=True)
class Backends:
    """The message and guestbook services."""

    message: Backend
    guestbook: Backend
    timeout: float
    """Seconds for a whole call."""
    headers: dict[str, str]
    """Headers of every call."""
    keys_known: bool = field(default=False, init=False)
    """Whether the guestbook has shown that it stores a message once for a key."""

    async def greet(self, name: str) -> Greeting:
        """Asks the message service to greet somebody. Raises UnavailableError."""
        path = f"/hello/{quote(name, safe='')}"
        return await self._call(
            self.message,
            "GET",
            "/hello/{name}",
            path,
            lambda answer: _parse(answer, 200, Greeting, "its answer is not a greeting"),
        )

    async def messages(self, page: int) -> Messages:
        """Asks for a page (from 0) of messages, the newest first. Raises UnavailableError."""
        query = f"page={page}&size={PAGE_SIZE}&sort=id,desc"
        return await self._call(
            self.guestbook,
            "GET",
            "/api/messages",
            f"/api/messages?{query}",
            lambda answer: _parse(answer, 200, Messages, "its answer is not a page of messages"),
        )

    async def store(self, name: str, message: str, time: datetime, key: str) -> None:
        """Stores a message; a guestbook that knows keys stores it once for a key.

        Raises UnavailableError and RefusedError.
        """
        stamp = time.isoformat(timespec="milliseconds")
        body = Entry.model_construct(username=name, message=message, timestamp=stamp)  # type: ignore[arg-type]
        content = body.model_dump_json(warnings=False).encode()
        headers = {"content-type": "application/json", "idempotency-key": key}
        path = "/api/messages"

        def stored(answer: _Answer) -> None:
            if 400 <= answer.status < 500 and answer.status not in _TRY_AGAIN:
                raise RefusedError(answer.reason(), "refused", answer.status)
            _expect(answer, 201)

        try:
            await self._call(self.guestbook, "POST", path, path, stored, headers, content)
        except _ClosedError:
            if not self.keys_known:
                raise
            await self._call(self.guestbook, "POST", path, path, stored, headers, content)

    async def _call(
        self,
        backend: Backend,
        method: str,
        template: str,
        path: str,
        use: Callable[[_Answer], T],
        headers: dict[str, str] | None = None,
        content: bytes | None = None,
    ) -> T:
        """Makes a call, with its span and its metric, and uses the answer."""
        url = _url(backend.base_url + path)
        attributes: Attributes = {
            "http.request.method": method,
            "url.full": str(url),
            "url.template": template,
            "server.address": url.host,
            "server.port": url.port or (443 if url.scheme == "https" else 80),
            "peer.service": backend.name,
        }
        outcome = "ok"
        with client_span(f"{method} {template}", attributes) as span:
            request = httpx.Request(
                method,
                url,
                headers={**self.headers, **outgoing_headers(), **(headers or {})},
                content=content,
                extensions={"timeout": {"connect": CONNECT_SECONDS, "read": self.timeout}},
            )
            try:
                answer = await self._exchange(backend, request)
                span.set_attribute("http.response.status_code", answer.status)
                if answer.status >= 400:
                    fail_span(span, str(answer.status))
                if "idempotency-key-retention" in answer.headers and backend is self.guestbook:
                    self.keys_known = True
                return use(answer)
            except UnavailableError as error:
                outcome = error.outcome
                raise
            finally:
                backend_counter(backend.name, outcome).inc()

    async def _exchange(self, backend: Backend, request: httpx.Request) -> _Answer:
        """Returns an answer, whatever it is. Raises UnavailableError when there is none."""
        try:
            async with asyncio.timeout(self.timeout):
                response = await backend.transport.handle_async_request(request)
                try:
                    body = await _read(response)
                finally:
                    await response.aclose()
        except (httpx.HTTPError, aiohttp.ClientError, OSError, ValueError) as error:
            raise _unavailable(error, self.timeout) from error
        return _Answer(response.status_code, response.headers, body)


@contextlib.asynccontextmanager
async def connect(settings: Settings) -> AsyncIterator[Backends]:
    """Makes clients of the back ends, which connect when they are first asked.

    The transports are used without `httpx.AsyncClient` around them: all it could add are
    redirects and cookies, neither of which a back end shall cause here, and it doubles the time
    of a call.
    """
    # Loading the certificate authorities takes 20 ms, so once for both.
    tls = ssl.create_default_context()
    async with (
        _transport(settings.message_host, tls) as message,
        _transport(settings.guestbook_host, tls) as guestbook,
    ):
        yield Backends(
            Backend("message-service", settings.message_host, message),
            Backend("guestbook-service", settings.guestbook_host, guestbook),
            settings.backend_timeout,
            {
                "accept": "application/json",
                "accept-encoding": "identity",
                "user-agent": f"guestbook-ui/{header_value(settings.demo_version)}",
            },
        )


def _transport(base_url: str, tls: ssl.SSLContext) -> httpx.AsyncBaseTransport:
    return AiohttpTransport(
        verify=tls,
        limits=httpx.Limits(max_connections=200, keepalive_expiry=KEEP_ALIVE_SECONDS),
        proxy=_proxy(base_url),
    )


def _proxy(base_url: str) -> httpx.Proxy | None:
    """Returns the proxy that `http_proxy`, `https_proxy` and `no_proxy` name for an address."""
    address = urlsplit(base_url)
    url = getproxies().get(address.scheme)
    if not url or proxy_bypass(address.netloc):
        return None
    return httpx.Proxy(url if "://" in url else f"http://{url}")


@lru_cache(maxsize=1000)
def _url(text: str) -> httpx.URL:
    """Parses an address, which is a tenth of the time of a call; few are new."""
    return httpx.URL(text)


Model = TypeVar("Model", bound=BaseModel)


def _parse(answer: _Answer, status: int, model: type[Model], otherwise: str) -> Model:
    _expect(answer, status)
    try:
        return model.model_validate_json(answer.body)
    except ValidationError:
        raise UnavailableError(otherwise, "unreadable") from None


def _expect(answer: _Answer, wanted: int) -> None:
    if answer.status != wanted:
        final = 400 <= answer.status < 500 and answer.status not in _TRY_AGAIN
        outcome = "refused" if final else "error"
        raise UnavailableError(answer.reason(), outcome, answer.status)


async def _read(response: httpx.Response) -> bytes:
    """Reads the body as it comes from the transport; it is not encoded, as nothing was asked."""
    assert isinstance(response.stream, httpx.AsyncByteStream)  # noqa: S101
    body = bytearray()
    async for chunk in response.stream:
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise ValueError("answer too large")
    return bytes(body)


def _unavailable(error: Exception, timeout: float) -> UnavailableError:
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
