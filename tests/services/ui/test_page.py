"""The page and its form, back ends in health."""

from __future__ import annotations

import re
import threading
from uuid import UUID

import httpx
import pytest

from tests.services.ui.backend import Answer, Backend, Guestbook, greets
from tests.support.page import read, request_id
from tests.support.redis import RedisServer
from tests.support.ui import Ui

TTL = 30 * 60


def post(browser: httpx.Client, name: str, message: str = "", key: str = "") -> httpx.Response:
    return browser.post("/greet", data={"name": name, "message": message, "key": key})


def test_a_visitor_signs_and_is_greeted(ui: Ui, stored: Guestbook) -> None:
    with ui.browser() as browser:
        first = browser.get("/")
        assert read(first).greeting is None
        assert "Nobody has signed yet" in first.text
        answer = post(browser, "Ada", "Hello, mesh", read(first).key)
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        page = browser.get("/")
    shown = read(page)
    assert shown.greeting == "Hello Ada from message-1 with 1.0"
    assert shown.messages == [("Ada", "Hello, mesh")]
    assert shown.name == "Ada"
    assert shown.message == ""
    assert shown.key != read(first).key
    assert page.headers["x-message-version"] == "1.0"
    assert page.headers["x-message-hostname"] == "message-1"
    assert (page.headers["x-ui-version"], page.headers["x-ui-hostname"]) == ("1.0", "ui-1")
    assert "ui 1.0" in page.text
    assert "<code>ui-1</code>" in page.text


def test_an_empty_message_sets_the_name_and_stores_nothing(ui: Ui, guestbook: Backend) -> None:
    with ui.browser() as browser:
        assert post(browser, " Ada ", " \r\n ").status_code == 303
        assert read(browser.get("/")).greeting == "Hello Ada from message-1 with 1.0"
    assert guestbook.requests("POST") == []


def test_a_greeting_is_asked_once_a_page(ui: Ui, message: Backend) -> None:
    with ui.browser() as browser:
        post(browser, "Ada", "one")
        assert message.seen == []
        for _ in range(3):
            browser.get("/")
    assert len(message.seen) == 3


def test_both_back_ends_are_asked_at_the_same_time(
    ui: Ui, message: Backend, guestbook: Backend, stored: Guestbook
) -> None:
    both = threading.Barrier(2, timeout=10)

    def together(answer: Answer) -> Answer:
        both.wait()
        return answer

    with ui.browser() as browser:
        post(browser, "Ada")
        message.behaviour = lambda seen: together(greets(seen))
        guestbook.behaviour = lambda seen: together(stored(seen))
        assert read(browser.get("/")).greeting == "Hello Ada from message-1 with 1.0"


class TestSession:
    def test_a_visit_without_a_cookie_makes_none(self, ui: Ui, redis: RedisServer) -> None:
        before = redis.ask("DBSIZE")
        answer = httpx.get(ui.url, trust_env=False)
        assert "set-cookie" not in answer.headers
        assert redis.ask("DBSIZE") == before

    def test_the_cookie(self, ui: Ui) -> None:
        with ui.browser() as browser:
            name, *attributes = post(browser, "Ada").headers["set-cookie"].split("; ")
        assert re.fullmatch(r"SESSION=[A-Za-z0-9_-]{43}", name)
        assert {a.lower() for a in attributes} == {"httponly", "path=/", "samesite=lax"}

    def test_behind_https_the_cookie_stays_there(self, ui: Ui) -> None:
        headers = {"x-forwarded-proto": "https"}
        answer = httpx.post(
            f"{ui.url}/greet", data={"name": "Ada"}, headers=headers, trust_env=False
        )
        assert "Secure" in answer.headers["set-cookie"]

    def test_it_lasts_half_an_hour_from_its_last_use(self, ui: Ui, redis: RedisServer) -> None:
        with ui.browser() as browser:
            post(browser, "Ada")
            key = f"session:{browser.cookies['SESSION']}"
            assert TTL - 60 <= int(redis.ask("TTL", key)[1:]) <= TTL
            redis.ask("EXPIRE", key, "60")
            browser.get("/")
            assert TTL - 60 <= int(redis.ask("TTL", key)[1:]) <= TTL

    def test_another_name_keeps_the_session(self, ui: Ui) -> None:
        with ui.browser() as browser:
            post(browser, "Ada")
            token = browser.cookies["SESSION"]
            post(browser, "Grace")
            assert browser.cookies["SESSION"] == token
            assert read(browser.get("/")).name == "Grace"

    @pytest.mark.parametrize("planted", ["A" * 43, "short", "../../etc", "A" * 5000, '"'])
    def test_a_token_of_somebody_else_is_not_taken_over(self, ui: Ui, planted: str) -> None:
        cookie = {"cookie": f"SESSION={planted}"}
        page = httpx.get(ui.url, headers=cookie, trust_env=False)
        assert read(page).greeting is None
        answer = httpx.post(
            f"{ui.url}/greet", data={"name": "Ada"}, headers=cookie, trust_env=False
        )
        assert answer.status_code == 303
        assert planted not in answer.headers["set-cookie"]

    def test_it_can_be_ended(self, ui: Ui, redis: RedisServer) -> None:
        with ui.browser() as browser:
            post(browser, "Ada")
            key = f"session:{browser.cookies['SESSION']}"
            assert browser.post("/logout").status_code == 303
            assert "SESSION" not in browser.cookies
            assert redis.ask("EXISTS", key) == ":0"
            assert read(browser.get("/")).greeting is None


