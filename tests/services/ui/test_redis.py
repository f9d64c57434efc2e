"""Sessions when Redis stops, comes back, hangs, or closes connections."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.services.process import wait_until
from tests.services.ui.backend import Backend, Guestbook
from tests.services.ui.conftest import RedisServer, StartUi, Ui
from tests.services.ui.page import read


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
            wait_until(own_ui.ready, "readiness after the start of Redis")
            assert read(browser.get("/")).sessions_work
            assert browser.post("/greet", data={"name": "Ada"}).status_code == 303
            assert read(browser.get("/")).greeting == "Hello Ada from message-1 with 1.0"
            own_redis.stop()
            page = browser.get("/")
            assert page.status_code == 200
            assert read(page).greeting is None
            assert not read(page).sessions_work
            wait_until(lambda: not own_ui.ready(), "unreadiness after the stop of Redis")
            assert own_ui.alive()
    assert not [line for line in own_ui.lines if "Traceback" in line]


def test_closed_connections_are_not_noticed(ui: Ui, redis: RedisServer) -> None:
    """What an authorization policy of the mesh does when it comes into force, and goes again."""
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
