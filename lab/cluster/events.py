"""Events of objects, the newest thousand."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import time_ns
from typing import Literal

EventType = Literal["Normal", "Warning"]


def now() -> str:
    """Returns the time as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(slots=True)
class Event:
    """An event about the object `kind`, `namespace`, `name`."""

    kind: str
    namespace: str
    name: str
    type: EventType
    reason: str
    message: str
    count: int = 1
    first: str = field(default_factory=now)
    last: str = field(default_factory=now)
    suffix: str = field(default_factory=lambda: f"{time_ns():x}")
    """The end of its own name."""


class Events:
    """The last thousand events; a repeated one counts up."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque(maxlen=1000)
        self.revision = 0
        """Counts the events, apart from the changes of objects, of which far more depends."""
        self._news = asyncio.Event()

    def add(self, event: Event) -> None:
        self._count(event)
        self.revision += 1
        self._news.set()
        self._news = asyncio.Event()

    async def wait_for_change(self, since: int, timeout: float) -> None:
        """Returns when there is a newer revision than `since`, or after `timeout` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self.revision <= since:
                    await self._news.wait()

    def _count(self, event: Event) -> None:
        for known in reversed(self._events):
            same = (known.kind, known.namespace, known.name, known.reason, known.message)
            if same == (event.kind, event.namespace, event.name, event.reason, event.message):
                known.count += 1
                known.last = event.last
                return
        self._events.append(event)

    def forget(self, namespace: str, name: str | None = None) -> None:
        """Drops the events of a namespace, or of a pod whose name a new one takes."""
        kept = [
            event
            for event in self._events
            if event.namespace != namespace
            or (name is not None and (event.kind, event.name) != ("Pod", name))
        ]
        self._events.clear()
        self._events.extend(kept)

    def all(self) -> list[Event]:
        return list(self._events)
