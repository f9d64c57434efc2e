"""The ui as a process of its own, with back ends that do as they are told and a real Redis."""

from __future__ import annotations

import os
import queue
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.services.ui.backend import Backend, Guestbook, greets


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 20) -> None:
    """Wait for something that takes a moment; fail when it does not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds:g} s"
        time.sleep(0.02)


class RedisServer:
    """A real redis-server on a free port; it can be stopped and started again, and forgets."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]

    def start(self) -> None:
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        self._process = subprocess.Popen(
            [*command, "--dir", str(self._folder)], stdout=subprocess.DEVNULL
        )
        wait_until(self._answers, "Redis listening")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def ask(self, *words: str) -> str:
        """Send one command; the first line of the answer, or the text of a string."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            parts = "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in words)
            connection.sendall(f"*{len(words)}\r\n{parts}".encode())
            return connection.recv(4096).decode().partition("\r\n")[0]

    def _answers(self) -> bool:
        try:
            return self.ask("PING") == "+PONG"
        except OSError:
            return False


@dataclass
class Ui:
    """A running ui."""

    url: str
    management_url: str
    process: subprocess.Popen[str]
    log: list[str] = field(default_factory=list)

    def browser(self) -> httpx.Client:
        """A client with cookies that follows redirects when it is told to."""
        return httpx.Client(base_url=self.url, timeout=30, trust_env=False)

    def ready(self) -> int:
        url = f"{self.management_url}/actuator/health/readiness"
        return httpx.get(url, trust_env=False).status_code


StartUi = Callable[..., Ui]


@pytest.fixture(scope="session")
def start_ui() -> Iterator[Callable[[dict[str, str]], Ui]]:
    """Start a ui with these environment variables; all are stopped at the end."""
    with ExitStack() as stack:

        def start(environ: dict[str, str]) -> Ui:
            own = {"HOST": "127.0.0.1", "PORT": "0", "MANAGEMENT_PORT": "0", "HOSTNAME": "ui-1"}
            path = {"PATH": os.environ["PATH"], "SHUTDOWN_DRAIN": "0"}
            process = subprocess.Popen(
                [sys.executable, "-m", "services.ui"],
                env={**path, **own, **environ},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            stack.callback(_stop, process)
            lines: queue.Queue[str] = queue.Queue()
            log: list[str] = []
            threading.Thread(target=_read, args=(process, log, lines), daemon=True).start()
            while True:
                line = lines.get(timeout=30)
                assert line, f"the ui ended: {log}"
                if found := re.search(r"ready on (\S+), management on (\S+)", line):
                    return Ui(found[1], found[2], process, log)

        yield start


def _read(process: subprocess.Popen[str], log: list[str], lines: queue.Queue[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        log.append(line.rstrip("\n"))
        lines.put(line)
    lines.put("")


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    assert process.stdout is not None
    process.stdout.close()


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed (Debian: apt-get install redis-server)")
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
    """What the guestbook keeps."""
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
    """How a ui finds the back ends and Redis of these tests."""
    message, guestbook = _backends
    return {
        "MESSAGE_HOST": message.url,
        "GUESTBOOK_HOST": guestbook.url,
        "REDIS_HOST": "127.0.0.1",
        "REDIS_PORT": str(redis.port),
    }


@pytest.fixture(scope="session")
def _patient_ui(start_ui: StartUi, environ: dict[str, str]) -> Ui:
    return start_ui(environ)


@pytest.fixture(scope="session")
def _impatient_ui(start_ui: StartUi, environ: dict[str, str]) -> Ui:
    return start_ui({**environ, "BACKEND_TIMEOUT": "1"})


@pytest.fixture
def ui(_patient_ui: Ui, message: Backend, guestbook: Backend) -> Ui:
    """A ui with its own timeouts."""
    return _patient_ui


@pytest.fixture
def impatient_ui(_impatient_ui: Ui, message: Backend, guestbook: Backend) -> Ui:
    """A ui that waits a second for a back end."""
    return _impatient_ui
