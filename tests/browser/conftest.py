"""The three real services, and a real browser to look at them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request

from tests.support.browser import OpenPage, chromium
from tests.support.guestbook import Guestbook
from tests.support.service import Service


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guestbook]:
    """The running guestbook; it is empty when a module begins."""
    with Guestbook(tmp_path_factory.mktemp("guestbook")) as running:
        yield running


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """Open a page in a browser without history, with scripts off, as the page has none.

    At the end of the test nothing may have been written to the console and no other host asked.
    """
    contexts = []
    complaints: list[str] = []

    def open_(service: Service, path: str = "/", width: int = 1280, height: int = 860) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": height}, java_script_enabled=False
        )
        contexts.append(context)
        page = context.new_page()

        def on_console(message: ConsoleMessage) -> None:
            # A page that is answered with 404 by itself has no fault.
            itself = message.location["url"] == service.url + path
            if not (itself and message.text.startswith("Failed to load resource")):
                complaints.append(f"console: {message.text}")

        def on_request(request: Request) -> None:
            if not request.url.startswith(f"{service.url}/"):
                complaints.append(f"asked {request.url}")

        page.on("console", on_console)
        page.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
        page.on("request", on_request)
        page.goto(service.url + path)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert complaints == []
