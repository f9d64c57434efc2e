"""The contract of `/api/messages`, on SQLite and on MySQL."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.client import PATH, Client
from tests.support.metrics import samples

JSON = {"Content-Type": "application/json"}
NOON = "2026-01-31T12:00:00.000+00:00"

real = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def test_a_client_of_the_original_works_unchanged(empty: Client) -> None:
    """The original ui: posts with this timestamp, reads the list, and follows each self link."""
    for text in ("first", "second"):
        entry = {"username": "Ray", "message": text, "timestamp": "2026-01-31T12:00:00.000+0000"}
        headers = {"Accept": "application/json, application/*+json"}
        stored = empty.http.post(PATH, json=entry, headers=headers)
        assert stored.status_code == 201
        assert stored.headers["content-type"] == "application/json;charset=UTF-8"
    listed = empty.get().json()["_embedded"]["messages"]
    followed = [empty.http.get(message["_links"]["self"]["href"]).json() for message in listed]
    assert [message["message"] for message in followed] == ["first", "second"]
    assert followed == listed
    assert {message["timestamp"] for message in followed} == {NOON}


def test_post_answers_201_with_location_and_body(empty: Client) -> None:
    answer = empty.post({"username": "Ann", "message": "hello", "timestamp": NOON})
    href = answer.json()["_links"]["self"]["href"]
    assert answer.status_code == 201
    assert answer.headers["location"] == href
    assert answer.headers["content-type"] == "application/hal+json;charset=UTF-8"
    assert answer.headers["x-guestbook-hostname"] == "guestbook-1"
    assert answer.json() == {
        "username": "Ann",
        "message": "hello",
        "timestamp": NOON,
        "_links": {"self": {"href": href}, "message": {"href": href}},
    }
    assert href.startswith(empty.service.url + PATH + "/")
    assert empty.get(href).json() == answer.json()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b'{"username":"A","message":"b"} x', "not valid JSON"),
        (b'{"username":"A","message":"\xff"}', "not valid JSON"),
        (b'{"username":"A","message":"\\ud800"}', "not valid JSON"),
        (b"[" * 5000, "not valid JSON"),
        (b"[]", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b"{}", "username: missing; message: missing"),
        (b'{"username":"A"}', "message: missing"),
        (b'{"username":"","message":"b"}', "username"),
        (b'{"username":null,"message":"b"}', "username"),
        (b'{"username":5,"message":"b"}', "username"),
        (b'{"username":"A","message":["b"]}', "message"),
        (b'{"username":"A","message":"b\\u0000"}', "NUL"),
        (b'{"username":"\\u0000","message":"b"}', "NUL"),
        (json.dumps({"username": "A" * 256, "message": "b"}).encode(), "username"),
        (json.dumps({"username": "A", "message": "b" * 2001}).encode(), "message"),
        (b'{"username":"A","message":"b","timestamp":"yesterday"}', "timestamp"),
        (b'{"username":"A","message":"b","timestamp":"2026-02-30T00:00:00Z"}', "timestamp"),
        (b'{"username":"A","message":"b","timestamp":"0999-12-31T23:59:59Z"}', "timestamp"),
        (b'{"username":"A","message":"b","timestamp":"9999-12-31T23:59:59-01:00"}', "timestamp"),
        (b'{"username":"A","message":"b","timestamp":true}', "timestamp"),
        (b'{"username":"A","message":"b","timestamp":1e400}', "timestamp"),
        (b'{"username":"A","message":"b","timestamp":99999999999999999999}', "timestamp"),
    ],
)
def test_a_bad_body_is_refused_with_the_reason(empty: Client, body: bytes, reason: str) -> None:
    answer = empty.http.post(PATH, content=body, headers=JSON)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert reason in answer.json()["detail"]
    assert empty.get().json()["page"]["totalElements"] == 0


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (b"", "utf-8"),
        (codecs.BOM_UTF8, "utf-8"),
        (b"", "utf-16-le"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (b"", "utf-16-be"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (b"", "utf-32-le"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (b"", "utf-32-be"),
        (codecs.BOM_UTF32_BE, "utf-32-be"),
    ],
)
def test_a_body_is_read_in_each_encoding_of_json(empty: Client, mark: bytes, encoding: str) -> None:
    def body(**document: str) -> bytes:
        return mark + json.dumps(document, ensure_ascii=False).encode(encoding)

    name, text = "Zoë Ĳ", "Grüße 😀"
    stored = empty.http.post(PATH, content=body(username=name, message=text), headers=JSON)
    assert stored.status_code == 201, stored.text
    href = stored.headers["location"]
    assert (stored.json()["username"], stored.json()["message"]) == (name, text)
    put = empty.http.put(href, content=body(username=name, message="été"), headers=JSON)
    assert (put.status_code, put.json()["message"]) == (200, "été")
    patch = empty.http.patch(href, content=body(message="日本"), headers=JSON)
    assert (patch.status_code, patch.json()["message"]) == (200, "日本")
    assert empty.get(href).json() == patch.json()


@pytest.mark.parametrize(
    "body",
    [
        codecs.BOM_UTF8,
        codecs.BOM_UTF16_LE,
        codecs.BOM_UTF8 + b'{"username":"A","message":"\xe9"}',
        codecs.BOM_UTF16_LE + '{"username":"A","message":"b"}'.encode("utf-16-be"),
        '{"username":"A","message":"b"}'.encode("utf-16-le")[:-1],
        '{"username":"A","message":"\ud800"}'.encode("utf-16-le", "surrogatepass"),
        '{"username":"A","message":"\ud800"}'.encode("utf-32-be", "surrogatepass"),
        b'{\0\0\0"\0\0\xff',
    ],
)
def test_a_body_that_breaks_its_encoding_is_refused(empty: Client, body: bytes) -> None:
    answer = empty.http.post(PATH, content=body, headers=JSON)
    assert answer.status_code == 400
    assert "not valid JSON" in answer.json()["detail"]
    assert empty.all() == []


def test_the_longest_fields_are_kept(empty: Client) -> None:
    name, text = "😀" * 255, "𝔸" * 2000
    stored = empty.get(empty.add(text, name)).json()
    assert (stored["username"], stored["message"]) == (name, text)


@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
@pytest.mark.parametrize("size", [65_537, 1_000_000])
def test_a_body_over_64_kb_is_refused(empty: Client, chunked: bool, size: int) -> None:
    start = b'{"username":"A","message":"b","padding":"'
    body = start + b"x" * (size - len(start) - 2) + b'"}'

    def pieces() -> Iterator[bytes]:
        for place in range(0, len(body), 4096):
            yield body[place : place + 4096]

    answer = empty.http.post(PATH, content=pieces() if chunked else body, headers=JSON)
    assert answer.status_code == 413
    assert "65536" in answer.json()["detail"]
    assert empty.get().json()["page"]["totalElements"] == 0


def test_a_body_of_64_kb_is_read(empty: Client) -> None:
    start = b'{"username":"A","message":"b","padding":"'
    body = start + b"x" * (65_536 - len(start) - 2) + b'"}'
    assert empty.http.post(PATH, content=body, headers=JSON).status_code == 201


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 201),
        ("application/json;charset=UTF-8", 201),
        ("application/hal+json", 201),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
    ],
)
def test_content_types(guestbook: Client, content_type: str, status: int) -> None:
    body = b'{"username":"A","message":"b"}'
    answer = guestbook.http.post(PATH, content=body, headers={"Content-Type": content_type})
    assert answer.status_code == status


def test_put_replaces_and_keeps_the_timestamp_it_is_not_given(empty: Client) -> None:
    href = empty.add("old", timestamp=NOON)
    # As a client does that changes what it got, links included.
    document = {**empty.get(href).json(), "message": "new"}
    del document["timestamp"]
    answer = empty.http.put(href, json=document)
    assert answer.status_code == 200
    assert answer.json()["message"] == "new"
    assert answer.json()["timestamp"] == NOON
    assert empty.http.put(href, json=document).json() == answer.json() == empty.get(href).json()
    assert empty.http.put(href, json={"message": "no name"}).status_code == 400


def test_patch_changes_what_is_given(empty: Client) -> None:
    href = empty.add("old", "Ann", timestamp=NOON)
    answer = empty.http.patch(
        href, content=b'{"message":"new"}', headers={"Content-Type": "application/merge-patch+json"}
    )
    assert answer.status_code == 200
    assert answer.json()["message"] == "new"
    assert answer.json()["username"] == "Ann"
    moved = empty.http.patch(href, json={"timestamp": "2020-01-01T00:00:00+01:00"})
    assert moved.json()["timestamp"] == "2019-12-31T23:00:00.000+00:00"
    assert empty.http.patch(href, json={}).json() == empty.get(href).json() == moved.json()
    assert empty.http.patch(href, json={"username": None}).status_code == 400
    patch = {"Content-Type": "application/json-patch+json"}
    assert empty.http.patch(href, content=b"[]", headers=patch).status_code == 415


def test_delete_forgets(empty: Client) -> None:
    href = empty.add()
    answer = empty.http.delete(href)
    assert (answer.status_code, answer.content) == (204, b"")
    assert empty.get(href).status_code == 404
    assert empty.http.delete(href).status_code == 404
    assert empty.get().json()["page"]["totalElements"] == 0


@pytest.mark.parametrize("path", ["0", "999999999", "9" * 30, "abc", "-1", "1.5", "1/2", "1//"])
@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
def test_what_is_not_there_is_404(guestbook: Client, method: str, path: str) -> None:
    body = {"username": "A", "message": "b"} if method in ("PUT", "PATCH") else None
    answer = guestbook.http.request(method, f"{PATH}/{path}", json=body)
    assert answer.status_code == 404
    assert answer.json()["status"] == 404


@pytest.mark.parametrize(
    ("path", "method", "allowed"),
    [
        ("", "DELETE", {"GET", "HEAD", "POST"}),
        ("", "PUT", {"GET", "HEAD", "POST"}),
        ("/1", "POST", {"DELETE", "GET", "HEAD", "PATCH", "PUT"}),
    ],
)
def test_another_method_is_405_with_allow(
    guestbook: Client, path: str, method: str, allowed: set[str]
) -> None:
    answer = guestbook.http.request(method, PATH + path)
    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == allowed
    assert answer.json()["detail"]


def test_a_trailing_slash_makes_no_difference(empty: Client) -> None:
    """Nor does one redirect: a form or a key would be sent again elsewhere."""
    path = urlsplit(empty.add("kept")).path
    for address in (PATH, path, "/api"):
        with_slash = empty.get(f"{address}/")
        assert with_slash.status_code == 200, address
        assert with_slash.json() == empty.get(address).json()
        assert empty.http.head(f"{address}/").status_code == 200
    for address in (PATH, path):
        assert empty.http.request("PURGE", f"{address}/").status_code == 405
    key = {"Idempotency-Key": "slash"}
    entry = {"username": "A", "message": "b"}
    posted = empty.http.post(f"{PATH}/?page=1", json=entry, headers=key)
    assert posted.status_code == 201
    assert empty.http.post(PATH, json=entry, headers=key).json() == posted.json()
    href = f"{posted.headers['location']}/"
    assert not href.endswith("//")
    assert empty.http.put(href, json={"username": "A", "message": "c"}).status_code == 200
    assert empty.http.patch(href, json={"message": "d"}).json()["message"] == "d"
    assert empty.http.delete(href).status_code == 204
    assert empty.total() == 1
    assert all(
        route == "unmatched" or not route.endswith("/")
        for _, route, _ in samples(empty.service, "http_requests_total")
    )


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (None, "application/hal+json;charset=UTF-8"),
        ("*/*", "application/hal+json;charset=UTF-8"),
        ("application/hal+json", "application/hal+json;charset=UTF-8"),
        ("application/json", "application/json;charset=UTF-8"),
        ("application/hal+json, application/json", "application/hal+json;charset=UTF-8"),
    ],
)
def test_json_names_its_character_set(empty: Client, accept: str | None, content_type: str) -> None:
    """A client that takes text without one for Latin-1 would read the umlauts wrong."""
    headers = {} if accept is None else {"Accept": accept}
    href = empty.add()
    entry = {"username": "Zoë", "message": "Grüße"}
    answers = [empty.get(path, headers=headers) for path in (PATH, href, "/api")]
    answers += [
        empty.http.post(PATH, json=entry, headers=headers),
        empty.http.put(href, json=entry, headers=headers),
        empty.http.patch(href, json={"message": "ö"}, headers=headers),
    ]
    for answer in answers:
        assert answer.is_success
        assert answer.headers["content-type"] == content_type, answer.request


def test_head_has_the_headers_of_get_and_no_body(empty: Client) -> None:
    for path in (PATH, empty.add()):
        head, get = empty.http.head(path), empty.get(path)
        assert head.status_code == 200
        assert head.content == b""
        for name in ("content-type", "content-length"):
            assert head.headers[name] == get.headers[name]


def test_the_api_names_its_parts(guestbook: Client) -> None:
    root = guestbook.get("/api").json()
    messages = root["_links"]["messages"]
    assert messages == {
        "href": f"{guestbook.service.url}{PATH}{{?page,size,sort}}",
        "templated": True,
    }


@pytest.mark.parametrize(
    ("headers", "base"),
    [
        ({"Host": "guestbook-service"}, "http://guestbook-service"),
        ({"Host": "example.com:8080"}, "http://example.com:8080"),
        ({"Host": "example.com:80"}, "http://example.com"),
        ({"Host": "[::1]:8080"}, "http://[::1]:8080"),
        ({"X-Forwarded-Proto": "https", "Host": "example.com"}, "https://example.com"),
        (
            {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "a.example, b.example"},
            "https://a.example",
        ),
        (
            {"X-Forwarded-Proto": "https,http", "X-Forwarded-Host": "a.example,b.example:81"},
            "https://a.example",
        ),
        (
            {
                "X-Forwarded-Proto": "http, https",
                "X-Forwarded-Host": "a.example:81 , b.example",
                "X-Forwarded-Port": "8080, 443",
            },
            "http://a.example:8080",
        ),
        (
            {"X-Forwarded-Host": "a.example:81", "X-Forwarded-Port": "8443"},
            "http://a.example:8443",
        ),
        (
            {
                "X-Forwarded-Proto": "https",
                "X-Forwarded-Host": "a.example",
                "X-Forwarded-Port": "443",
                "X-Forwarded-Prefix": "/outer, /inner/",
            },
            "https://a.example/outer/inner",
        ),
        ({"Host": "a.example", "X-Forwarded-Proto": "javascript"}, "http://a.example"),
        ({"Host": "a.example", "X-Forwarded-Host": 'evil"><script>'}, "http://a.example"),
    ],
)
def test_links_follow_host_and_forwarded_headers(
    empty: Client, headers: dict[str, str], base: str
) -> None:
    empty.add()
    page = empty.get(headers=headers).json()
    assert page["_links"]["self"]["href"] == f"{base}{PATH}?page=0&size=20"
    href = page["_embedded"]["messages"][0]["_links"]["self"]["href"]
    assert href.startswith(f"{base}{PATH}/")


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("2026-01-31T12:00:00.000+0000", NOON),
        ("2026-01-31T12:00:00.000+00:00", NOON),
        ("2026-01-31T12:00:00Z", NOON),
        ("2026-01-31T12:00", NOON),
        ("2026-01-31T14:30:00.000+0230", NOON),
        ("2026-01-31T07:00:00.000-05", NOON),
        ("2026-01-31", "2026-01-31T00:00:00.000+00:00"),
        ("2026-01-31T12:00:00.123456789Z", "2026-01-31T12:00:00.123+00:00"),
        ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999+00:00"),
        ("1000-01-01T00:00:00Z", "1000-01-01T00:00:00.000+00:00"),
        (1769860800000, NOON),
    ],
)
def test_timestamps_are_kept_in_utc(empty: Client, sent: object, kept: str) -> None:
    href = empty.add(timestamp=sent)
    assert empty.get(href).json()["timestamp"] == kept


def test_without_a_timestamp_it_is_now(empty: Client) -> None:
    nothing: tuple[dict[str, object], ...] = ({}, {"timestamp": None})
    for more in nothing:
        before = datetime.now(UTC) - timedelta(milliseconds=1)
        stamped = datetime.fromisoformat(
            empty.get(empty.add("now", "Ann", **more)).json()["timestamp"]
        )
        assert before <= stamped <= datetime.now(UTC)


@real
@given(
    moment=st.datetimes(min_value=datetime(1000, 1, 2), max_value=datetime(9999, 12, 30)),
    offset=st.integers(min_value=-23 * 60, max_value=23 * 60),
)
def test_any_moment_comes_back_in_utc(guestbook: Client, moment: datetime, offset: int) -> None:
    hours, minutes = divmod(abs(offset), 60)
    zone = f"{'-' if offset < 0 else '+'}{hours:02}{minutes:02}"
    href = guestbook.add(timestamp=moment.isoformat() + zone)
    utc = moment - timedelta(minutes=offset)
    expected = utc.isoformat(timespec="milliseconds") + "+00:00"
    assert guestbook.get(href).json()["timestamp"] == expected


text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)


@real
@given(message=text, username=text)
def test_any_text_comes_back_identical(guestbook: Client, message: str, username: str) -> None:
    stored = guestbook.get(guestbook.add(message, username)).json()
    assert (stored["message"], stored["username"]) == (message, username)


@pytest.mark.parametrize(
    "message",
    [
        "👩‍👩‍👧‍👦 🇺🇦 🏴‍☠️",
        "שלום עולם \u202eמימין\u202c",
        "e\u0301 \u1100\u1161\u11a8 Z\u0351\u036b\u0343a\u0323lgo",
        "line\nline\r\nline\ttab  trailing  ",
        "\ufeffbom \uffff \U0010ffff",
        "'; DROP TABLE message; -- % \\ \" <b>",
    ],
)
def test_special_texts_come_back_identical(empty: Client, message: str) -> None:
    empty.add(message)
    assert empty.get().json()["_embedded"]["messages"][0]["message"] == message


def test_bad_host_header_is_no_link(guestbook: Client) -> None:
    answer = guestbook.get(headers={"Host": 'a"b'})
    assert answer.json()["_links"]["self"]["href"] == f"{PATH}?page=0&size=20"


def test_an_unknown_path_is_a_problem_as_well(guestbook: Client) -> None:
    answer = guestbook.get("/nothing")
    assert answer.status_code == 404
    assert answer.json()["title"] == "Not Found"
