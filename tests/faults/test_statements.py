"""Statements that are cut, killed, or slower than anybody waits."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.faults.posts import check_log, stored
from tests.faults.proxy import Cut
from tests.support.client import PATH, Client, until_ready
from tests.support.mysql import MySQL
from tests.support.service import StartService
from tests.support.wait import wait

RECOVERY = 10
"""Seconds in which the service is well again once its database is (other things run here too)."""

FAR = [
    f"{PATH}?page=60",
    f"{PATH}?page=60&sort=username",
    f"{PATH}?page=60&sort=timestamp,desc",
    f"{PATH}?page=149&sort=id,desc",
]
"""Pages of the table below behind a thousand rows and more."""


@pytest.fixture
def large(mysql: MySQL, start_service: StartService) -> Iterator[Client]:
    """A guestbook with 3,000 messages, in the database that the server begins with."""
    with Client(start_service("guestbook", DATABASE_URL=mysql.url())) as client:
        until_ready(client)
        if client.total() == 0:
            mysql.execute(
                "INSERT INTO message (username, message, timestamp) "
                "WITH RECURSIVE numbers(n) AS "
                "(SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 1000) "
                "SELECT n % 7, n + first, NOW() FROM numbers, "
                "(SELECT 0 AS first UNION SELECT 1000 UNION SELECT 2000) AS thousands"
            )
        assert client.total() == 3000
        yield client


def test_pages_are_200_or_503_while_their_connections_are_killed(
    large: Client, mysql: MySQL
) -> None:
    enough = 60
    closed = 0

    def ask(_: int) -> Counter[int]:
        statuses: Counter[int] = Counter()
        while closed < enough:
            answer = large.get(FAR[statuses.total() % len(FAR)])
            statuses[answer.status_code] += 1
            if answer.status_code == 503:
                assert int(answer.headers["retry-after"]) > 0
        return statuses

    with ThreadPoolExecutor(8) as threads:
        asked = threads.map(ask, range(8))
        while closed < enough:
            closed += mysql.close_connections()
        statuses = sum(asked, Counter())
    assert statuses.total() > enough
    assert set(statuses) <= {200, 503}, statuses
    for page in FAR:
        assert large.get(page).status_code == 200
    check_log(large.service)


def test_a_page_comes_whichever_of_its_statements_is_cut(
    start_service: StartService, large: Client, mysql: MySQL
) -> None:
    """Reading again is always safe, so nobody is told of it."""
    with Cut(mysql.port, carried_out=False) as proxy:
        service = start_service("guestbook", DATABASE_URL=mysql.url(port=proxy.port))
        with Client(service) as client:
            until_ready(client)
            item = large.get().json()["_embedded"]["messages"][7]["_links"]["self"]["href"]
            path = item.removeprefix(large.service.url)
            for page in (PATH, f"{PATH}?page=9000", path, *FAR):
                expected = large.get(page, headers={"Host": "a"}).json()
                cut = -1
                while proxy.left == 0:
                    cut += 1
                    proxy.cut_next(1, after=cut)
                    answer = client.get(page, headers={"Host": "a"})
                    assert answer.status_code == 200, (page, cut)
                    assert answer.json() == expected
                assert cut > 0, f"no statement of {page} was cut"
                proxy.cut_next(0)
        check_log(service)


@pytest.mark.parametrize("carried_out", [True, False], ids=["carried out", "lost"])
def test_a_post_is_stored_once_whichever_of_its_statements_is_cut(
    start_service: StartService, mysql: MySQL, database: str, carried_out: bool
) -> None:
    with Cut(mysql.port, carried_out=carried_out) as proxy:
        url = mysql.url(database, port=proxy.port)
        service = start_service("guestbook", DATABASE_URL=url)
        with Client(service) as client:
            until_ready(client)
            texts: list[str] = []
            for key in (None, "key"):
                cut = -1
                while proxy.left == 0:
                    cut += 1
                    texts.append(f"{key} {cut}")
                    proxy.cut_next(1, after=cut)
                    entry = {"username": "Ann", "message": texts[-1]}
                    answer = client.post(entry, key and f"{key}-{cut}")
                    assert answer.status_code == 201, texts[-1]
                assert cut > 3, "fewer statements were cut than a post has"
                proxy.cut_next(0)
            assert stored(client) == texts
    check_log(service)


SLOW = (
    "RENAME TABLE message TO table_of_messages",
    "CREATE VIEW message AS SELECT * FROM table_of_messages WHERE SLEEP(0.3) = 0",
    "CREATE TRIGGER slow BEFORE INSERT ON table_of_messages FOR EACH ROW SET @slow = SLEEP(60)",
)
"""Makes each row that is read last long, and each that is written."""

FAST = ("DROP TRIGGER slow", "DROP VIEW message", "RENAME TABLE table_of_messages TO message")


def test_a_statement_does_not_run_on_for_a_client_that_left(large: Client, mysql: MySQL) -> None:
    href = large.get().json()["_embedded"]["messages"][7]["_links"]["self"]["href"]
    post = ("POST", PATH)

    def ask(method: str, path: str, seconds: float) -> httpx.Response:
        body = {"username": "Ann", "message": "left"} if method == "POST" else None
        return large.http.request(method, path, json=body, timeout=seconds)

    def leave(method: str, path: str) -> None:
        with pytest.raises(httpx.ReadTimeout):
            ask(method, path, 0.2)

    mysql.execute(*SLOW)
    try:
        with ThreadPoolExecutor(8) as threads:
            requests = [*(("GET", path) for path in (PATH, *FAR, href)), post]
            list(threads.map(lambda each: leave(*each), requests))
        assert mysql.connections(busy=True)
        wait(
            lambda: not mysql.connections(busy=True),
            "the end of what was asked by clients that left",
            5,
        )
        for method, path in (("GET", FAR[1]), post):
            started = time.monotonic()
            patient = ask(method, path, 30)
            assert patient.status_code == 503
            assert int(patient.headers["retry-after"]) > 0
            assert time.monotonic() - started < 5
            assert mysql.connections(busy=True) == []
    finally:
        mysql.close_connections()
        mysql.execute(*FAST)
    assert all(large.get(path).status_code == 200 for path in FAR)
    assert "left" not in stored(large)
    check_log(large.service)
