"""The ui as a process of its own, with back ends that do as they are told and a real Redis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.services.ui.backend import Backend, Guestbook, greets
from tests.support.redis import RedisServer
from tests.support.service import environment
from tests.support.ui import StartUi, Ui


@pytest.fixture(scope="session")
def start_ui() -> Iterator[StartUi]:
    """Start a ui with these settings; all are stopped at the end."""
    with ExitStack() as stack:

        def start(**settings: object) -> Ui:
            ui = Ui("ui", environment(HOSTNAME="ui-1", **settings))
            stack.callback(ui.stop)
            return ui

        yield start


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def _backends() -> Iterator[tuple[Backend, Backend]]:
    message, guestbook = Backend(greets), Backend(Guestbook())
    message.start()
    guestbook.start()
    yield message, guestbook
    message.stop()
    guestbook.stop()


@pytest.fixture
def message(_backends: tuple[Backend, Backend]) -> Iterator[Backend]:
    """The message service, in health until a test changes that."""
    yield from _fresh(_backends[0], greets)


@pytest.fixture
def stored() -> Guestbook:
    """The messages the guestbook keeps."""
    return Guestbook()


@pytest.fixture
def guestbook(_backends: tuple[Backend, Backend], stored: Guestbook) -> Iterator[Backend]:
    """The guestbook service, in health and empty until a test changes that."""
    yield from _fresh(_backends[1], stored)


def _fresh(backend: Backend, behaviour: Callable[..., object]) -> Iterator[Backend]:
    backend.behaviour = behaviour  # type: ignore[assignment]
    backend.seen.clear()
    yield backend
    backend.stop()
    backend.start()


@pytest.fixture(scope="session")
def environ(_backends: tuple[Backend, Backend], redis: RedisServer) -> dict[str, str]:
    """The settings with which a ui finds the back ends and Redis of these tests."""
    message, guestbook = _backends
    return {
        "MESSAGE_HOST": message.url,
        "GUESTBOOK_HOST": guestbook.url,
        "REDIS_HOST": "127.0.0.1",
        "REDIS_PORT": str(redis.port),
    }


@pytest.fixture(scope="session")
def _patient_ui(start_ui: StartUi, environ: dict[str, str]) -> Ui:
    return start_ui(**environ)


@pytest.fixture(scope="session")
def _impatient_ui(start_ui: StartUi, environ: dict[str, str]) -> Ui:
    return start_ui(**environ, BACKEND_TIMEOUT=1)


@pytest.fixture
def ui(_patient_ui: Ui, message: Backend, guestbook: Backend) -> Ui:
    """A ui with its own timeouts."""
    return _patient_ui


@pytest.fixture
def fresh_ui(environ: dict[str, str], message: Backend, guestbook: Backend) -> Iterator[Ui]:
    """A ui that nobody has asked for anything yet."""
    ui = Ui("ui", environment(**environ))
    yield ui
    ui.stop()


@pytest.fixture
def impatient_ui(_impatient_ui: Ui, message: Backend, guestbook: Backend) -> Ui:
    """A ui that waits a second for a back end."""
    return _impatient_ui
