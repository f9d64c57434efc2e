"""The ui as a process of its own, with back ends that do as they are told and a real Redis."""

from __future__ import annotations

import shutil
import signal
import socket
import ssl
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.services.process import Service, environment, wait_until
from tests.services.ui.backend import Backend, Guestbook, greets


def redis_program() -> str:
    """The server to run; skips the test where none is installed."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed (Debian: apt-get install redis-server)")
    return program


class RedisServer:
    """A real redis-server on a free port; it can be stopped and started again, and forgets.

    With a password it asks for one; with the files of a certificate it speaks TLS.
    """

    def __init__(
        self, folder: Path, password: str = "", certificate: tuple[Path, Path] | None = None
    ) -> None:
        self._folder = folder
        self._password = password
        self._certificate = certificate
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]

    def start(self) -> None:
        command = [redis_program(), "--bind", "127.0.0.1", "--save", "", "--dir", str(self._folder)]
        if self._password:
            command += ["--requirepass", self._password]
        if self._certificate is None:
            command += ["--port", str(self.port)]
        else:
            certificate, key = map(str, self._certificate)
            command += ["--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no"]
            command += ["--tls-cert-file", certificate, "--tls-key-file", key]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_until(self._answers, "Redis listening")

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """It takes connections, and says nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def ask(self, *words: str) -> str:
        """Send one command; returns the first line of the answer."""
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=5) as plain,
            self._secured(plain) as connection,
        ):
            if self._password:
                _send(connection, "AUTH", self._password)
            return _send(connection, *words)

    def _secured(self, connection: socket.socket) -> socket.socket:
        if self._certificate is None:
            return connection
        context = ssl.create_default_context(cafile=str(self._certificate[0]))
        context.check_hostname = False
        return context.wrap_socket(connection)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self.thaw()
            self._signal(number)
            self._process.wait(60)
            self._process = None

    def _answers(self) -> bool:
        try:
            return self.ask("PING") == "+PONG"
        except OSError:
            return False


def _send(connection: socket.socket, *words: str) -> str:
    parts = "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in words)
    connection.sendall(f"*{len(words)}\r\n{parts}".encode())
    return connection.recv(4096).decode().partition("\r\n")[0]


class Ui(Service):
    """A running ui."""

    def browser(self) -> httpx.Client:
        """A client that keeps cookies and follows no redirect by itself."""
        return httpx.Client(base_url=self.url, timeout=30, trust_env=False)

    def ready(self) -> bool:
        return self._health("readiness") == 200

    def written(self) -> list[str]:
        """Returns all lines up to now; a request of its own is the last of them."""
        path = f"/{uuid4()}"
        httpx.get(self.url + path, timeout=30, trust_env=False)
        self.wait_for_line(path)
        return list(self.lines)

    def counted(self, name: str, **labels: str) -> float:
        """Returns the sum of a counter over its series with these labels."""
        return sum(value for found, value in self._series(name) if labels.items() <= found.items())

    def calls(self, backend: str) -> Counter[str]:
        """Returns the number of calls of a back end by their outcome."""
        return Counter(
            {
                labels["outcome"]: int(value)
                for labels, value in self._series("backend_calls_total")
                if labels["backend"] == backend
            }
        )

    def _series(self, name: str) -> Iterator[tuple[dict[str, str], float]]:
        text = httpx.get(f"{self.management}/metrics", trust_env=False).text
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == name:
                    yield sample.labels, sample.value

    def alive(self) -> bool:
        return self._health("liveness") == 200

    def _health(self, group: str) -> int:
        url = f"{self.management}/actuator/health/{group}"
        return httpx.get(url, trust_env=False).status_code


StartUi = Callable[..., Ui]


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
