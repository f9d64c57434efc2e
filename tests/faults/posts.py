"""Visitors who post without end, and remember what they were told."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from uuid import uuid4

import httpx

from tests.services.guestbook.client import PATH, Client
from tests.services.process import Service, wait_until


@dataclass
class Posts:
    """What was posted, and what was answered."""

    tried: set[str] = field(default_factory=set)
    acknowledged: set[str] = field(default_factory=set)
    failures: Counter[str] = field(default_factory=Counter)
    """Answers other than 201, and errors, by kind."""
    slowest: float = 0
    """Seconds of the slowest answer."""

    def wait_for(self, more: int, seconds: float = 60) -> None:
        """Wait until so many more are acknowledged."""
        goal = len(self.acknowledged) + more
        wait_until(
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


@contextmanager
def posting(url: str, visitors: int = 8, *, keyed: bool = True) -> Iterator[Posts]:
    """Post all the time. With a key a failed post is sent again until it is acknowledged."""
    posts = Posts()
    stop = threading.Event()
    numbers = count()
    lock = threading.Lock()
    threads = [
        threading.Thread(target=_visit, args=(url, posts, numbers, lock, stop, keyed))
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
    url: str,
    posts: Posts,
    numbers: Iterator[int],
    lock: threading.Lock,
    stop: threading.Event,
    keyed: bool,
) -> None:
    with httpx.Client(base_url=url, timeout=30, trust_env=False) as http:
        while not stop.is_set():
            text = f"message {next(numbers)}"
            with lock:
                posts.tried.add(text)
            headers = {"Idempotency-Key": str(uuid4())} if keyed else {}
            while not _post(http, text, headers, posts, lock) and keyed and not stop.wait(0.05):
                pass


def _post(
    http: httpx.Client, text: str, headers: dict[str, str], posts: Posts, lock: threading.Lock
) -> bool:
    started = time.monotonic()
    try:
        answer = http.post(PATH, json={"username": "Ann", "message": text}, headers=headers)
        outcome = str(answer.status_code)
        if answer.status_code == 503 and not (
            answer.headers.get("retry-after", "").isdigit() and answer.json()["detail"]
        ):
            outcome = f"503 without reason: {answer.text}"
    except httpx.TransportError as error:
        outcome = repr(error)
    with lock:
        posts.slowest = max(posts.slowest, time.monotonic() - started)
        if outcome == "201":
            posts.acknowledged.add(text)
        else:
            posts.failures[outcome] += 1
    return outcome == "201"


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
