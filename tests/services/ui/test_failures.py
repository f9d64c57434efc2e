"""Every way in which a back end can fail; the page is there all the same, and nothing is lost."""

from __future__ import annotations

import threading

import pytest

from tests.services.ui.backend import HANG, RESET, Answer, Backend, Guestbook, Seen, as_json
from tests.support.page import UNAVAILABLE, read
from tests.support.ui import Ui


def http(head: str, body: str = "") -> Answer:
    return Answer(raw=f"HTTP/1.1 {head}\r\n\r\n{body}".encode())


FAILURES = {
    "400": as_json({"status": 400}, 400),
    "403": Answer(403, b"RBAC: access denied"),
    "404": Answer(404),
    "500": Answer(500, b"Traceback (most recent call last)"),
    "503": Answer(503, b"fault filter abort"),
    "204": http("204 No Content"),
    "reset": RESET,
    "hang": HANG,
    "html": Answer(200, b"<html>It works!</html>", {"content-type": "text/html"}),
    "empty": Answer(200),
    "json of another shape": as_json(["a", {"b": None}]),
    "json of other types": as_json({"greeting": 1, "page": "x", "_embedded": []}),
    "not utf-8": Answer(200, b'{"greeting": "\xff\xfe"}'),
    "not http": Answer(raw=b"220 mail.example ESMTP\r\n"),
    "nothing": Answer(raw=b""),
    "half a head": Answer(raw=b"HTTP/1.1 200 OK\r\ncontent-le"),
    "half a body": http("200 OK\r\ncontent-length: 5000", '{"greeting":'),
    "a wrong length": http("200 OK\r\ncontent-length: many"),
    "a wrong chunk": http("200 OK\r\ntransfer-encoding: chunked", "zz\r\n{}\r\n"),
    "a wrong status": http("999999 What"),
    "an endless header": http(f"200 OK\r\nx: {'x' * 100_000}"),
    "too much": Answer(200, b'{"greeting": "' + b"x" * 5_000_000 + b'"}'),
}

each_failure = pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES.keys())


@each_failure
def test_the_page_without_the_guestbook(
    impatient_ui: Ui, guestbook: Backend, failure: Answer
) -> None:
    with impatient_ui.browser() as browser:
        browser.post("/greet", data={"name": "Ada"})
        guestbook.behaviour = lambda _: failure
        page = browser.get("/")
    assert page.status_code == 200
    assert read(page).messages == [("system", UNAVAILABLE)]
    assert read(page).greeting == "Hello Ada from message-1 with 1.0"
    assert "Traceback" not in page.text


@each_failure
def test_the_page_without_the_message_service(
    impatient_ui: Ui, message: Backend, stored: Guestbook, failure: Answer
) -> None:
    stored.add("Grace", "still here")
    with impatient_ui.browser() as browser:
        browser.post("/greet", data={"name": "Ada"})
        message.behaviour = lambda _: failure
        page = browser.get("/")
    assert page.status_code == 200
    assert read(page).greeting == "Unable to connect"
    assert read(page).messages == [("Grace", "still here")]
    assert "x-message-version" not in page.headers
    assert "Traceback" not in page.text


@each_failure
def test_a_message_that_was_not_stored_is_still_in_the_form(
    impatient_ui: Ui, guestbook: Backend, stored: Guestbook, failure: Answer
) -> None:
    with impatient_ui.browser() as browser:
        form = read(browser.get("/")).form(name="Ada", message="line 1\n<line> 2")
        guestbook.behaviour = lambda seen: failure if seen.method == "POST" else stored(seen)
        as_browsers_do = {**form, "message": "line 1\r\n<line> 2"}
        answer = browser.post("/greet", data=as_browsers_do)
        shown = read(answer)
        assert answer.status_code == 200
        assert shown.form() == form
        assert shown.problem
        assert "Ada" in (shown.greeting or "")

        guestbook.behaviour = stored
        assert browser.post("/greet", data=shown.form()).status_code == 303
    assert [entry["message"] for entry in stored.messages] == ["line 1\n<line> 2"]


def test_both_back_ends_refuse_connections(ui: Ui, message: Backend, guestbook: Backend) -> None:
    with ui.browser() as browser:
        browser.post("/greet", data={"name": "Ada"})
        message.stop()
        guestbook.stop()
        page = browser.get("/")
        assert page.status_code == 200
        assert read(page).greeting == "Unable to connect"
        assert read(page).messages == [("system", UNAVAILABLE)]
        assert "the connection was refused" in page.text
        posted = read(browser.post("/greet", data={"name": "Ada", "message": "kept"}))
        assert posted.message == "kept"
        message.start()
        guestbook.start()
        page = browser.get("/")
    assert read(page).greeting == "Hello Ada from message-1 with 1.0"
    assert read(page).messages == []


