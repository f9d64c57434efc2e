"""The two back ends: what is asked of them, and every way in which they can fail to answer.

Retries are the mesh's business, with one exception: a connection out of the pool that turns out
to be closed before a byte of the answer came. aiohttp then repeats a GET by itself; `store`
repeats its POST once, which the `Idempotency-Key` makes safe.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Annotated
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport
from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from services.common.telemetry import client_span, outgoing_headers
from services.ui.security import header_value
from services.ui.settings import Settings

PAGE_SIZE = 20
CONNECT_SECONDS = 1.0
KEEP_ALIVE_SECONDS = 60.0
"""Shorter than any server here keeps an idle connection, so that it is we who close it."""
MAX_ANSWER_BYTES = 4 * 1024 * 1024

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
    timestamp: datetime | None = None


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
        return self.embedded.messages


class UnavailableError(Exception):
    """A back end gave no usable answer. The text says why, in words for a visitor."""

    def __init__(self, reason: str, *, closed: bool = False) -> None:
        super().__init__(reason)
        self.closed = closed
        """The connection closed before an answer began."""


class RefusedError(Exception):
    """The guestbook will not take this message, however often it is sent. The text says why."""


class _Problem(BaseModel, frozen=True):
    detail: str


@dataclass(frozen=True, slots=True)
class Backend:
    """One of the two: its address, and its pool of connections."""

    base_url: str
    transport: httpx.AsyncBaseTransport


@dataclass(frozen=True, slots=True)
class Backends:
    """The message and guestbook services."""

    message: Backend
    guestbook: Backend
    timeout: float
    """Seconds for a whole call."""
    headers: dict[str, str]
    """What every call carries."""

    async def greet(self, name: str) -> Greeting:
        """Ask the message service to greet somebody. Raises UnavailableError."""
        status, body = await self._call(
            self.message, "GET", "/hello/{name}", f"/hello/{quote(name, safe='')}"
        )
        _expect(status, 200)
        try:
            return Greeting.model_validate_json(body)
        except ValidationError:
            raise UnavailableError("its answer is not a greeting") from None

    async def messages(self, page: int) -> Messages:
        """Ask for a page (from 0) of messages, the newest first. Raises UnavailableError."""
        status, body = await self._call(
            self.guestbook,
            "GET",
            "/api/messages",
            f"/api/messages?page={page}&size={PAGE_SIZE}&sort=id,desc",
        )
        _expect(status, 200)
        try:
            return Messages.model_validate_json(body)
        except ValidationError:
            raise UnavailableError("its answer is not a page of messages") from None

    async def store(self, name: str, message: str, idempotency_key: str) -> None:
        """Store a message; the same key never stores twice. Raises as the others do,
        and RefusedError."""
        entry = Entry(username=name, message=message)
        body = entry.model_dump_json(exclude_unset=True).encode()
        headers = {"content-type": "application/json", "idempotency-key": idempotency_key}
        path = "/api/messages"
        try:
            status, answer = await self._call(self.guestbook, "POST", path, path, headers, body)
        except UnavailableError as error:
            if not error.closed:
                raise
            status, answer = await self._call(self.guestbook, "POST", path, path, headers, body)
        if status in (400, 413, 422):
            try:
                raise RefusedError(_Problem.model_validate_json(answer).detail[:300])
            except ValidationError:
                raise RefusedError(f"it answered {status}") from None
        _expect(status, 201)

    async def _call(
        self,
        backend: Backend,
        method: str,
        route: str,
        path: str,
        headers: dict[str, str] | None = None,
        content: bytes | None = None,
    ) -> tuple[int, bytes]:
        """Status and body of an answer, whatever it is. UnavailableError when there is none."""
        url = backend.base_url + path
        attributes = {"http.request.method": method, "url.full": url}
        with client_span(f"{method} {route}", **attributes) as span:
            request = httpx.Request(
                method,
                _url(url),
                headers={**self.headers, **outgoing_headers(), **(headers or {})},
                content=content,
                extensions={"timeout": {"connect": CONNECT_SECONDS, "read": self.timeout}},
            )
            try:
                async with asyncio.timeout(self.timeout):
                    response = await backend.transport.handle_async_request(request)
                    try:
                        body = await _read(response)
                    finally:
                        await response.aclose()
            except (httpx.HTTPError, aiohttp.ClientError, OSError, ValueError) as error:
                raise _unavailable(error, self.timeout) from error
            span.set_attribute("http.response.status_code", response.status_code)
            return response.status_code, body


@asynccontextmanager
async def connect(settings: Settings) -> AsyncIterator[Backends]:
    """Clients of the back ends, which connect when they are first asked.

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
            Backend(settings.message_host, message),
            Backend(settings.guestbook_host, guestbook),
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
    """The proxy that `http_proxy`, `https_proxy` and `no_proxy` name for an address."""
    address = urlsplit(base_url)
    url = getproxies().get(address.scheme)
    if not url or proxy_bypass(address.netloc):
        return None
    return httpx.Proxy(url if "://" in url else f"http://{url}")


@lru_cache(maxsize=1000)
def _url(text: str) -> httpx.URL:
    """Taking an address apart is a tenth of the time of a call, and few are new."""
    return httpx.URL(text)


def _expect(status: int, wanted: int) -> None:
    if status != wanted:
        raise UnavailableError(f"it answered {status}")


async def _read(response: httpx.Response) -> bytes:
    """The body as it comes from the transport: nothing is encoded, as none was asked for."""
    assert isinstance(response.stream, httpx.AsyncByteStream)  # noqa: S101
    body = bytearray()
    async for chunk in response.stream:
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise ValueError("answer too large")
    return bytes(body)


def _unavailable(error: Exception, timeout: float) -> UnavailableError:
    """What happened, from the error of aiohttp that is below the one of httpx."""
    match error if isinstance(error, TimeoutError) else error.__cause__ or error:
        case aiohttp.ConnectionTimeoutError():
            return UnavailableError(f"no connection within {CONNECT_SECONDS:g} s")
        case TimeoutError():
            return UnavailableError(f"no answer within {timeout:g} s")
        case aiohttp.ClientConnectorDNSError():
            return UnavailableError("its name cannot be resolved")
        case aiohttp.ClientConnectorError(os_error=ConnectionRefusedError()):
            return UnavailableError("the connection was refused")
        case aiohttp.ClientConnectorError():
            return UnavailableError("it cannot be reached")
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError() | ConnectionError():
            return UnavailableError("the connection was closed", closed=True)
        case _:
            return UnavailableError("its answer cannot be read")
