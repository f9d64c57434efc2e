"""The page, with a session, a greeting and twenty messages, beside a minimal one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from bench.figure import Figure
from bench.guestbook import fill
from bench.load import Load, load
from tests.support.client import Client, until_ready
from tests.support.mysql import MySQL
from tests.support.redis import RedisServer
from tests.support.service import Service, environment

CONNECTIONS = 32
ROUNDS = 5


def figures() -> Iterator[Figure]:
    """Measure; each figure comes as soon as it is known."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        server = MySQL(Path(folder))
        stack.callback(server.stop)
        redis = RedisServer(Path(folder))
        stack.callback(redis.stop)
        redis.start()
        with _pages(server, redis, 100) as pages:
            # In turns, so that what else the machine does meets both.
            rounds = [(pages.load_ui(), pages.load_minimal()) for _ in range(ROUNDS)]
        few, minimal = (max(each, key=_rate) for each in zip(*rounds, strict=True))
        yield Figure(
            "GET / with greeting and 20 messages, against a minimal aiohttp page",
            few.rate,
            minimal.rate,
            "pages/s",
            at_least=0.80,
        )
        yield Figure(
            "GET /, 99th percentile against the median", few.p99, few.median, "ms", at_most=4
        )
        with _pages(server, redis, 1_000_000) as pages:
            many = max((pages.load_ui() for _ in range(ROUNDS)), key=_rate)
        yield Figure(
            "GET /, 100 messages against 1,000,000", few.rate, many.rate, "pages/s", at_most=1.3
        )


@dataclass(frozen=True, slots=True)
class _Pages:
    ui: Service
    minimal: Service
    cookie: str

    def load_ui(self) -> Load:
        return load(self.ui.url + "/", CONNECTIONS, 3, (self.cookie,))

    def load_minimal(self) -> Load:
        return load(self.minimal.url + "/", CONNECTIONS, 3, (self.cookie,))


def _rate(load: Load) -> float:
    return load.rate


@contextmanager
def _pages(server: MySQL, redis: RedisServer, rows: int) -> Iterator[_Pages]:
    """Both pages over the same real services, with so many messages."""
    with ExitStack() as stack:

        def start(name: str, **settings: object) -> Service:
            service = Service(name, environment(**settings))
            stack.callback(service.stop)
            return service

        guestbook = start("guestbook", DATABASE_URL=server.create("guestbook"))
        with Client(guestbook) as client:
            until_ready(client)
            fill(server, rows)
            client.get()  # brings the count in line
        environ = {
            "MESSAGE_HOST": start("message").url,
            "GUESTBOOK_HOST": guestbook.url,
            "REDIS_HOST": "127.0.0.1",
            "REDIS_PORT": redis.port,
        }
        ui, minimal = start("ui", **environ), start("bench.minimal_page", **environ)
        session = httpx.post(f"{ui.url}/greet", data={"name": "Ada"}).cookies["SESSION"]
        pages = _Pages(ui, minimal, f"Cookie: SESSION={session}")
        for page in (ui, minimal):
            text = httpx.get(page.url, cookies={"SESSION": session}).text
            assert "Hello Ada" in text
            assert text.count("</li>") == 20
        yield pages
