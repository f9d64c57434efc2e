"""Everything the page stands on stops, dies and comes back, while visitors post through it."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.faults.posts import PageVisitor, check_log, posting, stored
from tests.support.client import Client
from tests.support.mysql import MySQL
from tests.support.page import UNAVAILABLE, read
from tests.support.redis import RedisServer
from tests.support.service import Service, environment
from tests.support.wait import wait

RECOVERY = 10
"""Seconds in which all is well again once what was away is back (other things run here too)."""

HOST = "127.0.0.2"
"""No client's end of a connection takes a port of this address while its server is away."""


class Part:
    """A service that comes back at the address it had."""

    def __init__(self, name: str, **settings: object) -> None:
        self._name = name
        self._environ = environment(**{"HOST": HOST, "SHUTDOWN_DRAIN": 0.5, **settings})
        self.runs = [Service(name, self._environ)]
        self.url, self.management = self.runs[0].url, self.runs[0].management
        self._environ["PORT"] = str(urlsplit(self.url).port)
        self._environ["MANAGEMENT_PORT"] = str(urlsplit(self.management).port)

    def start(self) -> None:
        self.runs.append(Service(self._name, self._environ))

    def stop(self) -> None:
        """As Kubernetes ends a pod."""
        self.runs[-1].signal(signal.SIGTERM)
        assert self.runs[-1].wait() == 0

    def kill(self) -> None:
        self.runs[-1].kill()

    def end(self) -> None:
        """For the end of a test."""
        if self.runs[-1].process.poll() is None:
            self.runs[-1].stop()

    def ready(self) -> bool:
        url = f"{self.management}/actuator/health/readiness"
        return httpx.get(url, trust_env=False, timeout=10).status_code == 200


