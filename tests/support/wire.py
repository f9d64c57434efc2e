"""HTTP byte by byte, for clients that no library plays."""

from __future__ import annotations

import io
import json
import socket
from dataclasses import dataclass
from http.client import HTTPResponse
from types import SimpleNamespace, TracebackType
from typing import Any, Self, cast
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    """By lower-case name."""
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class _Reader(io.BufferedReader):
    def close(self) -> None:
        """Stays open for the next answer of the connection."""


class Connection:
    """A TCP connection to a service; sends what it is given and reads answers in order.

    `window`: bytes of the answer the kernel takes before the program reads.
    """

    def __init__(self, url: str, *, timeout: float = 20, window: int | None = None) -> None:
        parts = urlsplit(url)
        assert parts.port is not None
        self.socket = socket.socket()
        if window is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        self.socket.settimeout(timeout)
        self.socket.connect((parts.hostname, parts.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = _Reader(socket.SocketIO(self.socket, "r"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self, method: str = "GET") -> Answer:
        """Reads the next answer; raises OSError or HTTPException where there is none."""
        source = cast(socket.socket, SimpleNamespace(makefile=lambda _: self._reader))
        with HTTPResponse(source, method=method) as response:
            response.begin()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, headers, response.read())

    def ended(self) -> bool:
        """Whether the service has closed the connection; fails if it sends something instead."""
        try:
            data = self._reader.read1(1)
        except ConnectionError:
            return True
        except TimeoutError:
            return False
        assert data == b"", data + self._reader.peek()
        return True


def request(
    method: str, target: str, *headers: bytes, host: bytes | None = b"Host: test", body: bytes = b""
) -> bytes:
    """The bytes of a request; header lines are without their line ends."""
    lines = [f"{method} {target} HTTP/1.1".encode(), *([] if host is None else [host]), *headers]
    if body:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def exchange(url: str, data: bytes, method: str = "GET") -> Answer:
    """Sends bytes on a connection of their own; returns the answer."""
    with Connection(url) as connection:
        connection.send(data)
        return connection.answer(method)