class TestPaging:
    def test_all_messages_are_reached_newest_first(self, ui: Ui, stored: Guestbook) -> None:
        for number in range(45):
            stored.add("Ada", f"message {number}")
        texts: list[str] = []
        with ui.browser() as browser:
            address = "/"
            for _ in range(3):
                page = browser.get(address)
                texts += [text for _, text in read(page).messages]
                following = re.search(r'rel="next" href="([^"]*)"', page.text)
                address = following[1] if following else ""
        assert address == ""
        assert texts == [f"message {number}" for number in reversed(range(45))]
        assert "Page 3 of 3" in page.text
        assert "45 messages" in page.text
        assert 'rel="prev" href="/?page=2"' in page.text

    def test_a_page_beyond_the_last_leads_back(self, ui: Ui, stored: Guestbook) -> None:
        stored.add("Ada", "only")
        page = httpx.get(f"{ui.url}/?page=7", trust_env=False)
        assert page.status_code == 200
        assert "There is no page 7" in page.text

    @pytest.mark.parametrize("number", ["0", "-1", "x", "1.5", "", "1000001", "9" * 5000, "²"])
    def test_a_strange_page_number_is_refused(self, ui: Ui, number: str) -> None:
        answer = httpx.get(ui.url, params={"page": number}, trust_env=False)
        assert answer.status_code == 400
        assert "Pages are numbered from 1" in answer.text


INVISIBLE = [
    "\u200b",
    "\ufeff",
    "\u3164",
    "\u115f\u1160",
    "\u200b \u200d\u2060",
    "\u00ad\u202e",
    "\u2800",
    "\U000e0041",
]
"""Zero-width characters, Hangul fillers, a blank Braille cell and other signs without ink."""


