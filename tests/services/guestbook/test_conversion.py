"""Tables that others made: those of the Java original and of earlier releases."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from uuid import uuid4

import httpx
import pytest

from tests.services.guestbook.sql import execute, rows
from tests.support.client import Client, until_ready, until_unready
from tests.support.mysql import MySQL
from tests.support.service import StartService
from tests.support.wait import wait

HIBERNATE = (
    "CREATE TABLE message (id bigint NOT NULL AUTO_INCREMENT, message varchar(255), "
    "timestamp datetime, username varchar(255), PRIMARY KEY (id)) ENGINE={engine} CHARSET=latin1"
)
"""As its dialect of 2018 has it made, by a server of that time."""

EARLIER_MYSQL = (
    "CREATE TABLE message (id bigint NOT NULL AUTO_INCREMENT, username varchar(255) NOT NULL, "
    "message varchar(2000) NOT NULL, timestamp datetime(3) NOT NULL, PRIMARY KEY (id), "
    "INDEX message_username (username), INDEX message_timestamp (timestamp)) "
    "ENGINE=InnoDB CHARSET=utf8mb4 COLLATE=utf8mb4_bin",
    "CREATE TABLE message_count (slot smallint NOT NULL, total bigint NOT NULL, "
    "PRIMARY KEY (slot)) ENGINE=InnoDB CHARSET=utf8mb4 COLLATE=utf8mb4_bin",
    "CREATE TABLE idempotency_key (value varchar(255) CHARACTER SET ascii COLLATE ascii_bin "
    "NOT NULL, fingerprint binary(32) NOT NULL, message_id bigint NOT NULL, "
    "timestamp datetime(3) NOT NULL, created datetime(3) NOT NULL, PRIMARY KEY (value), "
    "INDEX idempotency_key_created (created)) "
    "ENGINE=InnoDB CHARSET=utf8mb4 COLLATE=utf8mb4_bin",
)
EARLIER_SQLITE = (
    "CREATE TABLE message (id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, "
    "username VARCHAR(255) NOT NULL, message VARCHAR(2000) NOT NULL, timestamp DATETIME NOT NULL)",
    "CREATE INDEX message_username ON message (username)",
    "CREATE INDEX message_timestamp ON message (timestamp)",
    "CREATE TABLE message_count (slot SMALLINT NOT NULL, total BIGINT NOT NULL, "
    "PRIMARY KEY (slot))",
    "CREATE TABLE idempotency_key (value VARCHAR(255) NOT NULL, fingerprint BLOB NOT NULL, "
    "message_id BIGINT NOT NULL, timestamp DATETIME NOT NULL, created DATETIME NOT NULL, "
    "PRIMARY KEY (value))",
    "CREATE INDEX idempotency_key_created ON idempotency_key (created)",
)
"""As the first release made them."""


@pytest.fixture
def database(mysql: MySQL) -> str:
    """The name of an empty database."""
    name = f"conversion_{uuid4().hex}"
    mysql.create(name)
    return name


@pytest.fixture
def original(request: pytest.FixtureRequest, mysql: MySQL, database: str) -> str:
    """The URL of a database with the original's table, in which two rows are."""
    url = mysql.url(database)
    execute(
        url,
        HIBERNATE.format(engine=getattr(request, "param", "MyISAM")),
        "INSERT INTO message (username, message, timestamp) "
        "VALUES ('Zoë', 'Grüße', '2017-05-01 10:00:00'), ('Ray', 'old', '2017-05-02 11:00:00')",
    )
    return url


def columns(url: str, table: str = "message") -> dict[str, tuple[str, str]]:
    """Type and nullability of each column, as the database describes them."""
    query = (
        "SELECT column_name, column_type, is_nullable FROM information_schema.columns "
        f"WHERE table_schema = DATABASE() AND table_name = '{table}'"
    )
    return {str(name): (str(kind), str(null)) for name, kind, null in rows(url, query)}


def test_one_key_from_many_at_once_is_one_row_in_the_originals_table(
    start_service: StartService, original: str
) -> None:
    clients = 12
    entry = {"username": "Ann", "message": "once"}
    with Client(start_service("guestbook", DATABASE_URL=original)) as client:
        until_ready(client)
        with ThreadPoolExecutor(clients) as threads:
            for _ in range(10):
                key = str(uuid4())

                def post(_: int, key: str = key) -> httpx.Response:
                    return client.post(entry, key)

                answers = list(threads.map(post, range(clients)))
                assert {answer.status_code for answer in answers} == {201}
                assert len({answer.headers["location"] for answer in answers}) == 1
        assert len(client.all()) == client.total() == 2 + 10


