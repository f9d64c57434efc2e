"""The same key, the same answer: a repeated POST stores nothing twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest

from tests.support.client import PATH, Client, until_ready
from tests.support.mysql import MySQL
from tests.support.service import StartService
from tests.support.wait import wait

ENTRY = {"username": "Ann", "message": "once"}


def test_the_same_key_again_gets_the_first_answer(empty: Client) -> None:
    key = str(uuid4())
    first, second = empty.post(ENTRY, key), empty.post(ENTRY, key)
    assert (first.status_code, second.status_code) == (201, 201)
    assert second.json() == first.json()
    assert second.headers["location"] == first.headers["location"]
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == "true"
    assert len(empty.all()) == 1
    assert empty.get().json()["page"]["totalElements"] == 1


def test_the_first_answer_holds_after_the_message_was_changed_or_deleted(empty: Client) -> None:
    key = str(uuid4())
    first = empty.post(ENTRY, key)
    href = first.headers["location"]
    empty.http.patch(href, json={"message": "edited", "timestamp": "2020-01-01T00:00:00Z"})
    assert empty.post(ENTRY, key).json() == first.json()
    empty.http.delete(href)
    assert empty.post(ENTRY, key).json() == first.json()
    assert empty.all() == []


@pytest.mark.parametrize(
    "other",
    [
        {"message": "twice"},
        {"username": "Bob"},
        {"timestamp": "2026-01-31T12:00:00Z"},
    ],
)
def test_the_same_key_with_another_message_is_422(empty: Client, other: dict[str, str]) -> None:
    key = str(uuid4())
    assert empty.post(ENTRY, key).status_code == 201
    answer = empty.post(ENTRY | other, key)
    assert answer.status_code == 422
    assert "Idempotency-Key" in answer.json()["detail"]
    assert len(empty.all()) == 1


def test_a_refused_message_leaves_its_key_free(empty: Client) -> None:
    key = str(uuid4())
    assert empty.post({"username": "Ann"}, key).status_code == 400
    assert empty.post(ENTRY, key).status_code == 201


def test_without_a_key_every_post_is_a_message(empty: Client) -> None:
    assert empty.post(ENTRY).headers["location"] != empty.post(ENTRY).headers["location"]
    assert len(empty.all()) == 2


@pytest.mark.parametrize("key", ["", "a b", "k" * 256, "schlüssel".encode().decode("latin-1")])
def test_a_key_that_cannot_be_kept_is_refused(empty: Client, key: str) -> None:
    headers = {b"Idempotency-Key": key.encode("latin-1")}
    answer = empty.http.post(PATH, json=ENTRY, headers=headers)
    assert answer.status_code == 400
    assert "Idempotency-Key" in answer.json()["detail"]
    assert empty.all() == []


def test_keys_differ_by_case(empty: Client) -> None:
    assert (
        empty.post(ENTRY, "case").headers["location"]
        != (empty.post(ENTRY, "CASE").headers["location"])
    )


def test_answers_say_how_long_a_key_is_kept(empty: Client) -> None:
    """By this a client knows that sending a post again is safe."""
    answers = [
        empty.post(ENTRY, "kept"),
        empty.post(ENTRY, "kept"),
        empty.post(ENTRY),
        empty.get(),
        empty.get(params={"page": 7, "sort": "id,desc"}),
        empty.get(headers={"Accept": "application/json"}),
    ]
    for answer in answers:
        assert answer.headers["idempotency-key-retention"] == "86400"


@pytest.fixture
def day_by_day(mysql: MySQL) -> Iterator[Callable[[int], str]]:
    """Gives the URL of a database whose clock is so many days off, for who connects by it."""
    database = f"clock_{uuid4().hex}"
    mysql.create(database)
    url = mysql.create_user("clock", database)

    def set_clock(days: int) -> str:
        # A connection sees the time it was opened at, moved.
        moved = f"SET @@timestamp = UNIX_TIMESTAMP() + {days * 86400}"
        mysql.execute(f"SET GLOBAL init_connect = '{moved}'")
        return url

    yield set_clock
    mysql.execute("SET GLOBAL init_connect = ''", "DROP USER clock@localhost")


def place(client: Client, key: str) -> str:
    """The path of the message that is stored for a key."""
    answer = client.post(ENTRY, key)
    assert answer.status_code == 201, answer.text
    return urlsplit(answer.headers["location"]).path


@pytest.mark.parametrize("days", [0, 3, -3])
def test_keys_expire_after_a_day_of_the_databases_clock(
    start_service: StartService, mysql: MySQL, day_by_day: Callable[[int], str], days: int
) -> None:
    """A service whose clock is wrong, as here by days, forgets nobody's key too early or late."""
    url = day_by_day(days)
    database = url.rpartition("/")[2]
    with Client(start_service("guestbook", DATABASE_URL=url)) as client:
        until_ready(client)
        keys = {age: str(uuid4()) for age in (0, 23, 25)}
        stored = {age: place(client, key) for age, key in keys.items()}
        client.service.stop()
    with mysql.connect(database, "clock") as connection, connection.cursor() as cursor:
        for age in (23, 25):
            cursor.execute(
                "UPDATE idempotency_key SET created = UTC_TIMESTAMP(3) - INTERVAL %s HOUR "
                "WHERE value = %s",
                (age, keys[age]),
            )

    def old_key_is_forgotten() -> bool:
        query = f"SELECT 1 FROM idempotency_key WHERE value = '{keys[25]}'"
        return not mysql.execute(query, database=database)

    with Client(start_service("guestbook", DATABASE_URL=url)) as client:
        until_ready(client)
        wait(old_key_is_forgotten, "the upkeep to forget the old key")
        assert place(client, keys[0]) == stored[0]
        assert place(client, keys[23]) == stored[23]
        assert place(client, keys[25]) != stored[25]
        assert client.total() == 4


def test_one_key_from_many_at_once_is_one_message(empty: Client) -> None:
    clients = 16

    def post(key: str) -> httpx.Response:
        return empty.post(ENTRY, key)

    with ThreadPoolExecutor(clients) as threads:
        for _ in range(10):
            key = str(uuid4())
            answers = list(threads.map(post, [key] * clients))
            assert {answer.status_code for answer in answers} == {201}
            assert len({answer.headers["location"] for answer in answers}) == 1
    assert len(empty.all()) == 10
    assert empty.get().json()["page"]["totalElements"] == 10
