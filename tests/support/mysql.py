"""A private MySQL-compatible server, which tests may stop, kill, freeze and start again."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pymysql
import pytest

from tests.support.ports import free_port
from tests.support.server import ServerProcess
from tests.support.wait import wait

DATABASE = "guestbook"

TOO_MANY_CONNECTIONS = 1040


def server_program() -> str:
    """The server to run; skips the test where none is installed."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/usr/libexec"
    program = shutil.which("mariadbd", path=path) or shutil.which("mysqld", path=path)
    if program is None:
        pytest.skip("neither mariadbd nor mysqld is installed (Debian: mariadb-server)")
    return program


class MySQL(ServerProcess):
    """A server with its own data folder, socket and port; `url` is the empty database in it.

    `options` are more options of the server's command line.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self._options = options
        self._program = server_program()
        self._folder = folder
        self._data = folder / "data"
        self._log = folder / "log"
        self.port = free_port()
        self._initialize()

    def url(self, database: str = DATABASE, user: str = "root", port: int | None = None) -> str:
        """The address of a database; `port` is that of a proxy in between."""
        return f"mysql+pymysql://{user}@127.0.0.1:{port or self.port}/{database}"

    def connect(
        self, database: str | None = None, user: str = "root"
    ) -> pymysql.Connection[pymysql.cursors.Cursor]:
        return pymysql.connect(
            host="127.0.0.1", port=self.port, user=user, database=database, autocommit=True
        )

    def execute(self, *statements: str, database: str = DATABASE) -> tuple[tuple[Any, ...], ...]:
        """Run statements as root; answers the rows of the last one."""
        with self.connect(database) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall()

    def create_user(
        self, user: str, database: str = DATABASE, privileges: str = "ALL PRIVILEGES"
    ) -> str:
        """A user without a password and without rights over the server; answers the URL for it."""
        self.execute(
            f"CREATE USER {user}@localhost",
            f"GRANT {privileges} ON `{database}`.* TO {user}@localhost",
        )
        return self.url(database, user)

    def create(self, database: str) -> str:
        """A new, empty database; answers its URL."""
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"DROP DATABASE IF EXISTS `{database}`")
            cursor.execute(f"CREATE DATABASE `{database}`")
        return self.url(database)

    def connections(self, database: str = DATABASE, *, busy: bool = False) -> list[int]:
        """The ids of the connections to a database; `busy`: of those that run a statement."""
        condition = " AND command = 'Query'" if busy else ""
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(
                f"SELECT id FROM information_schema.processlist WHERE db = '{database}'{condition}"
            )
            return [number for (number,) in cursor.fetchall()]

    def close_connections(self, database: str = DATABASE) -> int:
        """Close the connections to a database, whatever they do; answers how many."""
        closed = 0
        with self.connect() as connection, connection.cursor() as cursor:
            for number in self.connections(database):
                # It may have ended by itself meanwhile.
                with suppress(pymysql.Error):
                    cursor.execute(f"KILL {number}")
                    closed += 1
        return closed

    @contextmanager
    def crowded(self, user: str) -> Iterator[None]:
        """A user has all connections that the server still gives."""
        with ExitStack() as taken:
            try:
                while True:
                    taken.enter_context(self.connect(user=user))
            except pymysql.OperationalError as error:
                if error.args[0] != TOO_MANY_CONNECTIONS:
                    raise
            yield

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
        wait(self._answers, f"the database server; see {self._log}", 60)

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