@pytest.mark.parametrize("original", ["MyISAM", "InnoDB"], indirect=True)
def test_the_originals_table_takes_what_ours_takes(
    start_service: StartService, original: str
) -> None:
    moment = "2026-01-31T12:00:00.123+00:00"
    long = {"username": "😀" * 255, "message": "𝔸" * 2000, "timestamp": moment}
    with Client(start_service("guestbook", DATABASE_URL=original)) as client:
        until_ready(client)
        stored = client.post(long)
        assert stored.status_code == 201, stored.text
        kept = client.get(stored.headers["location"]).json()
        assert {name: kept[name] for name in long} == long
        old = [
            (message["username"], message["message"], message["timestamp"])
            for message in client.all()[:2]
        ]
        assert old == [
            ("Zoë", "Grüße", "2017-05-01T10:00:00.000+00:00"),
            ("Ray", "old", "2017-05-02T11:00:00.000+00:00"),
        ]
    described = columns(original)
    del described["id"]
    assert described == {
        "username": ("varchar(255)", "NO"),
        "message": ("varchar(2000)", "NO"),
        "timestamp": ("datetime(3)", "NO"),
    }


def test_rows_with_nulls_stay_and_are_read(start_service: StartService, original: str) -> None:
    execute(original, "INSERT INTO message (username) VALUES (NULL), ('Only a name')")
    nothing = {"username": None, "message": None, "timestamp": None}
    with Client(start_service("guestbook", DATABASE_URL=original)) as client:
        until_ready(client)
        client.add("new")
        assert client.total() == 5
        for sort in ("id", "username", "timestamp", "username,desc", "timestamp,desc"):
            found = client.get(params={"sort": sort}).json()["_embedded"]["messages"]
            assert sorted(str(each["message"]) for each in found) == sorted(
                ["Grüße", "old", "None", "None", "new"]
            )
        link = client.get().json()["_embedded"]["messages"][2]["_links"]["self"]["href"]
        empty = client.get(link)
        assert empty.status_code == 200
        assert {name: empty.json()[name] for name in nothing} == nothing
        tag = empty.headers["etag"]
        patched = client.http.patch(link, json={"message": "b"}, headers={"If-Match": tag})
        assert patched.status_code == 200
        assert (patched.json()["username"], patched.json()["message"]) == (None, "b")
        assert client.http.delete(link).status_code == 204
        # The original goes on writing such rows.
        execute(original, "INSERT INTO message (username) VALUES (NULL)")
        assert client.total() == 5


def test_a_row_with_mysqls_zero_date_is_read_as_one_without_a_time(
    start_service: StartService, mysql: MySQL, original: str
) -> None:
    """As a server that is not strict stores a time that it cannot read."""
    database = original.rpartition("/")[2]
    row = "INSERT INTO message (username, message, timestamp) VALUES ('Ray', 'zero', '0000-00-00')"
    mysql.execute("SET SESSION sql_mode = ''", row, database=database)
    with Client(start_service("guestbook", DATABASE_URL=original)) as client:
        until_ready(client)
        assert [message["timestamp"] for message in client.all()][2:] == [None]
        client.add("😀")
        assert client.total() == 4


def test_replicas_that_start_together_convert_once(
    start_service: StartService, original: str
) -> None:
    with ThreadPoolExecutor(3) as threads, ExitStack() as stack:
        services = threads.map(
            lambda _: start_service("guestbook", DATABASE_URL=original), range(3)
        )
        clients = [stack.enter_context(Client(service)) for service in services]
        list(threads.map(until_ready, clients))
        list(threads.map(lambda client: client.add("😀"), clients))
        for client in clients:
            assert client.total() == 5
            for word in ("WARNING", "ERROR", "Traceback"):
                assert word not in client.service.text


def test_longer_columns_and_further_ones_are_left_alone(
    start_service: StartService, mysql: MySQL, database: str
) -> None:
    """Nothing that is stored is cut, and no row is refused because of it."""
    url = mysql.url(database)
    execute(
        url,
        "CREATE TABLE message (id bigint NOT NULL AUTO_INCREMENT PRIMARY KEY, message text, "
        "timestamp datetime(6), username varchar(300), mood varchar(9)) ENGINE=MyISAM",
        "INSERT INTO message (message, username, mood, timestamp) "
        "VALUES (REPEAT('m', 5000), REPEAT('u', 300), 'good', '2026-01-31 12:00:00.123456')",
    )
    with Client(start_service("guestbook", DATABASE_URL=url)) as client:
        until_ready(client)
        first = client.all()[0]
        assert (first["message"], first["username"]) == ("m" * 5000, "u" * 300)
        assert first["timestamp"] == "2026-01-31T12:00:00.123+00:00"
        client.add("😀")
        assert client.total() == 2
    assert rows(url, "SELECT mood FROM message") == [("good",), (None,)]


def test_pages_by_name_and_time_of_the_originals_table_are_read_from_indexes(
    start_service: StartService, original: str
) -> None:
    with Client(start_service("guestbook", DATABASE_URL=original)) as client:
        until_ready(client)
    for column in ("username", "timestamp"):
        plan = rows(original, f"EXPLAIN SELECT id FROM message ORDER BY {column}, id LIMIT 20")
        assert "Using filesort" not in str(plan), plan


