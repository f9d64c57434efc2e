"""Sessions when Redis stops, comes back, hangs, or closes connections."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial

import httpx
import pytest

from tests.services.ui.backend import Backend, Guestbook
from tests.support.page import read
from tests.support.redis import RedisServer
from tests.support.ui import StartUi, Ui
from tests.support.wait import wait


@pytest.fixture(scope="module")
def own_redis(
    redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def _own_ui(start_ui: StartUi, environ: dict[str, str], own_redis: RedisServer) -> Ui:
    return start_ui(**{**environ, "REDIS_PORT": str(own_redis.port)})


@pytest.fixture
def own_ui(_own_ui: Ui, message: Backend, guestbook: Backend) -> Ui:
    """A ui whose Redis the test starts and stops; it was not there when the ui started."""
    return _own_ui


def test_without_redis_the_page_works_and_says_so(own_ui: Ui, stored: Guestbook) -> None:
    stored.add("Grace", "still here")
    with own_ui.browser() as browser:
        page = browser.get("/")
        assert page.status_code == 200
        assert not read(page).sessions_work
        assert read(page).messages == [("Grace", "still here")]
        assert browser.post("/greet", data={"name": "Ada", "message": "x"}).status_code == 303
        assert len(stored.messages) == 2
        answer = browser.post("/greet", data={"name": "Ada", "message": ""})
    assert answer.status_code == 200
    assert "could not be remembered" in (read(answer).problem or "")
    assert read(answer).name == "Ada"
    assert not own_ui.ready()
    assert own_ui.alive()


def test_it_recovers_when_redis_comes_and_goes(own_ui: Ui, own_redis: RedisServer) -> None:
    with own_ui.browser() as browser:
        for _ in range(2):
            own_redis.start()
            wait(own_ui.ready, "readiness after the start of Redis")
            assert read(browser.get("/")).sessions_work
            assert browser.post("/greet", data={"name": "Ada"}).status_code == 303
            assert read(browser.get("/")).greeting == "Hello Ada from message-1 with 1.0"
            own_redis.stop()
            page = browser.get("/")
            assert page.status_code == 200
            assert read(page).greeting is None
            assert not read(page).sessions_work
            wait(lambda: not own_ui.ready(), "unreadiness after the stop of Redis")
            assert own_ui.alive()
    assert not [line for line in own_ui.lines if "Traceback" in line]


def test_closed_connections_are_not_noticed(ui: Ui, redis: RedisServer) -> None:
    """An authorization policy of the mesh closes them when it comes into force, and goes again."""
    with ui.browser() as browser:
        browser.post("/greet", data={"name": "Ada"})
        for _ in range(5):
            assert redis.ask("CLIENT", "KILL", "TYPE", "normal").startswith(":")
            assert read(browser.get("/")).greeting == "Hello Ada from message-1 with 1.0"


def test_a_redis_that_hangs_costs_seconds_not_the_page(
    start_ui: StartUi, environ: dict[str, str], message: Backend, guestbook: Backend
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ui = start_ui(**{**environ, "REDIS_PORT": str(silent.getsockname()[1])})
        started = time.monotonic()
        page = httpx.get(ui.url, timeout=30, trust_env=False)
        assert time.monotonic() - started < 10
    assert page.status_code == 200
    assert not read(page).sessions_work


def test_a_service_link_of_kubernetes_is_no_port(start_ui: StartUi) -> None:
    """A Service named redis sets REDIS_PORT=tcp://… in every pod that asks for service links."""
    ui = start_ui(REDIS_HOST="127.0.0.1", REDIS_PORT="tcp://10.0.0.1:6379")
    assert ui.alive()


