"""The tables: made at start, whoever starts; counted exactly; found again when they are gone."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, text

from tests.services.conftest import StartService
from tests.services.guestbook.client import Client, until_ready
from tests.services.guestbook.mysql import MySQL

NewDatabase = Callable[[], str]


@pytest.fixture(params=["sqlite", "mysql"])
def new_database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database nobody else uses."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'guestbook.db'}"
    server: MySQL = request.getfixturevalue("mysql")
    return server.create(f"tables_{uuid4().hex}")


def execute(url: str, *statements: str) -> None:
    """What somebody does to the database by hand."""
    engine = create_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def total(client: Client, **query: object) -> int:
    answer = client.get(params=query)
    assert answer.status_code == 200, answer.text
    return int(answer.json()["page"]["totalElements"])


def test_replicas_that_start_together_share_one_set_of_tables(
    start_service: StartService, new_database: str
) -> None:
    with ThreadPoolExecutor(4) as threads:
        services = list(
            threads.map(lambda _: start_service("guestbook", DATABASE_URL=new_database), range(4))
        )
    clients = [Client(service) for service in services]

    def use(client: Client) -> None:
        until_ready(client)
        hrefs = [client.add(str(number)) for number in range(30)]
        for href in hrefs[:10]:
            assert client.http.delete(href).status_code == 204

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(use, clients))
    for client in clients:
        assert total(client) == len(client.all()) == 80
        assert "Traceback" not in client.service.text
        client.http.close()


def test_messages_survive_a_restart(start_service: StartService, new_database: str) -> None:
    for expected in range(3):
        service = start_service("guestbook", DATABASE_URL=new_database)
        with Client(service) as client:
            until_ready(client)
            assert total(client) == len(client.all()) == expected
            client.add(str(expected))
        service.kill() if expected % 2 else service.stop()


def test_what_is_written_by_hand_is_counted(start_service: StartService, new_database: str) -> None:
    row = "INSERT INTO message (username, message, timestamp) VALUES ('A', 'b', '2026-01-31')"
    with Client(start_service("guestbook", DATABASE_URL=new_database)) as client:
        until_ready(client)
        client.add()
        execute(new_database, row, row)
        assert total(client) == 3
        execute(new_database, "DELETE FROM message WHERE id > 1")
        assert total(client) == 1
        execute(new_database, "DELETE FROM message")
        assert total(client) == 0
        assert client.get().json()["_embedded"] == {"messages": []}


def test_a_new_empty_database_is_prepared_again(
    start_service: StartService, new_database: str
) -> None:
    """As when the database's pod comes back without its volume."""
    tables = ("message", "message_count", "idempotency_key")
    with Client(start_service("guestbook", DATABASE_URL=new_database)) as client:
        until_ready(client)
        client.add()
        execute(new_database, *(f"DROP TABLE {table}" for table in tables))
        assert total(client) == 0
        client.add("again")
        assert total(client) == 1
        assert "Traceback" not in client.service.text


def test_the_table_of_the_original_is_used_as_it_is(
    start_service: StartService, mysql: MySQL
) -> None:
    url = mysql.create(f"original_{uuid4().hex}")
    execute(
        url,
        "CREATE TABLE message (id bigint NOT NULL AUTO_INCREMENT, message varchar(255), "
        "timestamp datetime, username varchar(255), PRIMARY KEY (id)) CHARACTER SET latin1",
        "INSERT INTO message (username, message, timestamp) VALUES ('Ray', 'old', '2017-05-01')",
        "INSERT INTO message (username) VALUES (NULL)",
    )
    with Client(start_service("guestbook", DATABASE_URL=url)) as client:
        until_ready(client)
        client.add("new")
        assert [message["message"] for message in client.all()] == ["old", None, "new"]
        assert total(client) == 3
        for refused in ("x" * 256, "😀"):
            answer = client.post({"username": "Ann", "message": refused})
            assert answer.status_code == 400
            assert "message" in answer.json()["detail"]
        assert total(client) == 3


@pytest.mark.parametrize("gaps", [False, True], ids=["dense", "gaps"])
def test_far_pages_are_the_right_ones(
    start_service: StartService, new_database: str, gaps: bool
) -> None:
    with Client(start_service("guestbook", DATABASE_URL=new_database)) as client:
        until_ready(client)
        day = (
            "printf('2026-01-%02d', 1 + n % 28)"
            if new_database.startswith("sqlite")
            else "CONCAT('2026-01-', LPAD(1 + n % 28, 2, '0'))"
        )
        many = (
            "INSERT INTO message (username, message, timestamp) WITH RECURSIVE numbers(n) AS "
            "(SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 1000) "
            f"SELECT n % 7, n + {{}}, {day} FROM numbers"
        )
        execute(new_database, *(many.format(start) for start in (0, 1000, 2000)))
        if gaps:
            execute(new_database, "DELETE FROM message WHERE id % 5 = 3")
        count = 2400 if gaps else 3000
        assert total(client) == count
        for sort in ("id,asc", "id,desc", "timestamp,desc", "username,asc"):
            whole = sorted_by_hand(new_database, sort)
            for page in (0, 19, 20, 21, 33, count // 50 - 1, count // 50):
                query = {"page": page, "size": 50, "sort": sort}
                answer = client.get(params=query).json()
                found = [message["message"] for message in answer["_embedded"]["messages"]]
                assert found == whole[page * 50 : page * 50 + 50], query
                assert answer["page"]["totalElements"] == count


def sorted_by_hand(url: str, sort: str) -> list[str]:
    field, direction = sort.split(",")
    engine = create_engine(url)
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT id, username, message, timestamp FROM message"))
        found = [row._mapping for row in rows]
    engine.dispose()
    found.sort(key=lambda row: (row[field], row["id"]), reverse=direction == "desc")
    return [row["message"] for row in found]


def test_two_processes_write_to_one_sqlite_file(
    start_service: StartService, tmp_path: Path
) -> None:
    path = tmp_path / "guestbook.db"
    services = [start_service("guestbook", DATABASE_URL=f"sqlite:///{path}") for _ in range(2)]
    clients = [Client(service) for service in services]
    with ThreadPoolExecutor(8) as threads:
        for client in clients:
            until_ready(client)
        list(threads.map(lambda number: clients[number % 2].add(str(number)), range(200)))
    assert len(clients[0].all()) == total(clients[1]) == 200
    for client in clients:
        client.http.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()
