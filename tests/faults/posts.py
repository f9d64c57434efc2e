"""Visitors who post without end, and remember what they were told."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Protocol
from uuid import uuid4

import httpx

from tests.support.client import PATH, Client
from tests.support.page import Shown, read
from tests.support.service import Service
from tests.support.wait import wait

STORED = "stored"


@dataclass
class Posts:
    """The messages that were posted, and those that were acknowledged."""

    tried: set[str] = field(default_factory=set)
    acknowledged: set[str] = field(default_factory=set)
    failures: Counter[str] = field(default_factory=Counter)
    """Answers that acknowledge nothing, and errors, by kind."""
    slowest: float = 0
    """Seconds of the slowest answer."""

    def wait_for(self, more: int, seconds: float = 60) -> None:
        """Wait until so many more are acknowledged."""
        goal = len(self.acknowledged) + more
        wait(
            lambda: len(self.acknowledged) >= goal,
            f"{more} more acknowledged posts ({self.failures})",
            seconds,
        )

    def check(self, stored: list[str]) -> None:
        """Every acknowledged message is there once, and none is there twice."""
        times = Counter(stored)
        assert [text for text in self.acknowledged if times[text] != 1] == []
        assert [text for text, number in times.items() if number > 1] == []
        assert set(times) <= self.tried


class Visitor(Protocol):
    """Posts messages, one after the other, over a client of its own."""

    def post(self, http: httpx.Client, text: str, again: bool) -> str:
        """Post it, or try again to post it; answers STORED or what came instead."""


@dataclass
class ApiVisitor:
    """Posts to the guestbook service; with a key, the same one when it tries again."""

    keyed: bool = True
    _key: str = ""

    def post(self, http: httpx.Client, text: str, again: bool) -> str:
        if not again:
            self._key = str(uuid4())
        headers = {"Idempotency-Key": self._key} if self.keyed else {}
        answer = http.post(PATH, json={"username": "Ann", "message": text}, headers=headers)
        if answer.status_code == 201:
            return STORED
        if answer.status_code == 503 and not (
            answer.headers.get("retry-after", "").isdigit() and answer.json()["detail"]
        ):
            return f"503 without reason: {answer.text}"
        return str(answer.status_code)


class PageVisitor:
    """Fills in the form of the page, and sends it as often as it comes back filled in."""

    def __init__(self) -> None:
        self._shown: Shown | None = None

    def post(self, http: httpx.Client, text: str, again: bool) -> str:
        if not again or self._shown is None:
            page = http.get("/")
            if page.status_code != 200:
                return f"the page: {page.status_code} {page.text}"
            self._shown = read(page)
        form = self._shown.form(name="Ann", message=text)
        answer = http.post("/greet", data=form)
        if answer.status_code == 303:
            return STORED
        self._shown = read(answer)
        kept = self._shown.form() == form
        if answer.status_code != 200 or not kept or "again is safe" not in str(self._shown.problem):
            return f"something lost: {answer.status_code} {answer.text}"
        return "200"


@contextmanager
def posting(
    url: str, visitors: int = 8, *, visitor: Callable[[], Visitor] = ApiVisitor, again: bool = True
) -> Iterator[Posts]:
    """Post all the time; `again`: send a post that failed again, until it is acknowledged."""
    posts = Posts()
    stop = threading.Event()
    numbers = count()
    lock = threading.Lock()
    threads = [
        threading.Thread(target=_visit, args=(visitor(), url, posts, numbers, lock, stop, again))
        for _ in range(visitors)
    ]
    for thread in threads:
        thread.start()
    try:
        yield posts
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)


def _visit(
    visitor: Visitor,
    url: str,
    posts: Posts,
    numbers: Iterator[int],
    lock: threading.Lock,
    stop: threading.Event,
    again: bool,
) -> None:
    with httpx.Client(base_url=url, timeout=30, trust_env=False) as http:
        while not stop.is_set():
            text = f"message {next(numbers)}"
            with lock:
                posts.tried.add(text)
            post = partial(_post, visitor, http, text, posts, lock)
            stored = post(again=False)
            while not stored and again and not stop.wait(0.05):
                stored = post(again=True)


def _post(
    visitor: Visitor,
    http: httpx.Client,
    text: str,
    posts: Posts,
    lock: threading.Lock,
    *,
    again: bool,
) -> bool:
    started = time.monotonic()
    try:
        outcome = visitor.post(http, text, again)
    except httpx.TransportError as error:
        outcome = repr(error)
    with lock:
        posts.slowest = max(posts.slowest, time.monotonic() - started)
        if outcome == STORED:
            posts.acknowledged.add(text)
        else:
            posts.failures[outcome] += 1
    return outcome == STORED


def stored(client: Client) -> list[str]:
    """The texts of all messages; the count must agree with them."""
    texts = [str(message["message"]) for message in client.all()]
    assert client.get().json()["page"]["totalElements"] == len(texts)
    return texts


def check_log(service: Service) -> None:
    """No stack trace in what the service wrote."""
    lines = service.lines
    found = [number for number, line in enumerate(lines) if "Traceback" in line]
    assert not found, "\n".join(lines[max(0, found[0] - 3) : found[0] + 60])
