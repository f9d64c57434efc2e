"""The form as clients of all kinds send it: encodings, limits, and the time it was made."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.services.ui.backend import Answer, Backend, Guestbook, JavaGuestbook, as_problem
from tests.support.page import read, request_id
from tests.support.ui import Ui
from tests.support.wait import wait

FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=limit"


def send(ui: Ui, body: bytes | Iterator[bytes], content_type: str | None = FORM) -> httpx.Response:
    headers = {"content-type": content_type} if content_type else {}
    url = f"{ui.url}/greet"
    return httpx.post(url, content=body, headers=headers, timeout=30, trust_env=False)


def multipart(*fields: tuple[str, bytes], of: str = "") -> bytes:
    """Returns the body of a multipart form; `of` is the content type of each field."""
    kind = f"content-type: {of}\r\n" if of else ""
    parts = (
        f'--limit\r\ncontent-disposition: form-data; name="{name}"\r\n{kind}\r\n'.encode()
        + value
        + b"\r\n"
        for name, value in fields
    )
    return b"".join(parts) + b"--limit--\r\n"


RAW = "name=Zoë&message=Grüße".encode()
PARTS = (("name", "Zoë".encode()), ("message", "Grüße".encode()))
LATIN_1_PARTS = (("name", "Zoë".encode("latin-1")), ("message", "Grüße".encode("latin-1")))

READABLE: dict[str, tuple[str, bytes]] = {
    "percent-encoded": (FORM, b"name=Zo%C3%AB&message=Gr%C3%BC%C3%9Fe"),
    "raw UTF-8": (FORM, RAW),
    "raw and percent-encoded": (FORM, "name=Zoë&message=Grü%C3%9Fe".encode()),
    "UTF-8 declared": (f"{FORM}; charset=utf-8", RAW),
    "UTF-8 declared, in quotes": (f'{FORM.upper()};Charset="UTF-8"', RAW),
    "another parameter": (f"{FORM}; q=1", RAW),
    "ISO 8859-1, percent-encoded": (
        f"{FORM}; charset=iso-8859-1",
        b"name=Zo%EB&message=Gr%FC%DFe",
    ),
    "ISO 8859-1, raw": (f"{FORM}; charset=iso-8859-1", b"name=Zo\xeb&message=Gr\xfc\xdfe"),
    "windows-1252": (f"{FORM}; charset=windows-1252", b"name=Zo%EB&message=Gr%FC\xdfe"),
    "multipart": (MULTIPART, multipart(*PARTS)),
    "multipart, UTF-8 declared": (
        MULTIPART,
        multipart(*PARTS, of="text/plain; charset=utf-8"),
    ),
    "multipart, ISO 8859-1 declared": (
        MULTIPART,
        multipart(*LATIN_1_PARTS, of='text/plain; charset="ISO-8859-1"'),
    ),
    "multipart of text": (MULTIPART, multipart(*PARTS, of="text/plain")),
}


@pytest.mark.parametrize(("content_type", "body"), READABLE.values(), ids=READABLE.keys())
def test_text_is_stored_as_it_was_sent(
    ui: Ui, stored: Guestbook, content_type: str, body: bytes
) -> None:
    assert send(ui, body, content_type).status_code == 303
    (entry,) = stored.messages
    assert (entry["username"], entry["message"]) == ("Zoë", "Grüße")


UNREADABLE: dict[str, tuple[str, bytes, str]] = {
    "percent-encoded": (FORM, b"name=Ada&message=ab%EBcd", "UTF-8"),
    "raw": (FORM, b"name=Ada&message=ab\xebcd", "UTF-8"),
    "half a character": (FORM, b"name=Ada&message=abcd%C3", "UTF-8"),
    "half a surrogate pair": (FORM, b"name=Ada&message=ab%ED%A0%80cd", "UTF-8"),
    "too many bytes for a character": (FORM, b"name=Ada&message=ab%C0%AFcd", "UTF-8"),
    "a name": (FORM, b"name=Ada%EB&message=abcd", "UTF-8"),
    "UTF-8 declared": (f"{FORM}; charset=utf-8", b"name=Ada&message=ab\xebcd", "UTF-8"),
    "ASCII declared": (f"{FORM}; charset=us-ascii", b"name=Ada&message=ab%EBcd", "ascii"),
    "multipart": (MULTIPART, multipart(("name", b"Ada"), ("message", b"ab\xebcd")), "UTF-8"),
    "multipart, a name": (
        MULTIPART,
        multipart(("name", b"Ada\xeb"), ("message", b"abcd")),
        "UTF-8",
    ),
    "multipart, UTF-8 declared": (
        MULTIPART,
        multipart(("name", b"Ada"), ("message", b"ab\xebcd"), of="text/plain; charset=utf-8"),
        "UTF-8",
    ),
}


@pytest.mark.parametrize(
    ("content_type", "body", "reason"), UNREADABLE.values(), ids=UNREADABLE.keys()
)
def test_text_that_cannot_be_read_comes_back_with_the_reason(
    ui: Ui, guestbook: Backend, content_type: str, body: bytes, reason: str
) -> None:
    answer = send(ui, body, content_type)
    assert answer.status_code == 422
    shown = read(answer)
    assert reason.lower() in (shown.problem or "").lower()
    assert shown.name.startswith("Ada")
    assert shown.message.startswith("ab")
    assert "ë" not in shown.name + shown.message
    assert "Ã" not in answer.text
    assert "\ufffd" not in answer.text
    assert "set-cookie" not in answer.headers
    assert guestbook.requests("POST") == []


CHARSETS = ["x-unknown", "idna", "base64", "rot13", "undefined", "utf-16", "shift_jis", "y" * 500]


@pytest.mark.parametrize("charset", CHARSETS)
def test_the_reason_names_the_charset_that_was_declared(
    ui: Ui, guestbook: Backend, charset: str
) -> None:
    parts = multipart(("name", b"Ada"), ("message", b"\xff"), of=f"text/plain; charset={charset}")
    for answer in (
        send(ui, b"name=Ada&message=%FF", f"{FORM}; charset={charset}"),
        send(ui, parts, MULTIPART),
    ):
        assert answer.status_code == 422
        assert charset[:30] in (read(answer).problem or "").lower()
    assert guestbook.requests("POST") == []


def test_a_form_in_utf_16_is_refused_with_a_reason(ui: Ui, guestbook: Backend) -> None:
    answer = send(ui, "name=Zoë&message=Grüße".encode("utf-16"), f"{FORM}; charset=utf-16")
    assert answer.status_code == 422
    assert "utf-16" in (read(answer).problem or "").lower()
    assert guestbook.requests("POST") == []


@pytest.mark.parametrize("charset", ["idna", "utf-16", "x-unknown", "iso-8859-1", ""])
def test_a_charset_of_the_whole_of_a_multipart_form_changes_nothing(
    ui: Ui, stored: Guestbook, charset: str
) -> None:
    content_type = f"multipart/form-data; charset={charset}; boundary=limit"
    assert send(ui, multipart(*PARTS), content_type).status_code == 303
    assert [(e["username"], e["message"]) for e in stored.messages] == [("Zoë", "Grüße")]


NESTED = b"--limit\r\n" + b"".join(
    b"content-type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (number, number)
    for number in range(1000)
)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", multipart(*PARTS)),
        ("multipart/form-data; boundary=", multipart(*PARTS)),
        ("multipart/form-data; boundary=other", multipart(*PARTS)),
        ('multipart/form-data; charset="; boundary=limit', multipart(*PARTS)),
        ("multipart/form-data; boundary=" + "b" * 300, multipart(*PARTS)),
        (MULTIPART, b""),
        (MULTIPART, multipart(*PARTS)[:60]),
        (MULTIPART, b"--limit\r\nno header\r\n\r\nx\r\n--limit--\r\n"),
        (MULTIPART, b"--limit\r\ncontent-disposition: form-data\r\n\r\nx\r\n--limit--\r\n"),
        (MULTIPART, multipart(("name", b"Ada")).replace(b'"name"', b'"na\xffme"')),
        (FORM, b""),
        (FORM, b"&&&=="),
        (FORM, b"na%FFme=Ada"),
        (FORM, b"\0"),
        (FORM, b"=" * 60_000),
        (FORM, b"a=1&" * 15_000),
        (MULTIPART, multipart(*[("a", b"1")] * 500)),
        (MULTIPART, b"--limit\r\n" + b"content-type: message/rfc822\r\n\r\n" * 1500),
        (MULTIPART, multipart(("name", b"Ada\xff"), of='text/plain; charset="utf-8\0"')),
        (MULTIPART, NESTED),
    ],
    ids=range(20),
)
def test_a_form_that_is_none_is_an_error_of_the_client(
    ui: Ui, guestbook: Backend, content_type: str, body: bytes
) -> None:
    answer = send(ui, body, content_type)
    assert answer.status_code in (400, 413, 422)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert guestbook.requests("POST") == []


def test_no_form_holds_up_the_others(ui: Ui, guestbook: Backend) -> None:
    """A liveness probe answers within a second while forms of all shapes are read."""
    deep = NESTED[:30_000] + b"x\r\n" * 10_000
    bodies = [deep, b"--limit\r\n\r\n" * 5000, multipart(*[("a", b"1")] * 900)] * 2
    slowest = 0.0
    with ThreadPoolExecutor(len(bodies)) as clients:
        answers = [clients.submit(send, ui, body, MULTIPART) for body in bodies]
        while not all(answer.done() for answer in answers):
            started = monotonic()
            assert ui.alive()
            slowest = max(slowest, monotonic() - started)
    assert {answer.result().status_code for answer in answers} == {400}
    assert slowest < 1


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "text/plain",
        "text/plain; charset=utf-8",
        "multipart/mixed",
        "form",
        None,
    ],
)
def test_another_content_type_is_415(ui: Ui, guestbook: Backend, content_type: str | None) -> None:
    answer = send(ui, RAW, content_type)
    assert answer.status_code == 415
    assert "nothing was stored" in answer.text
    assert "To the guestbook" in answer.text
    assert request_id(answer)
    assert guestbook.requests("POST") == []


@pytest.mark.parametrize("size", [66_000, 300_000])
@pytest.mark.parametrize("content_type", [FORM, MULTIPART])
def test_more_than_64_kb_is_not_read(
    ui: Ui, guestbook: Backend, content_type: str, size: int
) -> None:
    text = b"x" * size
    body = multipart(("name", b"Ada"), ("message", text))
    if content_type == FORM:
        body = b"name=Ada&message=" + text
    in_chunks = (body[start : start + 5000] for start in range(0, len(body), 5000))
    for answer in (send(ui, body, content_type), send(ui, in_chunks, content_type)):
        assert answer.status_code == 413
        assert "larger than 64 kB" in answer.text
        assert request_id(answer)
    assert guestbook.requests("POST") == []


@pytest.mark.parametrize("content_type", [FORM, MULTIPART])
def test_a_visitor_who_leaves_in_mid_form_is_no_error(
    fresh_ui: Ui, guestbook: Backend, content_type: str
) -> None:
    address = urlsplit(fresh_ui.url)
    head = f"host: ui\r\ncontent-type: {content_type}\r\ncontent-length: 1000\r\n\r\n"
    for begun in (b"", b"name=Ada&mess", multipart(*PARTS)[:60]):
        with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
            connection.sendall(f"POST /greet HTTP/1.1\r\n{head}".encode() + begun)
    left = {"method": "POST", "route": "/greet", "status": "499"}
    wait(lambda: fresh_ui.counted("http_requests_total", **left) == 3, "the metric")
    fresh_ui.wait_for_line("POST /greet 499")
    assert fresh_ui.counted("http_requests_total") == 3
    assert "ERROR" not in fresh_ui.text
    assert "Traceback" not in fresh_ui.text
    assert guestbook.requests("POST") == []


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def posted(guestbook: Backend) -> list[dict[str, Any]]:
    return [json.loads(seen.body) for seen in guestbook.requests("POST")]


class TestTime:
    EARLIER = "2026-01-31T10:20:30.456Z"

    def test_the_form_says_when_it_was_made(self, ui: Ui) -> None:
        before = datetime.now(UTC)
        time = read(httpx.get(ui.url, trust_env=False)).time
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}(Z|\+00:00)", time)
        assert before - timedelta(milliseconds=1) <= moment(time) <= datetime.now(UTC)

    def test_a_message_has_the_time_of_its_form(self, ui: Ui, guestbook: Backend) -> None:
        with ui.browser() as browser:
            form = read(browser.get("/")).form(name="Ada", message="x", time=self.EARLIER)
            assert browser.post("/greet", data=form).status_code == 303
        (entry,) = posted(guestbook)
        assert moment(entry["timestamp"]) == moment(self.EARLIER)

    def test_a_back_end_that_adds_no_time_shows_that_of_the_form(
        self, ui: Ui, guestbook: Backend
    ) -> None:
        guestbook.behaviour = JavaGuestbook()
        with ui.browser() as browser:
            form = read(browser.get("/")).form(name="Ada", message="x", time=self.EARLIER)
            browser.post("/greet", data=form)
            assert read(browser.get("/")).times == ["31 Jan 2026, 10:20 UTC"]

    @pytest.mark.parametrize(
        "failure",
        [None, Answer(503), as_problem(400, "too rude")],
        ids=["a form that cannot be used", "a guestbook that fails", "a guestbook that refuses"],
    )
    def test_a_form_that_comes_back_keeps_it(
        self, ui: Ui, guestbook: Backend, stored: Guestbook, failure: Answer | None
    ) -> None:
        if failure:
            guestbook.behaviour = lambda seen: failure if seen.method == "POST" else stored(seen)
        text = "x" if failure else "x" * 2001
        with ui.browser() as browser:
            form = read(browser.get("/")).form(name="Ada", message=text, time=self.EARLIER)
            shown = read(browser.post("/greet", data=form))
        assert shown.problem
        assert shown.key == form["key"]
        assert moment(shown.time) == moment(self.EARLIER)

    def test_sent_again_it_is_the_same_message(
        self, ui: Ui, guestbook: Backend, stored: Guestbook
    ) -> None:
        guestbook.behaviour = lambda seen: stored(seen) if seen.method == "GET" else Answer(503)
        with ui.browser() as browser:
            form = read(browser.get("/")).form(name="Ada", message="x")
            shown = read(browser.post("/greet", data=form))
            browser.post("/greet", data=shown.form())
        first, second = guestbook.requests("POST")
        assert first.body == second.body
        assert first.headers["idempotency-key"] == second.headers["idempotency-key"]

    def test_with_another_time_it_is_another_message(self, ui: Ui, stored: Guestbook) -> None:
        with ui.browser() as browser:
            form = read(browser.get("/")).form(name="Ada", message="x")
            for time in (form["time"], self.EARLIER):
                browser.post("/greet", data={**form, "time": time})
        assert len(stored.messages) == 2

    @pytest.mark.parametrize(
        "time",
        [
            None,
            "",
            "yesterday",
            "2026-02-30T10:20:30.456Z",
            "9999-12-31T23:59:59.999Z",
            "9999-12-31T23:59:59.999-12:00",
            "0001-01-01T00:00:00.000+14:00",
            "9" * 5000,
            "\0",
            "{tomorrow}",
        ],
    )
    def test_without_a_time_that_can_be_used_the_guestbook_gives_it_once(
        self, ui: Ui, guestbook: Backend, stored: Guestbook, time: str | None
    ) -> None:
        """A script that sends the same form twice stores one message."""
        tomorrow = f"{datetime.now(UTC) + timedelta(days=1, hours=1):%Y-%m-%dT%H:%M:%S}.000Z"
        with ui.browser() as browser:
            form = read(browser.get("/")).form(name="Ada", message="x")
            del form["time"]
            if time is not None:
                form["time"] = time.replace("{tomorrow}", tomorrow)
            for _ in range(2):
                assert browser.post("/greet", data=form).status_code == 303
        assert [entry["timestamp"] for entry in posted(guestbook)] == [None, None]
        assert len(stored.messages) == 1

    def test_a_pod_whose_clock_is_an_hour_ahead_is_believed(
        self, ui: Ui, guestbook: Backend
    ) -> None:
        ahead = f"{datetime.now(UTC) + timedelta(hours=1):%Y-%m-%dT%H:%M:%S}.000Z"
        with ui.browser() as browser:
            form = read(browser.get("/")).form(name="Ada", message="x", time=ahead)
            browser.post("/greet", data=form)
        (entry,) = posted(guestbook)
        assert moment(entry["timestamp"]) == moment(ahead)
