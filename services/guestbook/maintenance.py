"""Work beside the requests: old idempotency keys, and the number of messages."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from functools import partial

from anyio import CapacityLimiter, to_thread

from services.guestbook.database import DatabaseUnavailableError
from services.guestbook.storage import Storage

TRY_AGAIN = 1.0
"""Seconds between attempts to reach a database."""
EVERY = 60.0
"""Seconds between two rounds."""
RECONCILE_EVERY = 10
"""Rounds between two checks of the number of messages."""

logger = logging.getLogger(__name__)


async def maintain(storage: Storage) -> None:
    """Works without end: as soon as the database is there, then every minute."""
    limiter = CapacityLimiter(1)
    rounds = 0
    while True:
        pause = TRY_AGAIN
        with contextlib.suppress(DatabaseUnavailableError):
            work = partial(storage.maintain, reconcile=rounds % RECONCILE_EVERY == 0)
            off = await to_thread.run_sync(work, limiter=limiter, abandon_on_cancel=True)
            if off:
                logger.info("The number of messages was off by %d", off)
            rounds += 1
            pause = EVERY
        await asyncio.sleep(pause)
