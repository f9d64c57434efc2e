"""The database stops, dies, freezes and comes back, while visitors post."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial

import httpx
import pytest

from services.guestbook.database import MAINTENANCE_CONNECTIONS, POOL_SIZE
from tests.faults.posts import ApiVisitor, check_log, posting, stored
from tests.faults.proxy import Cut
from tests.support.client import PATH, Client, until_ready, until_unready
from tests.support.mysql import MySQL
from tests.support.service import StartService

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
            breakable_mysql.close_connections()
            assert client.get().status_code == 200
            breakable_mysql.close_connections()
        assert stored(client) == [str(number) for number in range(10)]


def test_posts_whose_connection_is_cut_in_the_middle_are_stored_once(
    start_service: StartService, breakable_mysql: MySQL
) -> None:
    service = start_service("guestbook", DATABASE_URL=breakable_mysql.url())
    with Client(service) as client:
        until_ready(client)
        with posting(service.url, visitor=partial(ApiVisitor, keyed=False), again=False) as posts:
            for _ in range(40):
                breakable_mysql.close_connections()
            posts.wait_for(50)
        posts.check(stored(client))
    assert set(posts.failures) <= {"503"}
    check_log(service)


@pytest.mark.parametrize("carried_out", [True, False], ids=["carried out", "lost"])
def test_a_commit_without_an_answer_is_stored_once(
    start_service: StartService, breakable_mysql: MySQL, carried_out: bool
) -> None:
    """No key: the service itself finds out whether the commit was carried out."""
    with Cut(breakable_mysql.port, carried_out=carried_out, at=b"COMMIT") as proxy:
        url = breakable_mysql.url(port=proxy.port)
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
                # Its own change is not taken for somebody else's.
                proxy.cut_next(1)
                tag = {"If-Match": changed.headers["etag"]}
                changed = client.http.patch(href, json={"username": "B"}, headers=tag)
                assert changed.status_code == 200
                assert client.get(href).json()["username"] == "B"
            assert stored(client) == list("01234")
            proxy.cut_next(1)
            tag = {"If-Match": changed.headers["etag"]}
            assert client.http.delete(href, headers=tag).status_code == 204
            assert stored(client) == list("0123")
    check_log(service)


def test_a_commit_that_never_succeeds_is_no_201(
    start_service: StartService, breakable_mysql: MySQL
) -> None:
    with Cut(breakable_mysql.port, carried_out=False, at=b"COMMIT") as proxy:
        url = breakable_mysql.url(port=proxy.port)
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


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_the_first_probe_after_a_slow_second_says_up(
    start_service: StartService, mysql: MySQL, database: str, busy: bool
) -> None:
    """Kubernetes takes all pods out of service after two probes that say no."""
    service = start_service("guestbook", DATABASE_URL=mysql.url(database))
    with Client(service) as client, ExitStack() as stack:
        until_ready(client)
        if busy:
            stack.enter_context(posting(service.url, visitors=20))
        mysql.freeze()
        try:
            until_unready(client, 5)
        finally:
            mysql.thaw()
        # The outcome of a probe is kept for a second.
        time.sleep(1.2)
        assert client.readiness().status_code == 200
    check_log(service)


@pytest.fixture(scope="module")
def small_mysql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MySQL]:
    """A server that takes few connections, and has users without rights over it."""
    server = MySQL(tmp_path_factory.mktemp("small"), "--max-connections=20")
    try:
        for user in ("ours", "others"):
            server.create_user(user)
        yield server
    finally:
        server.stop()


def test_a_service_that_answers_is_ready_when_others_have_all_connections(
    start_service: StartService, small_mysql: MySQL
) -> None:
    service = start_service("guestbook", DATABASE_URL=small_mysql.url(user="ours"))
    with Client(service) as client, ExitStack() as others:
        until_ready(client)
        client.add("before")
        others.enter_context(small_mysql.crowded("others"))
        # First only probes come, for longer than the outcome of one is kept.
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            assert client.readiness().status_code == 200, client.readiness().text
        for _ in range(10):
            client.add("meanwhile")
            assert client.get().status_code == 200
            assert client.readiness().status_code == 200
    check_log(service)


def test_a_service_without_a_connection_is_ready_as_soon_as_there_is_one(
    start_service: StartService, small_mysql: MySQL
) -> None:
    with small_mysql.crowded("ours"):
        service = start_service("guestbook", DATABASE_URL=small_mysql.url(user="ours"))
        with Client(service) as client:
            until_unready(client)
            assert client.get().status_code == 503
    with Client(service) as client:
        until_ready(client, RECOVERY)
        client.add("stored")
    check_log(service)


def test_a_pod_has_no_more_connections_than_it_says(
    start_service: StartService, mysql: MySQL, database: str
) -> None:
    """The sum over all pods must fit the server's `max_connections`."""
    service = start_service("guestbook", DATABASE_URL=mysql.url(database))
    by_hand = (
        f"INSERT INTO {database}.message (username, message, timestamp) VALUES ('A', 'b', NOW())"
    )
    most = 0
    with Client(service) as client, ThreadPoolExecutor(20) as threads:
        until_ready(client)
        with posting(service.url, visitors=20) as posts:
            reads = [threads.submit(client.get, f"{PATH}?page={page}") for page in range(150)]
            while not all(read.done() for read in reads):
                client.readiness()
                mysql.execute(by_hand)
                most = max(most, len(mysql.connections(database)))
            posts.wait_for(100)
        assert {read.result().status_code for read in reads} == {200}
    assert POOL_SIZE <= most <= POOL_SIZE + MAINTENANCE_CONNECTIONS
    check_log(service)
