"""The database stops, dies, freezes and comes back, while visitors post."""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial

import httpx
import pymysql
import pytest

from tests.faults.posts import ApiVisitor, check_log, posting, stored
from tests.faults.proxy import CutAtCommit
from tests.services.conftest import StartService
from tests.services.guestbook.client import PATH, Client, until_ready, until_unready
from tests.services.guestbook.mysql import MySQL

RECOVERY = 10
"""Seconds in which the service is well again once its database is (other things run here too)."""


@pytest.mark.parametrize("keyed", [True, False], ids=["keys", "no keys"])
def test_of_a_thousand_posts_each_acknowledged_one_is_there_once(
    start_service: StartService, breakable_mysql: MySQL, keyed: bool
) -> None:
    service = start_service("guestbook", DATABASE_URL=breakable_mysql.url())
    with (
        Client(service) as client,
        posting(service.url, visitor=partial(ApiVisitor, keyed), again=keyed) as posts,
    ):
        until_ready(client)
        for end in (breakable_mysql.kill, breakable_mysql.stop, breakable_mysql.kill):
            posts.wait_for(200)
            end()
            until_unready(client)
            breakable_mysql.start()
            until_ready(client, RECOVERY)
        posts.wait_for(max(200, 1000 - len(posts.acknowledged)))
    posts.check(stored(client := Client(service)))
    client.http.close()
    assert set(posts.failures) <= {"503"}
    check_log(service)


def test_a_frozen_database_keeps_no_request_for_long(
    start_service: StartService, breakable_mysql: MySQL
) -> None:
    service = start_service("guestbook", DATABASE_URL=breakable_mysql.url())
    with Client(service) as client:
        until_ready(client)
        with posting(service.url, visitors=20) as posts:
            posts.wait_for(100)
            breakable_mysql.freeze()
            until_unready(client)
            before = posts.failures["503"]
            while posts.failures["503"] < before + 20:
                time.sleep(0.05)
            breakable_mysql.thaw()
            until_ready(client, RECOVERY)
            posts.wait_for(100)
        posts.check(stored(client))
    assert set(posts.failures) == {"503"}
    # The ui waits at least 10 s.
    assert posts.slowest < 10
    check_log(service)


def test_it_starts_without_a_database_and_finds_it(
    start_service: StartService, breakable_mysql: MySQL
) -> None:
    breakable_mysql.stop()
    service = start_service("guestbook", DATABASE_URL=breakable_mysql.url())
    with Client(service) as client:
        until_unready(client)
        health = httpx.get(f"{service.management}/actuator/health", trust_env=False)
        assert health.json()["components"]["database"]["status"] == "DOWN"
        liveness = httpx.get(f"{service.management}/actuator/health/liveness", trust_env=False)
        assert liveness.status_code == 200
        answer = client.get()
        assert answer.status_code == 503
        assert answer.headers["content-type"] == "application/problem+json"
        assert int(answer.headers["retry-after"]) > 0
        assert "database" in answer.json()["detail"]
        assert client.http.post(PATH, json={}).status_code == 400
        breakable_mysql.start()
        until_ready(client, RECOVERY)
        client.add("found")
        assert stored(client) == ["found"]
    check_log(service)


def test_connections_the_server_closed_are_replaced_unnoticed(
    start_service: StartService, breakable_mysql: MySQL
) -> None:
    service = start_service("guestbook", DATABASE_URL=breakable_mysql.url())
    with Client(service) as client:
        until_ready(client)
        for number in range(10):
            client.add(str(number))
            _close_connections(breakable_mysql)
            assert client.get().status_code == 200
            _close_connections(breakable_mysql)
        assert stored(client) == [str(number) for number in range(10)]


def test_posts_whose_connection_is_cut_in_the_middle_are_stored_once(
    start_service: StartService, breakable_mysql: MySQL
) -> None:
    service = start_service("guestbook", DATABASE_URL=breakable_mysql.url())
    with Client(service) as client:
        until_ready(client)
        with posting(service.url, visitor=partial(ApiVisitor, keyed=False), again=False) as posts:
            for _ in range(40):
                _close_connections(breakable_mysql)
            posts.wait_for(50)
        posts.check(stored(client))
    assert set(posts.failures) <= {"503"}
    check_log(service)


@pytest.mark.parametrize("carried_out", [True, False], ids=["carried out", "lost"])
def test_a_commit_without_an_answer_is_stored_once(
    start_service: StartService, breakable_mysql: MySQL, carried_out: bool
) -> None:
    """No key: the service itself finds out whether the commit was carried out."""
    with CutAtCommit(breakable_mysql.port, carried_out) as proxy:
        url = f"mysql+pymysql://root@127.0.0.1:{proxy.port}/guestbook"
        service = start_service("guestbook", DATABASE_URL=url)
        with Client(service) as client:
            until_ready(client)
            for number in range(5):
                proxy.cut_next(1)
                href = client.add(str(number))
                assert proxy.left == 0
                proxy.cut_next(1)
                changed = client.http.put(href, json={"username": "A", "message": str(number)})
                assert changed.status_code == 200
            assert stored(client) == list("01234")
            proxy.cut_next(1)
            assert client.http.delete(href).status_code == 204
            assert stored(client) == list("0123")
    check_log(service)


def test_a_commit_that_never_succeeds_is_no_201(
    start_service: StartService, breakable_mysql: MySQL
) -> None:
    with CutAtCommit(breakable_mysql.port, carried_out=False) as proxy:
        url = f"mysql+pymysql://root@127.0.0.1:{proxy.port}/guestbook"
        service = start_service("guestbook", DATABASE_URL=url)
        with Client(service) as client:
            until_ready(client)
            proxy.cut_next(1000)
            answer = client.post({"username": "Ann", "message": "never"})
            assert answer.status_code == 503
            assert "Idempotency-Key" in answer.json()["detail"]
            proxy.cut_next(0)
            assert stored(client) == []
    check_log(service)


def _close_connections(server: MySQL) -> None:
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT id FROM information_schema.processlist "
            "WHERE db = 'guestbook' AND id <> CONNECTION_ID()"
        )
        for (number,) in cursor.fetchall():
            # It may have ended by itself meanwhile.
            with suppress(pymysql.Error):
                cursor.execute(f"KILL {number}")
