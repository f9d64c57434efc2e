"""The three real services, and a real browser to look at them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

from tests.services.process import Service, environment
from tests.services.ui.conftest import RedisServer

QUIET = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


@dataclass
class Guestbook:
    """All services, running; the guestbook service can be stopped and started again."""

    message: Service
    guestbook: Service
    environ: dict[str, str]
    uis: dict[str, Service] = field(default_factory=dict)

    def ui(self, **settings: str) -> Service:
        """A ui with these settings; one that runs already, if there is one."""
        key = str(settings)
        if key not in self.uis:
            self.uis[key] = Service("ui", environment(**self.environ, **settings))
        return self.uis[key]

    def start_guestbook(self) -> None:
        """On the port it had before."""
        database = {"DATABASE_URL": self.environ["DATABASE_URL"]}
        port = urlsplit(self.guestbook.url).port
        self.guestbook = Service("guestbook", environment(**database) | {"PORT": str(port)})


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guestbook]:
    """Its guestbook is empty when a module begins."""
    folder: Path = tmp_path_factory.mktemp("guestbook")
    database = f"sqlite:///{folder}/guestbook.db"
    redis = RedisServer(folder)
    redis.start()
    message = Service("message", environment(HOSTNAME="message-service-545c84c666-nqfx6"))
    guestbook = Service("guestbook", environment(DATABASE_URL=database))
    environ = {
        "MESSAGE_HOST": message.url,
        "GUESTBOOK_HOST": guestbook.url,
        "DATABASE_URL": database,
        "REDIS_HOST": "127.0.0.1",
        "REDIS_PORT": str(redis.port),
        "HOSTNAME": "ui-6d4cf56db6-x7k2p",
    }
    running = Guestbook(message, guestbook, environ)
    yield running
    for service in (*running.uis.values(), running.message, running.guestbook):
        service.stop()
    redis.stop()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=QUIET.split())
        yield browser
        browser.close()


OpenPage = Callable[..., Page]


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
            # That the page itself was answered 404 is no fault of the page.
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
