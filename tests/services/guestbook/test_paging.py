"""Pages of `/api/messages`: parameters as Spring Data reads them, order, links and totals."""

from __future__ import annotations

import pytest

from tests.support.client import PATH, Client


def messages(client: Client, **query: object) -> list[str]:
    """The texts on a page."""
    page = client.get(params=query).raise_for_status().json()
    return [message["message"] for message in page["_embedded"]["messages"]]


def test_an_empty_list_keeps_its_shape(empty: Client) -> None:
    page = empty.get().json()
    assert page["_embedded"] == {"messages": []}
    assert page["page"] == {"size": 20, "totalElements": 0, "totalPages": 0, "number": 0}
    assert "next" not in page["_links"]
    assert "prev" not in page["_links"]


def test_pages_link_to_each_other_and_keep_size_and_sort(empty: Client) -> None:
    for number in range(5):
        empty.add(str(number))
    query = {"page": 1, "size": 2, "sort": ["username,asc", "id,desc"]}
    page = empty.get(params=query).json()
    kept = "size=2&sort=username,asc&sort=id,desc"
    expected = {"first": 0, "prev": 0, "self": 1, "next": 2, "last": 2}
    links = {name: link["href"] for name, link in page["_links"].items() if name != "profile"}
    assert links == {
        name: f"{empty.service.url}{PATH}?page={number}&{kept}" for name, number in expected.items()
    }
    assert page["page"] == {"size": 2, "totalElements": 5, "totalPages": 3, "number": 1}
    walked: list[str] = []
    url: str | None = links["first"]
    while url:
        current = empty.get(url).json()
        walked += [message["message"] for message in current["_embedded"]["messages"]]
        url = current["_links"].get("next", {}).get("href")
    assert walked == ["4", "3", "2", "1", "0"]


def test_a_page_past_the_end_is_empty_and_leads_back(empty: Client) -> None:
    empty.add()
    page = empty.get(params={"page": 7}).json()
    assert page["_embedded"] == {"messages": []}
    assert page["page"]["totalElements"] == 1
    assert page["_links"]["last"]["href"].endswith("?page=0&size=20")


def test_the_default_page_has_20_messages(empty: Client) -> None:
    for number in range(21):
        empty.add(str(number))
    assert messages(empty) == [str(number) for number in range(20)]
    assert empty.get().json()["page"]["totalPages"] == 2
    assert len(messages(empty, size=1000)) == 21


@pytest.mark.parametrize(
    ("query", "number", "size"),
    [
        ("page=-1", 0, 20),
        ("page=x", 0, 20),
        ("page=", 0, 20),
        ("page=1.5", 0, 20),
        ("page=2147483647", 2**31 - 1, 20),
        ("page=2147483648", 0, 20),
        ("page=99999999999999999999", 0, 20),
        ("page=" + "9" * 5000, 0, 20),
        ("size=0", 0, 20),
        ("size=-1", 0, 20),
        ("size=x", 0, 20),
        ("size=", 0, 20),
        ("size=1", 0, 1),
        ("size=1000", 0, 1000),
        ("size=1001", 0, 1000),
        ("size=5000", 0, 1000),
        ("size=2147483647", 0, 1000),
        ("size=2147483648", 0, 20),
        ("page=x&size=7", 0, 7),
        ("page=3&size=x", 3, 20),
        ("page=2147483647&size=5000", 2**31 - 1, 1000),
    ],
)
def test_a_page_is_counted_and_cut_as_by_spring_data(
    guestbook: Client, query: str, number: int, size: int
) -> None:
    answer = guestbook.get(f"{PATH}?{query}")
    assert answer.status_code == 200, answer.text
    page = answer.json()
    assert (page["page"]["number"], page["page"]["size"]) == (number, size)
    href = page["_links"]["self"]["href"]
    assert href == f"{guestbook.service.url}{PATH}?page={number}&size={size}"


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        (["id,desc"], "dcbBA"),
        (["id,DESC"], "dcbBA"),
        (["timestamp,asc"], "dcbBA"),
        (["username,desc"], "dbcBA"),
        (["username,asc", "id,desc"], "cBAdb"),
        (["username,timestamp,desc"], "bdABc"),
        (["username"], "ABcbd"),
    ],
)
def test_sort(empty: Client, sort: list[str], expected: str) -> None:
    people = {"A": "Ann", "B": "Ann", "b": "Bob", "c": "Ann", "d": "Bob"}
    for day, (text, name) in enumerate(people.items()):
        empty.add(text, name, timestamp=f"2026-01-{31 - day}T00:00:00Z")
    assert "".join(messages(empty, sort=sort)) == expected


@pytest.mark.parametrize(
    "sort",
    [
        [""],
        [","],
        [",desc"],
        ["desc"],
        ["nothing"],
        ["nothing,desc"],
        ["ID,desc"],
        ["_links,desc"],
        [",ignorecase"],
        ["id,down"],
        ["id; DROP TABLE message,desc"],
        ["id\0,desc"],
        ["x" * 5000 + ",desc"],
        ["nothing,desc"] * 200,
    ],
)
def test_a_sort_that_makes_no_sense_is_ignored(empty: Client, sort: list[str]) -> None:
    for text in "abc":
        empty.add(text)
    assert messages(empty, sort=sort) == list("abc")


def test_a_known_sort_beside_an_unknown_one_holds(empty: Client) -> None:
    for text in "abc":
        empty.add(text)
    assert messages(empty, sort=["nothing,asc", "", "id,desc"]) == list("cba")
    assert messages(empty, sort="nothing,id,desc") == list("cba")


@pytest.mark.parametrize("sort", ["message", "message,desc", "username,message"])
def test_a_sort_that_no_index_helps_is_refused_with_the_reason(
    guestbook: Client, sort: str
) -> None:
    answer = guestbook.get(params={"sort": sort})
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert "message" in answer.json()["detail"]


def test_names_are_sorted_as_people_sort_them(empty: Client) -> None:
    """Neither case nor accents separate names; equal ones stand in the order they came."""
    for name in ("Zoe", "alice", "Ärne", "_x", "Alice", "arne", "Bob", "ÁLICE"):
        empty.add(name, name)
    expected = ["_x", "alice", "Alice", "ÁLICE", "Ärne", "arne", "Bob", "Zoe"]
    assert messages(empty, sort="username") == expected
    assert messages(empty, sort="username,desc") == expected[::-1]
    paged = [messages(empty, sort="username", size=3, page=page) for page in range(4)]
    assert paged == [expected[:3], expected[3:6], expected[6:], []]
