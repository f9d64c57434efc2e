"""Liveness, readiness and the state of each dependency, in the shape of Spring Boot's Actuator.

Readiness tells the truth about the dependencies. Liveness never asks them: a restart cures no
database.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic

UP, DOWN, OUT_OF_SERVICE = "UP", "DOWN", "OUT_OF_SERVICE"


@dataclass(frozen=True, slots=True)
class Check:
    """A dependency of the service."""

    name: str
    probe: Callable[[], Awaitable[None]]
    """Raises when the dependency is down."""
    timeout: float = 0.8
    """Seconds after which no answer means down; below the second a Kubernetes probe waits."""


@dataclass(slots=True)
class _Result:
    at: float
    """When, in seconds of the monotonic clock."""
    error: str | None


@dataclass(slots=True)
class Health:
    checks: Sequence[Check]
    max_age: float = 1.0
    """Seconds an outcome is reused, so that probes cannot load a dependency."""
    started: bool = False
    draining: bool = False
    _results: dict[str, _Result] = field(default_factory=dict)
    _running: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    async def readiness(self) -> tuple[int, dict[str, object]]:
        """Status code and body: 200 when requests are welcome."""
        if self.draining or not self.started:
            return 503, {"status": OUT_OF_SERVICE}
        return await self.aggregate()

    def liveness(self) -> tuple[int, dict[str, object]]:
        """Status code and body: that this answers at all is the point."""
        return 200, {"status": UP}

    async def aggregate(self) -> tuple[int, dict[str, object]]:
        """Status code and body with the state of each dependency."""
        errors = await asyncio.gather(*map(self._error, self.checks))
        components: dict[str, object] = {
            check.name: {"status": UP} if error is None else {"status": DOWN, "error": error}
            for check, error in zip(self.checks, errors, strict=True)
        }
        if self.draining or not self.started:
            status = OUT_OF_SERVICE
        else:
            status = DOWN if any(errors) else UP
        return 200 if status == UP else 503, {"status": status, "components": components}

    async def _error(self, check: Check) -> str | None:
        result = self._results.get(check.name)
        if result is not None and monotonic() - result.at < self.max_age:
            return result.error
        # Probes that come together share one; one that hangs is never started twice.
        task = self._running.get(check.name)
        if task is None:
            task = asyncio.ensure_future(check.probe())
            self._running[check.name] = task
        done, _ = await asyncio.wait({task}, timeout=check.timeout)
        if not done:
            task.cancel()
            error: str | None = f"no answer within {check.timeout:g} s"
        else:
            error = _describe(task)
        if task.done():
            self._running.pop(check.name, None)
        self._results[check.name] = _Result(monotonic(), error)
        return error


def _describe(task: asyncio.Task[None]) -> str | None:
    if task.cancelled():
        return "cancelled"
    error = task.exception()
    if error is None:
        return None
    reason = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {reason}"[:300]