def test_a_redirect_is_not_followed(ui: Ui, message: Backend, guestbook: Backend) -> None:
    with ui.browser() as browser:
        browser.post("/greet", data={"name": "Ada"})
        for status in (301, 302, 303, 307, 308):
            seen = len(guestbook.seen)
            elsewhere = {"location": f"{guestbook.url}/elsewhere"}
            message.behaviour = lambda _, s=status, h=elsewhere: Answer(s, b"", h)  # type: ignore[misc]
            assert read(browser.get("/")).greeting == "Unable to connect"
            assert [request.target for request in guestbook.seen[seen:]] == [
                "/api/messages?page=0&size=20&sort=id,desc"
            ]


def test_stored_but_not_answered_is_stored_once(
    impatient_ui: Ui, guestbook: Backend, stored: Guestbook
) -> None:
    """The answer is lost, the visitor sends the form again."""

    def stores_and_hangs(seen: Seen) -> Answer:
        stored(seen)
        return HANG

    with impatient_ui.browser() as browser:
        guestbook.behaviour = stores_and_hangs
        shown = read(browser.post("/greet", data={"name": "Ada", "message": "once"}))
        assert "no answer within 1 s" in (shown.problem or "")
        guestbook.behaviour = stored
        assert browser.post("/greet", data=shown.form()).status_code == 303
        assert len(stored.messages) == 1
        changed = shown.form(message="corrected")
        assert browser.post("/greet", data=changed).status_code == 303
    assert [entry["message"] for entry in stored.messages] == ["once", "corrected"]


def test_a_double_click_is_stored_once(ui: Ui, stored: Guestbook) -> None:
    with ui.browser() as browser:
        form = read(browser.get("/")).form(name="Ada", message="once")
        clicks = [
            threading.Thread(target=browser.post, args=("/greet",), kwargs={"data": form})
            for _ in range(2)
        ]
        for click in clicks:
            click.start()
        for click in clicks:
            click.join(20)
    assert len(stored.messages) == 1


def test_connections_closed_while_idle_cost_nothing(
    ui: Ui, message: Backend, guestbook: Backend, stored: Guestbook
) -> None:
    """A back end restarts between two pages; the pool's connections to it are dead."""
    with ui.browser() as browser:
        for number in range(5):
            answer = browser.post("/greet", data={"name": "Ada", "message": f"{number}"})
            assert answer.status_code == 303
            page = read(browser.get("/"))
            assert page.greeting == "Hello Ada from message-1 with 1.0"
            assert len(page.messages) == number + 1
            message.close_connections()
            guestbook.close_connections()
    assert len(stored.messages) == 5


def test_a_post_whose_connection_closes_is_repeated_once_with_its_key(
    ui: Ui, guestbook: Backend, stored: Guestbook
) -> None:
    def closes_first(seen: Seen) -> Answer:
        answer = stored(seen)
        return RESET if len(guestbook.requests("POST")) == 1 else answer

    guestbook.behaviour = closes_first
    with ui.browser() as browser:
        assert browser.post("/greet", data={"name": "Ada", "message": "x"}).status_code == 303
    first, second = guestbook.requests("POST")
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    assert len(stored.messages) == 1


def test_five_seconds_are_waited_for(ui: Ui, message: Backend) -> None:
    """The delay exercise: exactly the default timeout of many an HTTP client."""
    released = threading.Event()
    healthy = message.behaviour

    def late(seen: Seen) -> Answer:
        released.wait(5.5)
        return healthy(seen)

    with ui.browser() as browser:
        browser.post("/greet", data={"name": "Ada"})
        message.behaviour = late
        page = browser.get("/")
    assert read(page).greeting == "Hello Ada from message-1 with 1.0"
    assert page.elapsed.total_seconds() >= 5


@pytest.mark.parametrize("hostname", ["pod\r\nset-cookie: a=b", "pöd", "x" * 5000, "<b>"])
def test_a_back_end_cannot_put_headers_or_markup_into_the_page(
    ui: Ui, message: Backend, hostname: str
) -> None:
    answer = {"greeting": "<b>Hello</b>", "version": '"><script>', "hostname": hostname}
    message.behaviour = lambda _: as_json(answer)
    with ui.browser() as browser:
        browser.post("/greet", data={"name": "Ada"})
        page = browser.get("/")
    assert page.status_code == 200
    assert read(page).greeting == "<b>Hello</b>"
    assert "set-cookie" not in page.headers
    assert "<script>" not in page.text
    assert "<b>" not in page.text
