"""Stores messages; a post with an Idempotency-Key is stored once."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from contextvars import copy_context
from datetime import timedelta
from functools import partial
from http import HTTPStatus
from typing import TypeVar
from uuid import uuid4

from anyio import to_thread
from sqlalchemy import URL, Connection, bindparam, case, delete, func, insert, select, update

from services.common.metrics import backend_counter
from services.common.telemetry import Attributes, CallError, client_span
from services.guestbook.database import POOL_SIZE, Database, DatabaseUnavailableError, RefusedError
from services.guestbook.models import Changes, Entry, Message, now
from services.guestbook.pages import FOREIGN, Page, PageRequest, read_page
from services.guestbook.tables import SLOTS, add_slots, idempotency_key, message, message_count

KEYS_KEPT = timedelta(hours=24)
"""Time in which the same idempotency key gets the same answer."""

TURN_TIMEOUT = 3.0  # Seconds a request waits for its turn before it is told to come back.
TRY_AGAIN = 1.0  # Seconds between attempts to reach a database for maintenance.
EVERY = 60.0  # Seconds between two rounds of maintenance.
RECONCILE_EVERY = 10  # Rounds between two checks of the number of messages.

T = TypeVar("T")

logger = logging.getLogger(__name__)

_by_id = select(message).where(message.c.id == bindparam("id"))
_by_key = select(idempotency_key).where(idempotency_key.c.value == bindparam("key"))
_last_id = message_count.c.last_id
_count = (
    update(message_count)
    .where(message_count.c.slot == bindparam("at"))
    .values(
        total=message_count.c.total + bindparam("by"),
        last_id=case((_last_id < bindparam("id"), bindparam("id")), else_=_last_id),
    )
)


class Storage:
    """The messages in the database. Every method raises DatabaseUnavailableError."""

    def __init__(self, url: URL) -> None:
        self._database = Database(url)
        self._turns = asyncio.Semaphore(POOL_SIZE)
        self._threads = ThreadPoolExecutor(POOL_SIZE, "database")
        self._total: int | None = None
        """The total as of the last page."""
        self._attributes: Attributes = {
            "db.system.name": url.get_backend_name(),
            "db.namespace": url.database or "",
            "db.collection.name": message.name,
        }
        if url.host:
            self._attributes |= {"server.address": url.host, "server.port": url.port or 3306}

    def close(self) -> None:
        """Closes all connections."""
        self._database.close()

    async def probe(self) -> None:
        """Returns when the database answers, however busy the threads for requests are."""
        await to_thread.run_sync(self._database.probe, abandon_on_cancel=True)

    async def page(self, request: PageRequest) -> Page:
        """Returns a page of messages, and their number."""

        def read(connection: Connection) -> Page:
            return read_page(connection, request, self._total)

        def work() -> Page:
            page = self._database.read(read)
            expected = max(0, min(request.size, page.total - request.offset))
            if page.foreign or len(page.messages) != expected:
                with suppress(DatabaseUnavailableError):  # The page is there all the same.
                    self._database.maintain(_reconcile)
                    page = self._database.read(read)
            self._total = page.total
            return page

        return await self._ask("SELECT", work)

    async def get(self, message_id: int) -> Message | None:
        """Returns a message by its id."""
        read = partial(_get, message_id=message_id)
        return await self._ask("SELECT", lambda: self._database.read(read))

    async def add(self, entry: Entry, key: str | None = None) -> tuple[Message, bool]:
        """Stores a message. The flag says that an earlier request with the same key had stored it.

        Raises RefusedError for a key that came before with another message.
        """
        # A message without a key gets one of its own: when the connection breaks at the commit,
        # the next attempt learns by it whether the message was stored.
        value = key or f"own {uuid4()}"  # No client's key has a space.
        fingerprint = entry.fingerprint()
        new = {**entry.model_dump(), "timestamp": entry.timestamp or now()}

        def work(connection: Connection, uncertain: bool) -> tuple[Message, bool]:
            if key or uncertain:
                row = connection.execute(_by_key, {"key": value}).first()
                if row is not None and row.fingerprint != fingerprint:
                    reason = "This Idempotency-Key came before with another message; use a new key."
                    raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, reason)
                if row is not None:
                    first = {**new, "timestamp": row.timestamp}
                    return Message(row.message_id, **first), key is not None
            # Rows of somebody else that are not counted yet must stay the last ones.
            foreign = bool(connection.execute(select(FOREIGN)).scalar_one())
            stored = Message(connection.execute(insert(message), new).lastrowid, **new)
            known = {"value": value, "fingerprint": fingerprint, "message_id": stored.id}
            times = {"timestamp": stored.timestamp, "created": func.now()}
            connection.execute(insert(idempotency_key).values(known | times))
            _add_to_count(connection, 1, stored.id, last_id=0 if foreign else stored.id)
            return stored, False

        return await self._ask("INSERT", lambda: self._database.write(work))

    async def change(
        self, message_id: int, changes: Changes, tags: Iterable[str] | None
    ) -> Message | None:
        """Changes the given fields of a message; returns None when there is none.

        Raises RefusedError where `tags` do not name its current state.
        """
        values = changes.model_dump(exclude_unset=True, exclude_none=True)

        def work(connection: Connection, uncertain: bool) -> Message | None:
            stored = _get(connection, message_id, for_update=True)
            if stored is None:
                return None
            wanted = stored._replace(**values)
            # Where the connection broke at the commit, the message may be changed already.
            if wanted != stored or not uncertain:
                _check(stored, tags)
            if wanted != stored:
                changed = update(message).where(message.c.id == message_id)
                connection.execute(changed.values(values))
            return wanted

        return await self._ask("UPDATE", lambda: self._database.write(work))

    async def delete(self, message_id: int, tags: Iterable[str] | None) -> bool:
        """Deletes a message; returns False when there is none. Raises as `change` does."""

        def work(connection: Connection, uncertain: bool) -> bool:
            stored = _get(connection, message_id, for_update=True)
            if stored is None:
                # Where the connection broke at the commit, it may be gone already.
                return uncertain
            _check(stored, tags)
            connection.execute(delete(message).where(message.c.id == message_id))
            _add_to_count(connection, -1, message_id)
            return True

        return await self._ask("DELETE", lambda: self._database.write(work))

    async def maintain(self) -> None:
        """Forgets old idempotency keys and checks the number of messages, again and again."""
        rounds = 0
        while True:
            pause = TRY_AGAIN
            with suppress(DatabaseUnavailableError):
                work = partial(self._maintain, reconcile=rounds % RECONCILE_EVERY == 0)
                await to_thread.run_sync(work, abandon_on_cancel=True)
                rounds += 1
                pause = EVERY
            await asyncio.sleep(pause)

    def _maintain(self, *, reconcile: bool) -> None:
        while self._database.write(_forget_keys):
            pass
        if reconcile and (off := self._database.maintain(_reconcile)):
            logger.info("The number of messages was off by %d", off)

    async def _ask(self, operation: str, question: Callable[[], T]) -> T:
        """Runs a question in a thread, with its span and its metric.

        There are as many threads as connections, and the wait for one ends, so that a database
        that hangs does not gather ever more requests.
        """
        outcome = "error"
        try:
            async with turn(self._turns, "all connections are busy"):
                attributes = {**self._attributes, "db.operation.name": operation}
                with client_span(f"{operation} {message.name}", attributes):
                    run = copy_context().run
                    loop = asyncio.get_running_loop()
                    answer = await loop.run_in_executor(self._threads, run, question)
            outcome = "ok"
            return answer
        except CallError as error:
            outcome = error.error_type
            raise
        finally:
            backend_counter("database", outcome).inc()


@asynccontextmanager
async def turn(turns: asyncio.Semaphore, busy: str) -> AsyncIterator[None]:
    """Waits for a turn, but not for long: DatabaseUnavailableError with the reason `busy`."""
    try:
        async with asyncio.timeout(TURN_TIMEOUT):
            await turns.acquire()
    except TimeoutError:
        raise DatabaseUnavailableError(busy, "timeout") from None
    try:
        yield
    finally:
        turns.release()


def _get(connection: Connection, message_id: int, *, for_update: bool = False) -> Message | None:
    statement = _by_id.with_for_update() if for_update else _by_id
    row = connection.execute(statement, {"id": message_id}).first()
    return None if row is None else Message(*row)


def _check(stored: Message, tags: Iterable[str] | None) -> None:
    if tags is not None and not {"*", stored.etag()} & set(tags):
        reason = "The message is not in the state that If-Match names; get it again."
        raise RefusedError(HTTPStatus.PRECONDITION_FAILED, reason)


def _add_to_count(connection: Connection, by: int, message_id: int, last_id: int = 0) -> None:
    """Counts a message that this transaction adds (1) or deletes (-1).

    `COUNT(*)` costs InnoDB a walk over the table. The sum of a few rows, the slots, is the number
    of messages: exact on every replica, and undone with the transaction. Several slots, so that
    posts do not wait for each other's commit. A row beyond the largest `last_id` is somebody
    else's (see FOREIGN).
    """
    connection.execute(_count, {"at": message_id % SLOTS, "by": by, "id": last_id})


def _reconcile(connection: Connection) -> int:
    """Brings the count in line with the table; returns by how much it was off.

    It is off when somebody else wrote to the table. The correction is a difference, seen in one
    state of the data, so it stays right whatever others add to the other slots meanwhile; the lock
    on one slot keeps two corrections apart.
    """
    add_slots(connection)
    first = select(message_count.c.slot).where(message_count.c.slot == 0)
    connection.execute(first.with_for_update())
    counted = select(func.count()).select_from(message).scalar_subquery()
    total = select(func.sum(message_count.c.total)).scalar_subquery()
    last = select(func.coalesce(func.max(message.c.id), 0)).scalar_subquery()
    difference, last_id = connection.execute(select(counted - total, last)).one()
    connection.execute(_count, {"at": 0, "by": int(difference), "id": int(last_id)})
    return int(difference)


def _forget_keys(connection: Connection, _uncertain: bool) -> int:
    """Forgets keys that are past their time by the database's clock, a thousand at the most."""
    before = connection.execute(select(func.now())).scalar_one() - KEYS_KEPT
    value = idempotency_key.c.value
    expired = select(value).where(idempotency_key.c.created < before).limit(1000)
    if values := connection.scalars(expired).all():
        connection.execute(delete(idempotency_key).where(value.in_(values)))
    return len(values)