class Application:
    """All of it, as processes of its own."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.mysql = MySQL(folder)
        stack.callback(self.mysql.stop)
        self.redis = RedisServer(folder)
        self.redis.start()
        stack.callback(self.redis.stop)

        def start(name: str, **settings: object) -> Part:
            part = Part(name, **settings)
            stack.callback(part.end)
            return part

        self.message = start("message", HOSTNAME="message-1")
        self.guestbook = start("guestbook", DATABASE_URL=self.mysql.url())
        self.ui = start(
            "ui",
            MESSAGE_HOST=self.message.url,
            GUESTBOOK_HOST=self.guestbook.url,
            REDIS_HOST="127.0.0.1",
            REDIS_PORT=self.redis.port,
        )

    def until_well(self) -> None:
        """Wait until every part is ready and the page shows everything."""
        for part in (self.message, self.guestbook, self.ui):
            wait(part.ready, "readiness", RECOVERY)
        wait(lambda: self.greets() and self.shows_messages(), "a whole page", RECOVERY)

    def greets(self) -> bool:
        """Whether somebody who signs in is greeted."""
        with httpx.Client(base_url=self.ui.url, timeout=30, trust_env=False) as browser:
            browser.post("/greet", data={"name": "Eve"})
            page = browser.get("/").raise_for_status()
            return (read(page).greeting or "").startswith("Hello Eve")

    def shows_messages(self) -> bool:
        page = httpx.get(self.ui.url, trust_env=False, timeout=30).raise_for_status()
        return UNAVAILABLE not in page.text

    def logs(self) -> Iterator[Service]:
        for part in (self.message, self.guestbook, self.ui):
            yield from part.runs


@pytest.fixture
def application(tmp_path: Path) -> Iterator[Application]:
    with ExitStack() as stack:
        application = Application(tmp_path, stack)
        application.until_well()
        yield application


def test_of_a_thousand_posts_through_the_page_each_acknowledged_one_is_there_once(
    application: Application,
) -> None:
    mysql, redis = application.mysql, application.redis
    message, guestbook, ui = application.message, application.guestbook, application.ui

    def without_database() -> bool:
        return not guestbook.ready() and not application.shows_messages() and ui.ready()

    def without_redis() -> bool:
        return not ui.ready() and not application.greets() and guestbook.ready()

    def without_greetings() -> bool:
        return not application.greets() and application.shows_messages() and ui.ready()

    def without_messages() -> bool:
        return not application.shows_messages() and application.greets() and ui.ready()

    faults: list[tuple[Callable[[], None], Callable[[], bool], Callable[[], None]]] = [
        (mysql.stop, without_database, mysql.start),
        (redis.stop, without_redis, redis.start),
        (message.stop, without_greetings, message.start),
        (guestbook.stop, without_messages, guestbook.start),
        (mysql.kill, without_database, mysql.start),
        (redis.kill, without_redis, redis.start),
        (message.kill, without_greetings, message.start),
        (guestbook.kill, without_messages, guestbook.start),
    ]
    with posting(ui.url, visitor=PageVisitor) as posts:
        for away, told, back in faults:
            posts.wait_for(100)
            away()
            wait(told, f"what is to be seen after {away.__qualname__}", RECOVERY)
            back()
            application.until_well()
        posts.wait_for(max(100, 1000 - len(posts.acknowledged)))
    with Client(guestbook.runs[-1]) as client:
        posts.check(stored(client))
    assert set(posts.failures) == {"200"}
    for service in application.logs():
        check_log(service)


def test_posts_go_on_while_sessions_and_greetings_are_away(application: Application) -> None:
    """Neither is needed to store a message."""
    application.redis.stop()
    application.message.stop()
    with posting(application.ui.url, visitor=PageVisitor) as posts:
        posts.wait_for(100)
    assert not posts.failures
    application.redis.start()
    application.message.start()
    application.until_well()
    with Client(application.guestbook.runs[-1]) as client:
        posts.check(stored(client))


def test_after_one_slow_second_the_next_probe_says_up(application: Application) -> None:
    """With a threshold of two failures no pod is taken out of service."""
    parts = (application.guestbook, application.ui)
    for _ in range(2):
        for server in (application.mysql, application.redis):
            server.freeze()
        wait(lambda: not any(part.ready() for part in parts), "both to be unready")
        for server in (application.mysql, application.redis):
            server.thaw()
        # Within a second an outcome is used again, and a probe in between would be the first.
        time.sleep(1.1)
        assert [part.ready() for part in parts] == [True, True]
    assert application.greets()
    assert application.shows_messages()


def test_visitors_who_leave_in_mid_form_do_not_disturb_the_others(
    application: Application,
) -> None:
    address = urlsplit(application.ui.url)
    head = "host: ui\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: 500"
    half = f"POST /greet HTTP/1.1\r\n{head}\r\n\r\nname=Eve&mess".encode()
    with posting(application.ui.url, visitor=PageVisitor) as posts:
        for _ in range(50):
            with socket.create_connection((address.hostname, address.port), timeout=10) as left:
                left.sendall(half)
        posts.wait_for(100)
    assert not posts.failures
    with Client(application.guestbook.runs[-1]) as client:
        posts.check(stored(client))
    (ui,) = application.ui.runs
    wait(lambda: sum("POST /greet 499" in line for line in ui.lines) == 50, "their lines")
    check_log(ui)
    assert not [line for line in ui.lines if " ERROR " in line]


def test_the_parts_may_start_in_any_order(tmp_path: Path) -> None:
    with ExitStack() as stack:
        application = Application(tmp_path, stack)
        parts = (application.message, application.guestbook)
        for part in (*parts, application.ui):
            part.stop()
        application.mysql.stop()
        application.redis.stop()
        application.ui.start()
        wait(lambda: not application.ui.ready(), "the ui to know that Redis is away")
        assert not application.shows_messages()
        for part in parts:
            part.start()
        assert not application.guestbook.ready()
        application.redis.start()
        application.mysql.start()
        application.until_well()
        for service in application.logs():
            check_log(service)
