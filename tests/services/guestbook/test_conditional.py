"""`ETag` and `If-Match`: a change that is based on what is no longer there is not made."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.support.client import Client

STALE = '"99"'


def change(client: Client, method: str, href: str, *if_match: str) -> httpx.Response:
    """Put, patch or delete a message; each `if_match` is a header line."""
    document = {"PUT": {"username": "Bob", "message": "new"}, "PATCH": {"message": "new"}}
    headers = [("If-Match", line) for line in if_match]
    return client.http.request(method, href, json=document.get(method), headers=headers)


def tag(client: Client, href: str) -> str:
    return str(client.get(href).raise_for_status().headers["etag"])


def test_an_etag_is_strong_and_the_same_until_the_message_changes(empty: Client) -> None:
    posted = empty.post({"username": "Ann", "message": "old"})
    href, first = posted.headers["location"], posted.headers["etag"]
    assert re.fullmatch(r'"[\x21\x23-\x7e]+"', first)
    assert tag(empty, href) == first == empty.http.head(href).headers["etag"]
    patched = empty.http.patch(href, json={"message": "new"})
    put = empty.http.put(href, json={"username": "Bob", "message": "new"})
    moved = empty.http.patch(href, json={"timestamp": "2020-01-01T00:00:00.001Z"})
    tags = [first, *(answer.headers["etag"] for answer in (patched, put, moved))]
    assert len(set(tags)) == 4
    assert tag(empty, href) == tags[-1]


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    "lines",
    [
        ["{current}"],
        ["*"],
        [STALE + ", {current}"],
        ["{current} , " + STALE],
        [STALE, "{current}"],
        [", ,{current},"],
        ['"a,b", {current}'],
        ['W/"weak", {current}'],
    ],
)
def test_a_change_of_the_current_message_is_made(
    empty: Client, method: str, lines: list[str]
) -> None:
    href = empty.add("old")
    current = tag(empty, href)
    answer = change(empty, method, href, *(line.replace("{current}", current) for line in lines))
    assert answer.status_code == (204 if method == "DELETE" else 200), answer.text
    assert empty.total() == (0 if method == "DELETE" else 1)


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    "line",
    [
        STALE,
        STALE + ', "98"',
        "W/{current}",
        "W/{current}, " + STALE,
        "{bare}",
        '"x{bare}"',
        '"{bare}, 1"',
        "99",
        "99*",
        '"*"',
    ],
)
def test_a_change_of_another_state_is_412_and_not_made(
    empty: Client, method: str, line: str
) -> None:
    href = empty.add("old")
    before = empty.get(href)
    current = before.headers["etag"]
    line = line.replace("{current}", current).replace("{bare}", current.strip('"'))
    answer = change(empty, method, href, line)
    assert answer.status_code == 412
    assert answer.headers["content-type"] == "application/problem+json"
    assert "If-Match" in answer.json()["detail"]
    after = empty.get(href)
    assert (after.json(), after.headers["etag"]) == (before.json(), current)


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("line", ["*", STALE])
def test_a_message_that_is_gone_stays_404(empty: Client, method: str, line: str) -> None:
    href = empty.add()
    empty.http.delete(href)
    assert change(empty, method, href, line).status_code == 404


def test_a_change_that_is_not_valid_is_400_whatever_its_tag(empty: Client) -> None:
    href = empty.add()
    answer = empty.http.patch(href, json={"message": ""}, headers={"If-Match": STALE})
    assert answer.status_code == 400


def test_of_changes_that_race_one_is_made(empty: Client) -> None:
    """All of them are based on the same state; the others are told that they lost."""
    clients = 12
    with ThreadPoolExecutor(clients) as threads:
        for _ in range(10):
            href = empty.add("old")
            current = tag(empty, href)

            def patch(number: int, href: str = href, current: str = current) -> httpx.Response:
                document, headers = {"message": f"by {number}"}, {"If-Match": current}
                return empty.http.patch(href, json=document, headers=headers)

            answers = list(threads.map(patch, range(clients)))
            made = [answer for answer in answers if answer.status_code == 200]
            assert len(made) == 1
            assert {answer.status_code for answer in answers} == {200, 412}
            assert empty.get(href).json() == made[0].json()
            assert tag(empty, href) == made[0].headers["etag"]


def test_a_deletion_and_changes_that_race_are_one_change(empty: Client) -> None:
    methods = ["PATCH", "DELETE", "PUT", "PATCH", "DELETE", "PUT"]
    with ThreadPoolExecutor(len(methods)) as threads:
        for _ in range(10):
            href = empty.add("old")
            current = tag(empty, href)

            def attempt(method: str, href: str = href, current: str = current) -> int:
                return change(empty, method, href, current).status_code

            statuses = list(threads.map(attempt, methods))
            assert sum(status < 300 for status in statuses) == 1, statuses
            assert set(statuses) <= {200, 204, 404, 412}