@pytest.fixture(params=["", ", INDEX"], ids=["no index", "index"])
def restricted(request: pytest.FixtureRequest, mysql: MySQL, database: str) -> Iterator[str]:
    """The URL of a database with the original's table, for a user who may not alter it."""
    execute(
        mysql.url(database),
        HIBERNATE.format(engine="MyISAM"),
        "INSERT INTO message (username, message) VALUES ('Ray', 'old')",
    )
    privileges = f"SELECT, INSERT, UPDATE, DELETE, CREATE{request.param}"
    yield mysql.create_user("restricted", database, privileges)
    mysql.execute("DROP USER restricted@localhost")


def test_a_table_that_cannot_be_converted_is_not_used_and_the_log_says_what_to_run(
    start_service: StartService, mysql: MySQL, database: str, restricted: str
) -> None:
    with Client(start_service("guestbook", DATABASE_URL=restricted)) as client:

        def refusals() -> list[str]:
            return [line for line in client.service.lines if "ALTER TABLE" in line]

        until_unready(client)
        line = client.service.wait_for_line("ALTER TABLE", 5)
        assert line.startswith("WARNING ")
        for _ in range(3):
            refused = client.post({"username": "Ann", "message": "not here"}, "key")
            assert refused.status_code == 503
            assert int(refused.headers["retry-after"]) > 0
        assert refusals() == [line]
        mysql.execute("ALTER TABLE message ENGINE=InnoDB", database=database)
        line = wait(lambda: "".join(refusals()[1:]), "what is left to run")
        mysql.execute(*re.findall("ALTER TABLE [^;]*", line), database=database)
        until_ready(client)
        answers = [client.post({"username": "Ann", "message": "😀"}, "key") for _ in range(3)]
        assert {answer.status_code for answer in answers} == {201}
        assert [message["message"] for message in client.all()] == ["old", "😀"]
        assert client.total() == 2
        assert "Traceback" not in client.service.text


@pytest.fixture
def earlier(new_database: str) -> str:
    """The URL of a database with three messages that an earlier release wrote."""
    sqlite = new_database.startswith("sqlite")
    names = ("Zoe", "alice", "Ärne")
    messages = ", ".join(f"('{name}', 'by {name}', '2026-01-31 12:00:00')" for name in names)
    counts = ", ".join(f"({slot}, {int(0 < slot < 4)})" for slot in range(16))
    digest = hashlib.sha256(json.dumps(["alice", "by alice", None]).encode()).hexdigest()
    execute(
        new_database,
        *(EARLIER_SQLITE if sqlite else EARLIER_MYSQL),
        f"INSERT INTO message (username, message, timestamp) VALUES {messages}",
        f"INSERT INTO message_count (slot, total) VALUES {counts}",
        "INSERT INTO idempotency_key (value, fingerprint, message_id, timestamp, created) VALUES "
        f"('earlier', X'{digest}', 2, '2026-01-31 12:00:00', "
        + ("DATETIME('now'))" if sqlite else "UTC_TIMESTAMP(3))"),
    )
    return new_database


def test_the_tables_of_an_earlier_release_are_converted(
    start_service: StartService, earlier: str
) -> None:
    with Client(start_service("guestbook", DATABASE_URL=earlier)) as client:
        until_ready(client)
        page = client.get(params={"sort": "username"}).json()
        found = [message["username"] for message in page["_embedded"]["messages"]]
        assert found == ["alice", "Ärne", "Zoe"]
        assert page["page"]["totalElements"] == 3
        # A post that was sent to the earlier release and is sent again.
        again = client.post({"username": "alice", "message": "by alice"}, "earlier")
        assert again.status_code == 201
        assert again.headers["idempotent-replayed"] == "true"
        client.add("new")
        execute(
            earlier,
            "INSERT INTO message (username, message, timestamp) "
            "VALUES ('A', 'by hand', '2026-01-31')",
        )
        assert client.total(size=2) == len(client.all()) == 5
        for word in ("WARNING", "ERROR", "Traceback"):
            assert word not in client.service.text


def test_an_earlier_release_goes_on_writing_and_every_message_is_counted_once(
    start_service: StartService, earlier: str
) -> None:
    """As its pods do while the deployment is rolled out."""
    with Client(start_service("guestbook", DATABASE_URL=earlier)) as client:
        until_ready(client)
        for number in range(4, 10):
            execute(
                earlier,
                "INSERT INTO message (id, username, message, timestamp) "
                f"VALUES ({number}, 'A', 'b', '2026-01-31')",
                f"UPDATE message_count SET total = total + 1 WHERE slot = {number}",
            )
            assert client.total(size=2) == number
        client.add()
        assert client.total(size=2) == len(client.all()) == 10
