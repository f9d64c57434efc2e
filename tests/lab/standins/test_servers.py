"""MySQL and Redis of the lab: the machine's own server, or a stand-in where there is none."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pymysql
import pytest
import redis
from pymysql.connections import Connection
from pymysql.cursors import Cursor

from lab.standins import EMBEDDED, mysql
from lab.standins import redis as redis_standin
from tests.support.wait import wait

ACCOUNT = {
    "MYSQL_DATABASE": "guest-book",
    "MYSQL_USER": "somebody",
    "MYSQL_PASSWORD": "it's \\ secret",
    "MYSQL_ROOT_PASSWORD": "root's",
}


@pytest.fixture
def host() -> str:
    """An address of the loopback range on which nothing listens: the ports are fixed."""
    for number in range(1, 255):
        address = f"127.66.{os.getpid() % 256}.{number}"
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((address, mysql.PORT))
            return address
    raise AssertionError("no free address")


@contextlib.contextmanager
def serving(module: str, host: str, folder: Path, **env: str) -> Iterator[subprocess.Popen[str]]:
    """A stand-in as a container runs it; it must end by SIGTERM."""
    log = folder / "log"
    with log.open("a") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", f"lab.standins.{module}"],
            cwd=folder,
            env=os.environ | {"HOST": host, "GUESTBOOK_ROOT": str(folder), **env},
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def connect(
    host: str, user: str = ACCOUNT["MYSQL_USER"], password: str = ACCOUNT["MYSQL_PASSWORD"]
) -> Connection[Cursor]:
    return pymysql.connect(
        host=host,
        port=mysql.PORT,
        user=user,
        password=password,
        database=ACCOUNT["MYSQL_DATABASE"],
        charset="utf8mb4",
    )


def reached(host: str, **account: str) -> bool:
    try:
        connect(host, **account).close()
    except pymysql.OperationalError:
        return False
    return True


@pytest.mark.skipif(mysql.installed() is None, reason="needs mariadbd or mysqld")
def test_mysql_is_set_up_as_the_image_does_and_keeps_its_data(host: str, tmp_path: Path) -> None:
    with serving("mysql", host, tmp_path, **ACCOUNT) as process:
        wait(lambda: reached(host), "the account works", 60)
        assert reached(host, user="root", password=ACCOUNT["MYSQL_ROOT_PASSWORD"])
        assert not reached(host, password="wrong")
        assert not reached(host, user="root", password="")
        with connect(host) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE t (text VARCHAR(20))")
            cursor.execute("INSERT INTO t VALUES ('naïve 🐬')")
            connection.commit()
        # Killed, not stopped: what was committed is there all the same.
        process.kill()
        process.wait()
    changed = ACCOUNT | {"MYSQL_PASSWORD": "another"}
    with serving("mysql", host, tmp_path, **changed):
        wait(lambda: reached(host, password="another"), seconds=60)
        with connect(host, password="another") as connection, connection.cursor() as cursor:
            cursor.execute("SELECT text FROM t")
            assert cursor.fetchall() == (("naïve 🐬",),)
    assert (tmp_path / "log").read_text().count("Initialising the database") == 1


@pytest.mark.skipif(mysql.installed() is None, reason="needs mariadbd or mysqld")
def test_mysql_reads_its_passwords_from_files_as_the_image_does(host: str, tmp_path: Path) -> None:
    files = {}
    for name in ("MYSQL_PASSWORD", "MYSQL_ROOT_PASSWORD"):
        (tmp_path / name).write_text(f"{ACCOUNT[name]}\n")
        files[f"{name}_FILE"] = str(tmp_path / name)
    names = {name: value for name, value in ACCOUNT.items() if "PASSWORD" not in name}
    with serving("mysql", host, tmp_path, **names, **files):
        wait(lambda: reached(host), "the account works", 60)
        assert reached(host, user="root", password=ACCOUNT["MYSQL_ROOT_PASSWORD"])
        assert not reached(host, password="")


def test_without_mysql_a_placeholder_holds_the_port(host: str, tmp_path: Path) -> None:
    ping = [sys.executable, "-m", "lab.standins.mysql", "--ping", host]
    refused = subprocess.run(ping, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert f"{host}:3306" in refused.stderr
    with serving("mysql", host, tmp_path, **{EMBEDDED: "1"}) as process:
        wait(
            lambda: subprocess.run(ping, capture_output=True, check=False).returncode == 0,
            seconds=30,
        )
    assert process.returncode == 0
    assert "the guestbook uses SQLite" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("embedded", [False, True], ids=["installed", "embedded"])
def test_redis_keeps_a_session_for_its_time(host: str, tmp_path: Path, embedded: bool) -> None:
    if not embedded and redis_standin.installed() is None:
        pytest.skip("needs redis-server or valkey-server")
    environment = {EMBEDDED: "1"} if embedded else {}
    with (
        serving("redis", host, tmp_path, **environment),
        redis.Redis(host=host, socket_timeout=5) as client,
    ):

        def answers() -> bool:
            with contextlib.suppress(redis.ConnectionError):
                return bool(client.ping())
            return False

        wait(answers, "it serves", 30)
        assert client.set("session", "Ann", px=60_000)
        assert client.get("session") == b"Ann"
        remaining = client.pttl("session")
        assert 0 < remaining <= 60_000
        assert client.set("short", "lived", px=50)
        wait(lambda: client.get("short") is None, "it expires", 30)
