"""Visitors that sign the guestbook without end, and remember what was acknowledged."""

from __future__ import annotations

import re
import threading
import uuid
from collections import Counter
from types import TracebackType
from typing import Self

import httpx

from tests.support.wait import wait


class Visitors:
    """Threads that post through the page, each like a browser with a stubborn person.

    Each signs, reads the page, and signs again. A message whose answer is not the redirect that
    acknowledges it is sent again from the same form (so with the same key), as the page invites
    its visitor to do.
    """

    def __init__(self, url: str, count: int = 2) -> None:
        self.acknowledged: list[str] = []
        self.versions: Counter[str] = Counter()
        """Pages that were read, by the version of the ui that made them."""
        self.failures = 0
        self._url = url
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._visit) for _ in range(count)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, more: int, what: str) -> None:
        """Waits until so many more messages are acknowledged."""
        before = len(self.acknowledged)
        wait(lambda: len(self.acknowledged) >= before + more, what, 120)

    def _visit(self) -> None:
        with httpx.Client(base_url=self._url, timeout=20) as browser:
            while not self._stop.is_set():
                message = uuid.uuid4().hex
                form = {"name": "Ada", "message": message, "key": uuid.uuid4().hex}
                while not self._stop.is_set():
                    if self._post(browser, form):
                        self.acknowledged.append(message)
                        break
                    self.failures += 1
                    self._stop.wait(0.1)
                self._read(browser)
                self._stop.wait(0.02)

    def _read(self, browser: httpx.Client) -> None:
        try:
            page = browser.get("/")
        except httpx.HTTPError:
            self.failures += 1
            return
        if page.status_code == 200:
            self.versions[page.headers["x-ui-version"]] += 1
        else:
            self.failures += 1

    @staticmethod
    def _post(browser: httpx.Client, form: dict[str, str]) -> bool:
        try:
            answer = browser.post("/greet", data=form)
        except httpx.HTTPError:
            return False
        if answer.status_code == 303:
            return True
        if "x-ui-version" not in answer.headers:
            return False  # No ui answered, but a proxy in front of it.
        # Not stored: the form must come back as it was, or the person has lost the text.
        assert form["message"] in answer.text
        assert re.search(f'name="key" value="{form["key"]}"', answer.text)
        return False
