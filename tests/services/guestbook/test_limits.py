"""Clients that take nothing of an answer, or leave before their request is whole."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from uuid import uuid4

import httpx
import psutil
import pytest

from tests.services.guestbook.sql import execute
from tests.support.client import PATH, Client, until_ready
from tests.support.metrics import samples
from tests.support.mysql import MySQL
from tests.support.service import StartService
from tests.support.wait import wait
from tests.support.wire import Connection, request

MEMORY = 256 * 2**20
"""Bytes a pod may have."""

LARGE = f"{PATH}?size=1000"


@pytest.fixture(scope="module")
def full(start_shared_service: StartService, mysql: MySQL) -> Iterator[Client]:
    """A guestbook with 1,000 messages of full length: 8 MB on one page."""
    url = mysql.create(f"full_{uuid4().hex}")
    with Client(start_shared_service("guestbook", DATABASE_URL=url)) as client:
        until_ready(client)
        execute(
            url,
            "INSERT INTO message (username, message, timestamp) WITH RECURSIVE numbers(n) AS "
            "(SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 1000) "
            "SELECT n, REPEAT('😀', 2000), '2026-01-31' FROM numbers",
        )
        assert client.total(size=1) == 1000
        yield client


def test_readers_that_read_nothing_keep_nobody_waiting_and_little_memory(full: Client) -> None:
    process = psutil.Process(full.service.pid)
    largest = 0
    refused = 0
    with ExitStack() as stack:
        for _ in range(60):
            reader = stack.enter_context(Connection(full.service.url, window=4096))
            reader.send(request("GET", LARGE))
        until = time.monotonic() + 8
        while time.monotonic() < until:
            started = time.monotonic()
            polite = full.get(LARGE)
            # Three seconds for a turn, and some for the page itself.
            assert time.monotonic() - started < 6
            if polite.status_code == 503:
                refused += 1
                assert int(polite.headers["retry-after"]) > 0
            else:
                assert len(polite.json()["_embedded"]["messages"]) == 1000
            started = time.monotonic()
            alive = httpx.get(
                f"{full.service.management}/actuator/health/liveness", trust_env=False
            )
            assert alive.status_code == 200
            assert time.monotonic() - started < 1
            assert full.get(params={"size": 1}).status_code == 200
            assert full.readiness().status_code == 200
            largest = max(largest, process.memory_info().rss)
    assert largest < MEMORY, f"{largest / 2**20:.0f} MiB"
    assert refused > 0, "all turns were taken"
    page = wait(lambda: full.get(LARGE).is_success, "a turn when the readers have left")
    assert page
    assert process.memory_info().rss < MEMORY


def test_a_slow_reader_gets_the_whole_page(full: Client) -> None:
    with Connection(full.service.url, window=65536) as reader:
        reader.send(request("GET", LARGE))
        answer = reader.answer()
    assert answer.status == 200
    assert len(answer.json()["_embedded"]["messages"]) == 1000


@pytest.mark.parametrize(
    ("method", "target", "heading"),
    [
        ("POST", PATH, b"Content-Length: 100"),
        ("POST", PATH, b"Transfer-Encoding: chunked"),
        ("PUT", f"{PATH}/1", b"Content-Length: 100"),
        ("PATCH", f"{PATH}/1", b"Content-Length: 100"),
    ],
)
def test_a_client_that_leaves_within_its_body_is_no_failure_of_ours(
    empty: Client, method: str, target: str, heading: bytes
) -> None:
    empty.add("kept")
    before = len(empty.service.lines)
    failed = failures(empty)
    with Connection(empty.service.url) as leaver:
        json = b"Content-Type: application/json"
        body = b'14\r\n{"username":"A","mess' if b"chunked" in heading else b'{"username":"A"'
        leaver.send(request(method, target, json, heading) + body)
        empty.get()  # It is being read by now.

    def lines() -> list[str]:
        return empty.service.lines[before:]

    wait(lambda: f"{method} {target} 499 " in "\n".join(lines()), "the line of it", 5)
    assert [key for key in samples(empty.service, "http_requests_total") if key[2] == "499"]
    assert failures(empty) == failed
    assert [message["message"] for message in empty.all()] == ["kept"]
    for word in ("ERROR", "WARNING", "Traceback"):
        assert word not in "\n".join(lines())


def failures(client: Client) -> float:
    """The number of requests that the service failed to answer."""
    counted = samples(client.service, "http_requests_total")
    return sum(number for (_, _, status), number in counted.items() if status.startswith("5"))
