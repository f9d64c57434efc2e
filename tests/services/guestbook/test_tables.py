"""The tables: made at start, whoever starts; counted exactly; found again when they are gone."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import create_engine

from tests.services.guestbook.sql import execute, rows
from tests.support.client import PATH, Client, until_ready
from tests.support.metrics import samples
from tests.support.mysql import MySQL
from tests.support.service import StartService

ROW = "INSERT INTO message (username, message, timestamp) VALUES ('A', 'b', '2026-01-31')"
"""A message written by hand."""


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
        assert client.total() == len(client.all()) == 80
        for word in ("WARNING", "ERROR", "Traceback"):
            assert word not in client.service.text
        client.http.close()


def test_a_probe_that_comes_while_the_tables_are_prepared_waits_for_them(
    start_service: StartService, new_database: str
) -> None:
    """Kubernetes asks right after the start, and again only a period of ten seconds later."""
    with Client(start_service("guestbook", DATABASE_URL=new_database)) as client:
        until_ready(client)
    engine = create_engine(new_database)
    with engine.connect() as other, ThreadPoolExecutor() as threads:
        if engine.dialect.name == "sqlite":
            hold, release = "BEGIN IMMEDIATE", "ROLLBACK"
        else:
            hold, release = "SELECT GET_LOCK('guestbook-tables', 0)", "DO RELEASE_ALL_LOCKS()"
        other.exec_driver_sql(hold)
        with Client(start_service("guestbook", DATABASE_URL=new_database)) as client:
            assert client.get().status_code == 503
            probe = threads.submit(client.readiness)
            assert not wait({probe}, timeout=0.1).done
            other.exec_driver_sql(release)
            assert probe.result().status_code == 200
    engine.dispose()


def test_messages_survive_a_restart(start_service: StartService, new_database: str) -> None:
    for expected in range(3):
        service = start_service("guestbook", DATABASE_URL=new_database)
        with Client(service) as client:
            until_ready(client)
            assert client.total() == len(client.all()) == expected
            client.add(str(expected))
        service.kill() if expected % 2 else service.stop()


def test_what_is_written_by_hand_is_counted(start_service: StartService, new_database: str) -> None:
    with Client(start_service("guestbook", DATABASE_URL=new_database)) as client:
        until_ready(client)
        client.add()
        execute(new_database, ROW, ROW)
        assert client.total() == 3
        execute(new_database, "DELETE FROM message WHERE id > 1")
        assert client.total() == 1
        execute(new_database, "DELETE FROM message")
        assert client.total() == 0
        assert client.get().json()["_embedded"] == {"messages": []}


def test_what_others_write_is_in_the_total_of_the_next_page(
    start_service: StartService, new_database: str
) -> None:
    """Also of pages that are full, which by themselves show nothing of more rows."""
    with (
        Client(start_service("guestbook", DATABASE_URL=new_database)) as first,
        Client(start_service("guestbook", DATABASE_URL=new_database)) as second,
    ):
        for client in (first, second):
            until_ready(client)
        for number in range(5):
            first.add(str(number))
        assert first.total(size=2) == second.total(size=2) == 5
        execute(new_database, ROW, ROW)
        assert first.total(size=2) == 7
        assert second.total(size=2, page=1, sort="timestamp,desc") == 7
        second.add()
        execute(new_database, ROW)
        assert first.total(size=2, sort="username") == 9
        newest = "SELECT id FROM (SELECT MAX(id) AS id FROM message) AS newest"
        execute(new_database, f"DELETE FROM message WHERE id = ({newest})", ROW, ROW)
        assert first.total(size=2) == second.total(size=2, sort="id,desc") == 10
        assert len(first.all()) == len(second.all()) == 10


def test_a_post_does_not_hide_what_others_wrote_before_it(
    start_service: StartService, new_database: str
) -> None:
    with Client(start_service("guestbook", DATABASE_URL=new_database)) as client:
        until_ready(client)
        for number in range(5):
            client.add(str(number))
        execute(new_database, ROW, ROW)
        client.add()
        assert client.total(size=2) == 8


def test_data_that_the_database_refuses_is_400(start_service: StartService, mysql: MySQL) -> None:
    """As when somebody narrows a column while the service runs."""
    url = mysql.create(f"narrow_{uuid4().hex}")
    with Client(start_service("guestbook", DATABASE_URL=url)) as client:
        until_ready(client)
        client.add()
        for column, refused in (("varchar(10)", "x" * 11), ("varchar(2000) CHARSET latin1", "😀")):
            execute(url, f"ALTER TABLE message MODIFY message {column} NOT NULL")
            answer = client.post({"username": "Ann", "message": refused})
            assert answer.status_code == 400
            assert "message" in answer.json()["detail"]
        assert client.total() == len(client.all()) == 1
        assert "ERROR" not in client.service.text
        calls = samples(client.service, "backend_calls_total", ("backend", "outcome"))
        assert calls["database", "refused"] == 2


def test_a_table_that_does_not_fit_is_503_and_no_500(
    start_service: StartService, new_database: str
) -> None:
    """As when somebody puts another one in its place while the service runs."""
    with Client(start_service("guestbook", DATABASE_URL=new_database)) as client:
        until_ready(client)
        href = client.add()
        execute(
            new_database,
            "ALTER TABLE message RENAME TO taken_away",
            "CREATE VIEW message AS SELECT 1 AS number",
        )
        for answer in (
            *map(client.get, (PATH, f"{PATH}?sort=username,desc", href)),
            client.post({"username": "Ann", "message": "b"}),
            client.http.patch(href, json={"username": "Bob"}),
        ):
            assert answer.status_code == 503, answer.text
            assert int(answer.headers["retry-after"]) > 0
        assert "Traceback" not in client.service.text
        execute(new_database, "DROP VIEW message", "ALTER TABLE taken_away RENAME TO message")
        assert client.total() == 1


def test_a_new_empty_database_is_prepared_again(
    start_service: StartService, new_database: str
) -> None:
    """As when the database's pod comes back without its volume."""
    tables = ("message", "message_count", "idempotency_key")
    with Client(start_service("guestbook", DATABASE_URL=new_database)) as client:
        until_ready(client)
        client.add()
        execute(new_database, *(f"DROP TABLE {table}" for table in tables))
        assert client.total() == 0
        client.add("again")
        assert client.total() == 1
        assert "Traceback" not in client.service.text


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
        assert client.total() == count
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
    found = rows(url, f"SELECT {field}, id, message FROM message")
    found.sort(key=lambda row: row[:2], reverse=direction == "desc")
    return [text for _, _, text in found]


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
    assert len(clients[0].all()) == clients[1].total() == 200
    for client in clients:
        client.http.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()
