"""The database is read-only: for a while, or for good, because another server took over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from threading import Thread

import httpx
import pytest

from tests.faults.posts import check_log, posting, stored
from tests.faults.proxy import Proxy
from tests.support.client import PATH, Client, until_ready
from tests.support.mysql import DATABASE, MySQL
from tests.support.service import Service, StartService
from tests.support.wait import wait

RECOVERY = 10
"""Seconds in which posts are stored again once a server takes them (other things run here too)."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[MySQL, MySQL]]:
    """Two servers with the same user, who has no rights over them."""
    with ExitStack() as stack:
        made = [MySQL(tmp_path_factory.mktemp(name)) for name in ("first", "second")]
        for server in made:
            stack.callback(server.stop)
            server.create_user("guestbook")
        yield made[0], made[1]


@pytest.fixture
def servers(running: tuple[MySQL, MySQL]) -> tuple[MySQL, MySQL]:
    """The two servers, empty, and both of them take writes."""
    for server in running:
        server.execute("SET GLOBAL read_only = 0", "SET GLOBAL TRANSACTION READ WRITE")
        server.create(DATABASE)
    return running


def copy(source: MySQL, target: MySQL) -> None:
    """Give a server the tables and rows of another, as replication has done by a failover."""
    target.create(DATABASE)
    with (
        source.connect(DATABASE) as reading,
        reading.cursor() as read,
        target.connect(DATABASE) as writing,
        writing.cursor() as write,
    ):
        read.execute("SHOW TABLES")
        for (table,) in read.fetchall():
            read.execute(f"SHOW CREATE TABLE {table}")
            ((_, definition),) = read.fetchall()
            write.execute(definition)
            read.execute(f"SELECT * FROM {table}")
            rows = read.fetchall()
            places = ", ".join(["%s"] * len(rows[0]))
            write.executemany(f"INSERT INTO {table} VALUES ({places})", rows)


def lines(service: Service, text: str, since: int = 0) -> list[str]:
    """The lines with a text, after so many lines of the log."""
    return [line for line in service.lines[since:] if text in line]


@pytest.mark.parametrize(
    ("halt", "reconnects"),
    [
        ("SET GLOBAL read_only = 1", False),
        # Transactions are read-only on connections that are made from then on.
        ("SET GLOBAL TRANSACTION READ ONLY", True),
    ],
    ids=["server", "transactions"],
)
def test_posts_reach_the_server_that_took_over_within_seconds(
    start_service: StartService, servers: tuple[MySQL, MySQL], halt: str, reconnects: bool
) -> None:
    """The old one is still up and read-only; whoever connects anew reaches the new one."""
    old, new = servers
    with Proxy(old.port) as proxy:
        service = start_service(
            "guestbook", DATABASE_URL=old.url(user="guestbook", port=proxy.port)
        )
        with Client(service) as client:
            until_ready(client)
            with posting(service.url) as posts:
                posts.wait_for(100)
                old.execute(halt)
                if reconnects:
                    old.close_connections()
                before = posts.failures["503"]
                wait(lambda: posts.failures["503"] > before, "a post that is refused")
                copy(old, new)
                there = len(posts.acknowledged)
                proxy.target = new.port
                posts.wait_for(100, RECOVERY)
                assert client.readiness().status_code == 200
            posts.check(stored(client))
            assert len(stored(client)) >= there + 100
            (count,) = new.execute("SELECT COUNT(*) FROM message")[0]
            assert count == len(stored(client))
    assert set(posts.failures) == {"503"}
    assert lines(service, "WARNING The database takes no writes: ")
    assert lines(service, "The database takes writes again")
    check_log(service)


def test_a_read_only_database_is_told_of_once(
    start_service: StartService, servers: tuple[MySQL, MySQL]
) -> None:
    """Pages are read meanwhile, and a post is repeated; neither says that all is well."""
    server, _ = servers
    service = start_service("guestbook", DATABASE_URL=server.url(user="guestbook"))
    read: list[int] = []
    with Client(service) as client:
        until_ready(client)
        with posting(service.url) as posts:
            posts.wait_for(50)
            assert client.get().status_code == 200
            service.wait_for_line(f"GET {PATH} 200 ")
            entry = {"username": "Ann", "message": "once"}
            posts.tried.add("once")
            assert client.post(entry, "key").status_code == 201
            start = len(service.lines)

            def reads() -> None:
                with httpx.Client(base_url=service.url, trust_env=False, timeout=30) as http:
                    while not done:
                        read.append(http.get(f"{PATH}?page={len(read) % 3}").status_code)

            done: list[bool] = []
            reader = Thread(target=reads)
            reader.start()
            try:
                server.execute("SET GLOBAL read_only = 1")
                again = client.post(entry, "key")
                assert again.headers["idempotent-replayed"] == "true"
                before = len(read), posts.failures["503"]
                wait(lambda: len(read) > before[0] + 100, "a hundred pages")
                wait(lambda: posts.failures["503"] > before[1] + 100, "a hundred refusals")
                assert client.readiness().status_code == 200
                server.execute("SET GLOBAL read_only = 0")
                posts.wait_for(50, RECOVERY)
            finally:
                done.append(True)
                reader.join()
        posts.check(stored(client))
    assert set(read) == {200}
    assert set(posts.failures) == {"503"}
    found = lines(service, "The database takes ", start)
    assert len(found) == 2, found
    assert found[0].startswith("WARNING The database takes no writes: ")
    assert "read" in found[0].lower()
    assert found[1] == "The database takes writes again"
    check_log(service)


def test_a_page_is_there_although_its_total_cannot_be_corrected(
    start_service: StartService, servers: tuple[MySQL, MySQL]
) -> None:
    """Somebody else wrote just before the server became read-only."""
    server, _ = servers
    service = start_service("guestbook", DATABASE_URL=server.url(user="guestbook"))
    with Client(service) as client:
        until_ready(client)
        for number in range(3):
            client.add(str(number))
        server.execute(
            "INSERT INTO message (username, message, timestamp) VALUES ('A', 'b', NOW())",
            "SET GLOBAL read_only = 1",
        )
        for query in ("size=2", "size=2&page=1", "sort=username,desc", "size=1000", "page=9"):
            assert client.get(f"{PATH}?{query}").status_code == 200, query
        assert len(client.all()) == 4
        server.execute("SET GLOBAL read_only = 0")
        assert client.total(size=2) == 4
    check_log(service)
