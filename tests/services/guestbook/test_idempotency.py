"""The same key, the same answer: a repeated POST stores nothing twice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import httpx
import pytest

from tests.services.guestbook.client import PATH, Client

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
