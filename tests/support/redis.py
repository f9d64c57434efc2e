"""A private redis-server, which tests may stop, kill, freeze and start again."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
from pathlib import Path

import pytest

from tests.support.ports import free_port
from tests.support.server import ServerProcess
from tests.support.wait import wait


def redis_program() -> str:
    """The server to run; skips the test where none is installed."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed (Debian: apt-get install redis-server)")
    return program


class RedisServer(ServerProcess):
    """A real redis-server on a free port; it can be stopped and started again, and forgets.

    With a password it asks for one; with the files of a certificate it speaks TLS.
    """

    def __init__(
        self, folder: Path, password: str = "", certificate: tuple[Path, Path] | None = None
    ) -> None:
        self._folder = folder
        self._password = password
        self._certificate = certificate
        self.port = free_port()

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
        wait(self._answers, "Redis listening")

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

    def _answers(self) -> bool:
        try:
            return self.ask("PING") == "+PONG"
        except OSError:
            return False


def _send(connection: socket.socket, *words: str) -> str:
    parts = "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in words)
    connection.sendall(f"*{len(words)}\r\n{parts}".encode())
    return connection.recv(4096).decode().partition("\r\n")[0]