class TestOutage:
    """A Redis that is there, and is of no use."""

    @pytest.fixture
    def running(self, own_redis: RedisServer, own_ui: Ui) -> Iterator[RedisServer]:
        """A Redis that the test breaks; it works when the test begins."""
        own_redis.start()
        wait(own_ui.ready, "readiness")
        yield own_redis
        own_redis.stop()
        wait(lambda: not own_ui.ready(), "unreadiness")

    @staticmethod
    def read_only(redis: RedisServer) -> None:
        assert redis.ask("REPLICAOF", "127.0.0.1", "1") == "+OK"

    @staticmethod
    def writable(redis: RedisServer) -> None:
        assert redis.ask("REPLICAOF", "NO", "ONE") == "+OK"

    @staticmethod
    def full(redis: RedisServer) -> None:
        assert redis.ask("CONFIG", "SET", "maxmemory", "1") == "+OK"

    @staticmethod
    def roomy(redis: RedisServer) -> None:
        assert redis.ask("CONFIG", "SET", "maxmemory", "0") == "+OK"

    BROKEN = (
        (read_only, writable, "READONLY|read only replica"),
        (full, roomy, "OOM|maxmemory"),
        (RedisServer.stop, RedisServer.start, "onnect"),
    )

    @pytest.mark.parametrize(
        ("away", "back", "reason"), BROKEN, ids=["read only", "full", "not there"]
    )
    def test_readiness_sees_it_and_the_log_says_it_once(
        self,
        own_ui: Ui,
        running: RedisServer,
        stored: Guestbook,
        away: Callable[[RedisServer], None],
        back: Callable[[RedisServer], None],
        reason: str,
    ) -> None:
        def lines() -> list[str]:
            return [line for line in own_ui.written() if "Sessions are" in line]

        def visit(number: int) -> None:
            """Looks without a session, signs, looks with one, and probes."""
            with own_ui.browser() as browser:
                assert browser.get("/").status_code == 200
                form = {"name": f"Ada {number}", "message": f"{number}"}
                assert browser.post("/greet", data=form).status_code == 303
                for _ in range(3):
                    page = browser.get("/", headers={"cookie": f"SESSION={number:043}"})
                    assert page.status_code == 200
                assert not own_ui.ready()

        written = len(lines())
        away(running)
        wait(lambda: not own_ui.ready(), "unreadiness")
        assert own_ui.alive()
        with ThreadPoolExecutor(8) as visitors:
            list(visitors.map(visit, range(24)))
        assert len(stored.messages) == 24
        (line,) = lines()[written:]
        assert re.search(f"WARNING Sessions are unavailable: .*({reason})", line)

        back(running)
        wait(own_ui.ready, "readiness")
        with own_ui.browser() as browser:
            browser.post("/greet", data={"name": "Ada"})
            assert read(browser.get("/")).greeting == "Hello Ada from message-1 with 1.0"
        _, line = lines()[written:]
        assert line == "Sessions are available again"

    def test_the_first_probe_after_a_slow_second_says_up(
        self, own_ui: Ui, running: RedisServer
    ) -> None:
        running.freeze()
        wait(lambda: not own_ui.ready(), "unreadiness")
        assert own_ui.alive()
        running.thaw()
        # Within a second an outcome is used again, and a probe in between would be the first.
        time.sleep(1.1)
        assert own_ui.ready()

    def test_after_a_slow_second_every_visitor_has_their_own_session(
        self, own_ui: Ui, running: RedisServer
    ) -> None:
        with ExitStack() as stack:
            visitors = {}
            for number in range(12):
                browser = stack.enter_context(own_ui.browser())
                browser.post("/greet", data={"name": f"Ada {number}"})
                visitors[f"Ada {number}"] = browser
            running.freeze()
            wait(lambda: not own_ui.ready(), "unreadiness")
            with ThreadPoolExecutor(12) as threads:
                pages = threads.map(lambda browser: browser.get("/"), visitors.values())
                assert not any(read(page).sessions_work for page in pages)
            running.thaw()
            wait(own_ui.ready, "readiness")
            for _ in range(3):
                for name, browser in visitors.items():
                    assert read(browser.get("/")).name == name

    def test_probes_leave_nothing_in_redis_that_stays(
        self, own_ui: Ui, running: RedisServer
    ) -> None:
        running.ask("FLUSHALL")
        wait(lambda: own_ui.ready() and running.ask("DBSIZE") != ":0", "the key of a probe")
        staying = (
            "local n = 0 for _, key in ipairs(redis.call('KEYS', '*')) do "
            "if redis.call('TTL', key) < 0 then n = n + 1 end end return n"
        )
        assert running.ask("EVAL", staying, "0") == ":0"

    def test_commands_are_counted_by_their_outcome(self, own_ui: Ui, running: RedisServer) -> None:
        def counted(outcome: str) -> int:
            return own_ui.calls("redis")[outcome]

        def rises(outcome: str, before: int) -> bool:
            session = {"cookie": f"SESSION={'a' * 43}"}
            httpx.get(own_ui.url, headers=session, timeout=30, trust_env=False)
            return counted(outcome) > before

        breaks: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
            "timeout": (running.freeze, running.thaw),
            "error": (partial(self.read_only, running), partial(self.writable, running)),
            "unreachable": (running.stop, running.start),
        }
        for outcome, (away, back) in breaks.items():
            wait(own_ui.ready, "readiness")
            assert rises("ok", counted("ok"))
            before = counted(outcome)
            away()
            wait(partial(rises, outcome, before), outcome)
            back()
