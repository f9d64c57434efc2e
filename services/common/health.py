"""Liveness, readiness and the state of each dependency, in the shape of Spring Boot's Actuator.

Readiness asks the dependencies. Liveness never does: a restart cures no database.
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
class Health:
    """The state of the service and of its dependencies."""

    checks: Sequence[Check]
    max_age: float = 1.0
    """Seconds an outcome is reused, so that probes cannot load a dependency."""
    started: bool = False
    draining: bool = False
    _outcomes: dict[str, tuple[float, str | None]] = field(default_factory=dict)
    """By check: time (monotonic clock) and error of its last probe."""
    _running: dict[str, asyncio.Task[str | None]] = field(default_factory=dict)

    async def readiness(self) -> tuple[int, dict[str, object]]:
        """Returns status code and body: 200 when requests are welcome, else 503."""
        if self.draining or not self.started:
            return 503, {"status": OUT_OF_SERVICE}
        return await self.aggregate()

    def liveness(self) -> tuple[int, dict[str, object]]:
        """Returns 200 always: a process that answers is alive."""
        return 200, {"status": UP}

    async def aggregate(self) -> tuple[int, dict[str, object]]:
        """Returns status code and body with the state of each dependency."""
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
        at, error = self._outcomes.get(check.name, (-self.max_age, None))
        if monotonic() - at < self.max_age:
            return error
        # Requests that come together share one probe.
        task = self._running.get(check.name)
        if task is None:
            task = self._running[check.name] = asyncio.create_task(_outcome(check))
            task.add_done_callback(lambda _: self._running.pop(check.name))
        error = await asyncio.shield(task)
        self._outcomes[check.name] = (monotonic(), error)
        return error


async def _outcome(check: Check) -> str | None:
    """Returns why the dependency is down; None when it is up."""
    try:
        async with asyncio.timeout(check.timeout):
            await check.probe()
    except TimeoutError:
        return f"no answer within {check.timeout:g} s"
    except Exception as error:
        reason = str(error).partition("\n")[0]
        return f"{type(error).__name__}: {reason}"[:300]
    return None
