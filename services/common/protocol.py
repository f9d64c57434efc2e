"""HTTP/1.1 by uvicorn, with limits on size and time.

uvicorn leaves them to a proxy in front; without one a single client could fill the memory or keep
connections open for ever. With its defaults it also drops the body of a request that offers an
upgrade to HTTP/2, as Java's own client and `curl --http2` do; RFC 9110, section 7.8, lets a server
ignore the offer.
"""

import logging
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, Literal, NoReturn

import httptools
from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from services.common import logs
from services.common.context import current_request, new_request
from services.common.errors import problem
from services.common.metrics import UNMATCHED, record_request

MAX_HEAD = 64 * 1024
"""Bytes of a request line and its headers."""
MAX_REQUEST = 512 * 1024
"""Bytes of a whole request: head, body, chunk framing and trailers."""
MAX_WAITING = 64
"""Requests that may wait on a connection for an earlier one to be answered (pipelining)."""
HEAD_TIMEOUT = 10.0
"""Seconds for a connection's first byte, and for a head from its first byte on."""
BODY_TIMEOUT = 30.0
"""Seconds for the rest of a request, from the end of its head on."""
WRITE_TIMEOUT = 20.0
"""Seconds in which a client must take some of its answer."""
LINGER = 2.0
"""Seconds in which a client that sent too much can read its answer."""

_LONG_HEAD = (431, f"the head of the request is over {MAX_HEAD} bytes long")


class _Transport:
    """A transport with another `close`."""

    def __init__(self, transport: Any, close: Callable[[], None]) -> None:
        self._transport = transport
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = close

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def mute(self) -> None:
        """Drops further answers: pipelined requests do not learn that the connection ended."""
        self.write = lambda _: None
        self.is_closing = lambda: True


class LimitedProtocol(HttpToolsProtocol):
    """A connection. The server calls `check_time` about every second."""

    _stage: Literal["idle", "head", "body"] = "idle"
    _size = 0
    """Bytes of the current request, without the chunk of data in which an earlier one ended."""
    _chunk = 0
    """Bytes of the data that are being parsed."""
    _deadline: float | None = None
    _refusal = (400, "this is not HTTP/1.1")
    """Answer to data that the parser, or a callback of it, refuses."""
    _stopped = False
    """Whether no more is read: the client sent too much."""
    _unsent = 0
    _unsent_since = 0.0

    def connection_made(self, transport: Any) -> None:
        self._close = transport.close
        self._wrapped = _Transport(transport, self._end)
        super().connection_made(self._wrapped)  # type: ignore[arg-type]
        self._deadline = self.loop.time() + HEAD_TIMEOUT

    def connection_lost(self, error: Exception | None) -> None:
        self._wrapped.mute()
        super().connection_lost(error)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Answers what a client asked before it closed its own side; then the connection ends."""
        waits = self._stage == "idle" and bool(self.cycle) and not self.cycle.response_complete
        if waits:
            self.cycle.keep_alive = False
        return waits

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._stopped:
            self.transport.pause_reading()
            return
        self._chunk = len(data)
        self._size += self._chunk
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError:
            self._refuse(*self._refusal)
            return
        if self._stage == "head" and self._size > MAX_HEAD:
            self._refuse(*_LONG_HEAD)
        elif self._stage == "body" and self._size > MAX_REQUEST:
            self._stop_reading()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._stage = "head"
        self._deadline = self.loop.time() + HEAD_TIMEOUT

    def on_headers_complete(self) -> None:
        self._stage = "body"
        self._deadline = self.loop.time() + BODY_TIMEOUT
        if self.parser.should_upgrade():
            return  # `_ignore_upgrade` parses it again.
        names = [name for name, _ in self.headers]
        if names.count(b"host") != 1 and self.parser.get_http_version() == "1.1":
            self._fail(400, "a request has one Host header")
        if max(self._size, self._chunk) > MAX_HEAD:
            size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if size > MAX_HEAD:
                self._fail(*_LONG_HEAD)
        if len(self.pipeline) >= MAX_WAITING:
            self._fail(400, f"over {MAX_WAITING} requests wait for an answer")
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            self._stage = "idle"
            self._size = 0
            self._deadline = None
            super().on_message_complete()

    def check_time(self, now: float) -> None:
        """Ends the connection when its client is late with a request or with an answer."""
        if self._deadline is not None and now > self._deadline:
            if self._stage == "body":
                self._refuse(408, "the request was not complete in time")
            elif self.cycle is None or self.cycle.response_complete:
                self._close()
        unsent = self.transport.get_write_buffer_size()
        if unsent == 0 or unsent != self._unsent:
            self._unsent, self._unsent_since = unsent, now
        elif now - self._unsent_since > WRITE_TIMEOUT:
            self.transport.abort()

    def _fail(self, status: int, detail: str) -> NoReturn:
        """Has the parser stop, and the request refused."""
        self._refusal = (status, detail)
        raise ValueError

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Parses the head again without its Upgrade header, then what follows it."""
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._refuse(405, "this is no proxy")
            return
        fields = [b"%s: %s\r\n" % field for field in self.headers if field[0] != b"upgrade"]
        version = self.parser.get_http_version().encode()
        head = b"%s %s HTTP/%s\r\n%s\r\n" % (method, self.url, version, b"".join(fields))
        self.parser = httptools.HttpRequestParser(self)
        self._stage = "idle"
        self._size = 0
        self.data_received(head + rest)

    def _refuse(self, status: int, detail: str) -> None:
        """Answers for the application and closes; without an answer where another is due."""
        self._stopped = True
        self._deadline = None
        if self.cycle is not None:
            under_way = self.cycle.response_started and not self.cycle.response_complete
            if self.pipeline or under_way:
                self.transport.abort()
                return
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        answer = copy_context().run(_refusal, status, detail)
        headers = [*answer.raw_headers, (b"connection", b"close")]
        fields = [b"%s: %s\r\n" % field for field in headers]
        body = bytes(answer.body)
        self.transport.write(b"".join([STATUS_LINE[status], *fields, b"\r\n", body]))
        self._end()

    def _stop_reading(self) -> None:
        """Reads no more of a request that is too long; an answer that has begun is still given."""
        if not self.cycle.response_started:
            self._refuse(413, f"the request is over {MAX_REQUEST} bytes long")
            return
        self._stopped = True
        self._deadline = None
        self.transport.pause_reading()
        self.cycle.keep_alive = False
        if self.cycle.response_complete:
            self._end()

    def _end(self) -> None:
        """Closes the connection; a moment later where the client is sending: it reads first."""
        if self._stage == "idle":
            self._close()
        elif not self.transport.is_closing():
            self._stopped = True
            self._wrapped.mute()
            self.transport.pause_reading()
            self.transport.write_eof()
            self.loop.call_later(LINGER, self.transport.abort)


def _refusal(status: int, detail: str) -> Response:
    """Returns an answer of the protocol's own, logged and counted as the application's are."""
    current_request.set(new_request([]))
    record_request("-", UNMATCHED, status, 0)
    logging.getLogger(logs.ACCESS).info(logs.ACCESS_LINE, "-", f"({detail})", status, 0)
    return problem(status, detail)
