"""A private MySQL-compatible server, which tests may stop, kill, freeze and start again."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pymysql
import pytest

from tests.services.process import wait_until

DATABASE = "guestbook"


def server_program() -> str:
    """The server to run; skips the test where none is installed."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/usr/libexec"
    program = shutil.which("mariadbd", path=path) or shutil.which("mysqld", path=path)
    if program is None:
        pytest.skip("neither mariadbd nor mysqld is installed (Debian: mariadb-server)")
    return program


class MySQL:
    """A server with its own data folder, socket and port; `url` is the empty database in it.

    `options` are more options of the server's command line.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self._options = options
        self._program = server_program()
        self._folder = folder
        self._data = folder / "data"
        self._log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._initialize()

    def url(self, database: str = DATABASE) -> str:
        return f"mysql+pymysql://root@127.0.0.1:{self.port}/{database}"

    def connect(self, database: str | None = None) -> pymysql.Connection[pymysql.cursors.Cursor]:
        return pymysql.connect(
            host="127.0.0.1", port=self.port, user="root", database=database, autocommit=True
        )

    def create(self, database: str) -> str:
        """A new, empty database; answers its URL."""
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"DROP DATABASE IF EXISTS `{database}`")
            cursor.execute(f"CREATE DATABASE `{database}`")
        return self.url(database)

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._program,
                    "--no-defaults",
                    "--user=root",
                    f"--datadir={self._data}",
                    f"--socket={self._folder / 'socket'}",
                    f"--port={self.port}",
                    "--bind-address=127.0.0.1",
                    f"--pid-file={self._folder / 'pid'}",
                    "--innodb-buffer-pool-size=256M",
                    # An acknowledged commit survives the end of the process, if not of the machine.
                    "--innodb-flush-log-at-trx-commit=2",
                    *self._options,
                ],
                stdout=log,
                stderr=log,
            )
        wait_until(self._answers, f"the database server; see {self._log}", 60)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """It takes connections, and says nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

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
            self.connect().close()
        except pymysql.Error:
            assert self._process is not None
            assert self._process.poll() is None, self._log.read_text()
            return False
        return True

    def _initialize(self) -> None:
        if "mariadb" in Path(self._program).resolve().name:
            command = [
                "mariadb-install-db",
                "--no-defaults",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
            ]
        else:
            command = [self._program, "--no-defaults", "--initialize-insecure"]
        with self._log.open("ab") as log:
            subprocess.run(
                [*command, "--user=root", f"--datadir={self._data}"],
                check=True,
                stdout=log,
                stderr=log,
            )
        self.start()
        self.create(DATABASE)
