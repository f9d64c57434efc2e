"""What readiness asks the database, and the upkeep that goes on beside the requests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial

from anyio import CapacityLimiter, to_thread

from services.guestbook.storage import DatabaseUnavailableError, Storage

TRY_AGAIN = 1.0
"""Seconds between attempts to reach a database that was never reached."""
UPKEEP_EVERY = 60.0
RECONCILE_EVERY = 10
"""Rounds of upkeep between two checks of the count."""


def database_probe(storage: Storage) -> Callable[[], Awaitable[None]]:
    """The probe for readiness; it has a thread of its own, however busy the others are."""
    limiter: CapacityLimiter | None = None

    async def probe() -> None:
        nonlocal limiter
        limiter = limiter or CapacityLimiter(1)
        await to_thread.run_sync(storage.probe, limiter=limiter, abandon_on_cancel=True)

    return probe


async def keep_up(storage: Storage) -> None:
    """Upkeep without end: as soon as the database is there, then every minute."""
    limiter = CapacityLimiter(1)
    rounds = 0
    while True:
        pause = TRY_AGAIN
        with contextlib.suppress(DatabaseUnavailableError):
            await to_thread.run_sync(
                partial(storage.keep_up, reconcile=rounds % RECONCILE_EVERY == 0),
                limiter=limiter,
                abandon_on_cancel=True,
            )
            rounds += 1
            pause = UPKEEP_EVERY
        await asyncio.sleep(pause)
