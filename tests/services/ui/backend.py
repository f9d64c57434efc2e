"""A back end for the ui to ask: a real server that answers, or fails, as it is told."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass(frozen=True)
class Seen:
    """A request as it came."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """An answer to give: a status with a body, or, with `raw`, bytes instead of HTTP."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None


HANG = Answer(raw=b"hang")
RESET = Answer(raw=b"reset")

Behaviour = Callable[[Seen], Answer]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are what these tests are about."""


class Backend:
    """Listens on a free port of 127.0.0.1 from `start` to `stop`; both can be repeated."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.seen: list[Seen] = []
        self.port = 0
        self._server: ThreadingHTTPServer | None = None
        self._released = threading.Event()
        self._connections: set[socket.socket] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def requests(self, method: str) -> list[Seen]:
        return [seen for seen in self.seen if seen.method == method]

    def start(self) -> None:
        self._released.clear()
        self._server = _Server(("127.0.0.1", self.port), self._handler())
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Close the port and every connection: from now on, connections are refused."""
        if self._server is None:
            return
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
        self._server = None
        self.close_connections()

    def close_connections(self) -> None:
        """Close what is open, as a server that restarts does."""
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        backend = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                backend._connections.add(self.connection)

            def finish(self) -> None:
                backend._connections.discard(self.connection)
                with suppress(OSError):
                    super().finish()

            def log_message(self, format: str, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                length = int(self.headers.get("content-length", 0))
                seen = Seen(
                    self.command,
                    self.path,
                    {name.lower(): value for name, value in self.headers.items()},
                    self.rfile.read(length),
                )
                backend.seen.append(seen)
                self.reply(backend.behaviour(seen))

            do_POST = do_HEAD = do_GET  # noqa: N815

            def reply(self, answer: Answer) -> None:
                if answer is HANG:
                    backend._released.wait(60)
                    self.close_connection = True
                elif answer is RESET:
                    linger = bytes((1, 0, 0, 0, 0, 0, 0, 0))
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    self.connection.close()
                    self.close_connection = True
                elif answer.raw is not None:
                    self.connection.sendall(answer.raw)
                    self.close_connection = True
                else:
                    self.send_response(answer.status)
                    for name, value in answer.headers.items():
                        self.send_header(name, value)
                    self.send_header("content-length", str(len(answer.body)))
                    self.end_headers()
                    self.wfile.write(answer.body)

        return Handler


def as_json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    body = json.dumps(content).encode()
    return Answer(status, body, {"content-type": "application/json", **(headers or {})})


def as_text(text: str, status: int) -> Answer:
    """Returns an answer as Envoy gives it where it answers by itself."""
    return Answer(status, text.encode(), {"content-type": "text/plain"})


def as_problem(status: int, detail: Any, charset: str = "") -> Answer:
    """Returns an error as the guestbook service answers it."""
    content = {"title": "A problem", "status": status, "detail": detail, "request_id": "1"}
    return as_json(content, status, {"content-type": f"application/problem+json{charset}"})


def greets(seen: Seen) -> Answer:
    """The message service, in health."""
    name = unquote(urlsplit(seen.target).path.removeprefix("/hello/"))
    greeting = f"Hello {name} from message-1 with 1.0"
    return as_json({"greeting": greeting, "version": "1.0", "hostname": "message-1"})


class Guestbook:
    """The guestbook service, in health: keeps messages, and no key twice."""

    headers: ClassVar[dict[str, str]] = {"idempotency-key-retention": "86400"}
    """Headers of its answers: a client is told that it knows keys."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.keys: set[str] = set()

    def __call__(self, seen: Seen) -> Answer:
        if seen.method == "POST":
            return self.store(seen)
        query = parse_qs(urlsplit(seen.target).query)
        page, size = int(query["page"][0]), int(query["size"][0])
        newest = self.messages[::-1]
        total = len(newest)
        content = {
            "_embedded": {"messages": newest[page * size : (page + 1) * size]},
            "page": {
                "size": size,
                "totalElements": total,
                "totalPages": -(-total // size),
                "number": page,
            },
        }
        return as_json(content, headers=self.headers)

    def store(self, seen: Seen) -> Answer:
        key = seen.headers["idempotency-key"]
        entry = json.loads(seen.body)
        if key not in self.keys:
            self.keys.add(key)
            self.add(**entry)
        return as_json(entry, 201, self.headers)

    def add(
        self, username: str, message: str, timestamp: Any = "2026-01-31T12:00:00.000+00:00"
    ) -> None:
        self.messages.append({"username": username, "message": message, "timestamp": timestamp})


class JavaGuestbook(Guestbook):
    """The guestbook service of the Java original: it ignores keys, and drops milliseconds."""

    headers: ClassVar[dict[str, str]] = {}

    def store(self, seen: Seen) -> Answer:
        entry = json.loads(seen.body)
        timestamp = entry.get("timestamp")
        if timestamp is not None:
            moment = datetime.fromisoformat(timestamp).astimezone(UTC)
            timestamp = f"{moment:%Y-%m-%dT%H:%M:%S}.000+0000"
        self.add(entry["username"], entry["message"], timestamp)
        return as_json(self.messages[-1], 201)
