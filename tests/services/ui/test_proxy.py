"""`http_proxy` and `no_proxy`: where nothing intercepts connections, the sidecar is the proxy."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.services.ui.backend import Answer, Backend, Guestbook, Seen
from tests.support.page import UNAVAILABLE, read
from tests.support.ui import StartUi, Ui


@pytest.fixture
def proxy(message: Backend, guestbook: Backend) -> Iterator[Backend]:
    """A forward proxy that knows both back ends by their names in the mesh."""
    services = {"message-service": message, "guestbook-service": guestbook}

    def forward(seen: Seen) -> Answer:
        target = urlsplit(seen.target)
        backend = services.get(target.hostname or "")
        if backend is None:
            return Answer(502, f"no route to {seen.target}".encode())
        connection = http.client.HTTPConnection("127.0.0.1", backend.port, timeout=10)
        path = f"{target.path}?{target.query}" if target.query else target.path
        connection.request(seen.method, path, seen.body, seen.headers)
        response = connection.getresponse()
        answer = Answer(response.status, response.read(), {"x-proxied": "yes"})
        connection.close()
        return answer

    backend = Backend(forward)
    backend.start()
    yield backend
    backend.stop()


@pytest.fixture
def mesh(environ: dict[str, str], proxy: Backend) -> dict[str, str]:
    return {
        **environ,
        "MESSAGE_HOST": "http://message-service",
        "GUESTBOOK_HOST": "http://guestbook-service",
        "http_proxy": proxy.url,
    }


def visit(ui: Ui) -> tuple[str | None, list[tuple[str, str]]]:
    with ui.browser() as browser:
        browser.post("/greet", data={"name": "a/b", "message": "hello"})
        shown = read(browser.get("/"))
    return shown.greeting, shown.messages


def test_both_back_ends_are_asked_through_the_proxy(
    start_ui: StartUi, mesh: dict[str, str], proxy: Backend, stored: Guestbook
) -> None:
    greeting, messages = visit(start_ui(**mesh))
    assert greeting == "Hello a/b from message-1 with 1.0"
    assert messages == [("a/b", "hello")]
    assert len(stored.messages) == 1
    assert {(seen.method, seen.target, seen.headers["host"]) for seen in proxy.seen} == {
        ("POST", "http://guestbook-service/api/messages", "guestbook-service"),
        ("GET", "http://message-service/hello/a%2Fb", "message-service"),
        (
            "GET",
            "http://guestbook-service/api/messages?page=0&size=20&sort=id,desc",
            "guestbook-service",
        ),
    }


def test_what_no_proxy_names_is_asked_directly(
    start_ui: StartUi, mesh: dict[str, str], proxy: Backend, environ: dict[str, str]
) -> None:
    direct = {"GUESTBOOK_HOST": environ["GUESTBOOK_HOST"], "no_proxy": "127.0.0.1,localhost"}
    greeting, messages = visit(start_ui(**{**mesh, **direct}))
    assert greeting == "Hello a/b from message-1 with 1.0"
    assert messages == [("a/b", "hello")]
    assert [seen.target for seen in proxy.seen] == ["http://message-service/hello/a%2Fb"]


def test_a_proxy_that_is_gone_is_a_back_end_that_is_gone(
    start_ui: StartUi, mesh: dict[str, str], proxy: Backend
) -> None:
    ui = start_ui(**mesh)
    proxy.stop()
    greeting, messages = visit(ui)
    assert greeting == "Unable to connect"
    assert messages == [("system", UNAVAILABLE)]
    proxy.start()
    greeting, _ = visit(ui)
    assert greeting == "Hello a/b from message-1 with 1.0"
