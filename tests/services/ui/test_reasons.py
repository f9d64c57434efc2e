"""The words for a back end that failed: its own reason, and whether to send a message again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.services.ui.backend import (
    HANG,
    RESET,
    Answer,
    Backend,
    Guestbook,
    JavaGuestbook,
    Seen,
    as_json,
    as_problem,
    as_text,
)
from tests.support.page import Shown, read
from tests.support.ui import Ui

SAFE = "sending it again is safe, it will not be stored twice"
LOOK_FIRST = "It may have been stored all the same; look before you send it again."
REFUSED = "The guestbook service did not accept your message"

LONG = "upstream connect error or disconnect/reset before headers. reset reason: connection timeout"

SHOWN: dict[str, tuple[Answer, str]] = {
    "a fault that was injected": (as_text("fault filter abort", 503), "503: fault filter abort"),
    "no pod": (as_text("no healthy upstream", 503), "503: no healthy upstream"),
    "a policy": (as_text("RBAC: access denied", 403), "403: RBAC: access denied"),
    "a pod that is gone": (as_text(LONG, 503), f"503: {LONG}"),
    "200 characters": (as_text("x" * 200, 500), f"500: {'x' * 200}"),
    "a line end": (as_text("overloaded\n", 500), "500: overloaded"),
    "markup": (as_text("<b>no</b> & no", 500), "500: <b>no</b> & no"),
    "with a charset": (
        Answer(500, "geht nicht – später".encode(), {"content-type": "text/plain;charset=UTF-8"}),
        "500: geht nicht – später",
    ),
    "a problem": (as_problem(503, "the database is away"), "503: the database is away"),
    "a problem with a charset": (as_problem(503, "später", ";charset=UTF-8"), "503: später"),
}

NOT_SHOWN: dict[str, Answer] = {
    "nothing": as_text("", 500),
    "HTML": Answer(500, b"<html>secret</html>", {"content-type": "text/html"}),
    "no type": Answer(500, b"secret"),
    "control characters": as_text("secret\x1b[31m\x07", 500),
    "several lines": as_text("secret\nTraceback", 500),
    "turned text": as_text("secret \u202e txet", 500),
    "201 characters": as_text("secret" + "x" * 195, 500),
    "not UTF-8": Answer(500, b"secret\xff", {"content-type": "text/plain"}),
    "a problem without a reason": as_problem(500, None),
    "a problem with a list": as_problem(500, ["secret"]),
    "a problem that is none": replace(as_problem(500, ""), body=b'{"detail": "secret'),
    "a problem with control characters": as_problem(500, "secret\x1b[31m"),
}


def visit(ui: Ui) -> Shown:
    with ui.browser() as browser:
        browser.post("/greet", data={"name": "Ada"})
        return read(browser.get("/"))


def post(ui: Ui) -> Shown:
    """Sends a message; returns the page that came back with it."""
    with ui.browser() as browser:
        form = read(browser.get("/")).form(name="Ada", message="kept")
        answer = browser.post("/greet", data=form)
    assert answer.status_code == 200
    assert read(answer).form() == form
    return read(answer)


def fail_posts(guestbook: Backend, failure: Answer, healthy: Guestbook) -> None:
    guestbook.behaviour = lambda seen: failure if seen.method == "POST" else healthy(seen)


@pytest.mark.parametrize(("answer", "reason"), SHOWN.values(), ids=SHOWN.keys())
def test_the_page_says_why_in_the_words_of_the_answer(
    ui: Ui, message: Backend, guestbook: Backend, stored: Guestbook, answer: Answer, reason: str
) -> None:
    message.behaviour = guestbook.behaviour = lambda _: answer
    assert visit(ui).reasons == [
        f"it answered {reason}",
        f"guestbook-service: it answered {reason}",
    ]
    fail_posts(guestbook, answer, stored)
    assert reason.partition(": ")[2] in (post(ui).problem or "")


@pytest.mark.parametrize("answer", NOT_SHOWN.values(), ids=NOT_SHOWN.keys())
def test_other_bodies_are_not_shown(
    ui: Ui, message: Backend, guestbook: Backend, stored: Guestbook, answer: Answer
) -> None:
    message.behaviour = guestbook.behaviour = lambda _: answer
    assert visit(ui).reasons == ["it answered 500", "guestbook-service: it answered 500"]
    fail_posts(guestbook, answer, stored)
    assert "it answered 500" in (post(ui).problem or "")
    assert "secret" not in (post(ui).problem or "")


REFUSALS = (400, 401, 403, 404, 405, 409, 410, 412, 413, 414, 415, 422, 431, 451)
FAILURES = {
    **{str(status): Answer(status) for status in (302, 408, 425, 429, 500, 501, 502, 503, 504)},
    "hang": HANG,
    "reset": RESET,
    "no HTTP": Answer(raw=b"220 mail.example ESMTP\r\n"),
}


@pytest.mark.parametrize("status", REFUSALS)
def test_a_refusal_promises_nothing(
    ui: Ui, guestbook: Backend, stored: Guestbook, status: int
) -> None:
    fail_posts(guestbook, as_problem(status, "message: <too rude>"), stored)
    shown = post(ui)
    problem = shown.problem or ""
    assert REFUSED in problem
    assert "message: <too rude>" in problem
    assert SAFE not in problem
    assert LOOK_FIRST not in problem
    assert shown.messages == []


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES.keys())
def test_after_a_failure_sending_again_is_safe(
    impatient_ui: Ui, guestbook: Backend, stored: Guestbook, failure: Answer
) -> None:
    fail_posts(guestbook, failure, stored)
    problem = post(impatient_ui).problem or ""
    assert SAFE in problem
    assert REFUSED not in problem


def test_it_is_called_safe_only_once_the_guestbook_has_shown_that_it_knows_keys(
    fresh_ui: Ui, guestbook: Backend, stored: Guestbook
) -> None:
    unsure, failure = JavaGuestbook(), as_text("upstream request timeout", 504)
    for status in (429, 503):
        fail_posts(guestbook, Answer(status), unsure)
        problem = post(fresh_ui).problem or ""
        assert LOOK_FIRST in problem
        assert SAFE not in problem
    fail_posts(guestbook, as_problem(400, "too rude"), unsure)
    assert LOOK_FIRST not in (post(fresh_ui).problem or "")

    knowing = as_json({"detail": "busy"}, 503, Guestbook.headers)
    guestbook.behaviour = lambda _: knowing
    visit(fresh_ui)
    fail_posts(guestbook, failure, unsure)
    problem = post(fresh_ui).problem or ""
    assert SAFE in problem
    assert LOOK_FIRST not in problem


def test_what_a_back_end_without_keys_may_have_stored_is_not_sent_twice_by_the_ui(
    fresh_ui: Ui, guestbook: Backend
) -> None:
    java = JavaGuestbook()

    def stores_and_closes(seen: Seen) -> Answer:
        answer = java(seen)
        return RESET if seen.method == "POST" else answer

    guestbook.behaviour = stores_and_closes
    assert LOOK_FIRST in (post(fresh_ui).problem or "")
    assert [entry["message"] for entry in java.messages] == ["kept"]
