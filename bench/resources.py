"""Start time and resident memory of each service, against their limits."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil

from bench.figure import Figure
from tests.support.service import Service, environment

START_LIMIT = 0.5
"""Seconds from the start of the process to the first answer."""

MEMORY_LIMITS = {"message": 60, "guestbook": 80, "ui": 80}
"""Megabytes, after some requests."""

ROUNDS = 3
NOBODY = "http://127.0.0.1:1"


def figures() -> Iterator[Figure]:
    """Measure; each figure comes as soon as it is known."""
    with tempfile.TemporaryDirectory() as folder:
        services = {
            "message": ({}, "/hello/test"),
            "guestbook": (
                {"DATABASE_URL": f"sqlite:///{Path(folder) / 'guestbook.db'}"},
                "/api/messages",
            ),
            # Its back ends are away: the page says so.
            "ui": (
                {
                    "MESSAGE_HOST": NOBODY,
                    "GUESTBOOK_HOST": NOBODY,
                    "REDIS_HOST": "127.0.0.1",
                    "REDIS_PORT": "1",
                },
                "/",
            ),
        }
        for name, (settings, path) in services.items():
            measured = [_measure(name, settings, path) for _ in range(ROUNDS)]
            seconds, megabytes = (min(values) for values in zip(*measured, strict=True))
            yield Figure(f"{name}: start", seconds, START_LIMIT, "s (limit)", at_most=1)
            yield Figure(
                f"{name}: resident memory", megabytes, MEMORY_LIMITS[name], "MB (limit)", at_most=1
            )


def _measure(name: str, settings: dict[str, str], path: str) -> tuple[float, float]:
    started = time.monotonic()
    service = Service(name, environment(**settings))
    try:
        httpx.get(f"{service.management}/actuator/health/liveness").raise_for_status()
        seconds = time.monotonic() - started
        with httpx.Client(base_url=service.url) as client:
            for _ in range(200):
                client.get(path)
        return seconds, psutil.Process(service.pid).memory_info().rss / 1e6
    finally:
        service.stop()