class TestInput:
    @pytest.mark.parametrize(
        ("name", "message", "reason"),
        [
            ("", "kept", "enter your name"),
            ("  ", "kept", "enter your name"),
            ("x" * 101, "kept", "longer than 100"),
            ("..", "kept", "part of a web address"),
            *((name, "kept", "enter your name") for name in INVISIBLE),
            ("Ada", "x" * 2001, "2001 characters; 2000 is the most"),
            ("Ada", "k\0ept", "NUL"),
        ],
    )
    def test_what_cannot_be_used_comes_back_with_the_reason(
        self, ui: Ui, guestbook: Backend, name: str, message: str, reason: str
    ) -> None:
        with ui.browser() as browser:
            answer = post(browser, name, message)
        shown = read(answer)
        assert answer.status_code == 422
        assert reason in (shown.problem or "")
        assert (shown.name, shown.message) == (name.strip(), message)
        assert guestbook.requests("POST") == []

    @pytest.mark.parametrize(
        "message",
        [
            "emoji 👩‍👩‍👧‍👦 🎉",
            "zero\u200bwidth",
            "مرحبا שלום",
            "e\u0301 combining",
            "<script>alert('1')</script> & \"quotes\"",
            "\n\nfirst lines empty",
            "  spaces kept  \n and lines",
            "{{ 7 * 7 }} {% raw %}",
        ],
    )
    def test_text_comes_back_as_it_was_written(
        self, ui: Ui, stored: Guestbook, message: str
    ) -> None:
        with ui.browser() as browser:
            # As a browser sends it: lines end with CR LF.
            post(browser, "Ada", message.replace("\n", "\r\n"))
            page = browser.get("/")
        assert stored.messages[0]["message"] == message
        assert read(page).messages == [("Ada", message)]
        assert "<script>" not in page.text

    @pytest.mark.parametrize(
        ("message", "shown"),
        [
            ("a\nb\n\nc", "a\nb\n\nc"),
            ("a\n\n\nb", "a\n\nb"),
            ("a" + "\n" * 100 + "b\n\n\n\nc", "a\n\nb\n\nc"),
        ],
    )
    def test_many_empty_lines_are_shown_as_one(
        self, ui: Ui, stored: Guestbook, message: str, shown: str
    ) -> None:
        stored.add("Ada", message)
        assert read(httpx.get(ui.url, trust_env=False)).messages == [("Ada", shown)]

    @pytest.mark.parametrize(
        "name",
        [
            "a b",
            "a/b",
            "a%2Fb",
            "100%",
            "?x=1",
            "#x",
            "a\\b",
            "é",
            "日本",
            "👋🏽",
            "A\u200bda",
            "a+b",
            "...",
            "a;b",
            "~",
        ],
    )
    def test_any_name_reaches_the_message_service(
        self, ui: Ui, message: Backend, name: str
    ) -> None:
        with ui.browser() as browser:
            post(browser, name)
            assert read(browser.get("/")).greeting == f"Hello {name} from message-1 with 1.0"
        assert "/" not in message.seen[0].target.removeprefix("/hello/")

    def test_a_file_is_refused(self, ui: Ui) -> None:
        files = {"name": ("a.txt", b"Ada")}
        assert httpx.post(f"{ui.url}/greet", files=files, trust_env=False).status_code == 400


class TestIdempotency:
    def test_one_form_sent_often_is_stored_once(self, ui: Ui, stored: Guestbook) -> None:
        with ui.browser() as browser:
            form = read(browser.get("/")).form(name="Ada", message="once")
            answers = [browser.post("/greet", data=form) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [303] * 3
        assert len(stored.messages) == 1

    def test_the_same_words_in_two_forms_are_two_messages(self, ui: Ui, stored: Guestbook) -> None:
        with ui.browser() as browser:
            for _ in range(2):
                form = read(browser.get("/")).form(name="Ada", message="again")
                browser.post("/greet", data=form)
        assert len(stored.messages) == 2

    def test_without_a_key_every_post_counts(self, ui: Ui, stored: Guestbook) -> None:
        with ui.browser() as browser:
            for key in ("", "", "x", "x\r\ny"):
                assert post(browser, "Ada", "again", key).status_code == 303
        assert len(stored.messages) == 4


def test_head_answers_as_get_does(ui: Ui) -> None:
    answer = httpx.head(ui.url, trust_env=False)
    assert answer.status_code == 200
    assert answer.headers["x-ui-version"] == "1.0"
    assert int(answer.headers["content-length"]) > 1000
    assert answer.content == b""


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/static/nowhere.css", 404),
        ("PUT", "/greet", 405),
        ("POST", "/", 405),
        ("GET", "/static/../settings.py", 404),
        ("GET", "/static", 404),
        ("GET", "/?page=0", 400),
    ],
)
def test_an_error_is_a_page_too(ui: Ui, method: str, path: str, status: int) -> None:
    answer = httpx.request(method, ui.url + path, trust_env=False)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["x-ui-hostname"] == "ui-1"
    assert "To the guestbook" in answer.text
    assert ("allow" in answer.headers) == (status == 405)
    shown = request_id(answer) or ""
    assert UUID(shown)
    assert f"request_id={shown}" in ui.wait_for_line(shown)


def test_an_error_page_shows_the_request_id_it_was_sent(ui: Ui) -> None:
    sent = {"x-request-id": "1ca98b3e:7ab2/9a3c+b2a4=@_." + "a" * 100}
    answer = httpx.get(f"{ui.url}/nowhere", headers=sent, trust_env=False)
    assert request_id(answer) == sent["x-request-id"]


def test_the_address_of_the_form_leads_to_the_page(ui: Ui) -> None:
    answer = httpx.get(f"{ui.url}/greet", trust_env=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
