"""Stores messages; a post with an Idempotency-Key is stored once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar
from uuid import uuid4

from anyio import CapacityLimiter, to_thread
from sqlalchemy import URL, Connection, bindparam, case, delete, func, insert, select, update

from services.common.metrics import backend_counter
from services.common.telemetry import Attributes, client_span
from services.guestbook.database import (
    POOL_SIZE,
    Database,
    DatabaseUnavailableError,
    DataRefusedError,
)
from services.guestbook.models import Entry, Message, now
from services.guestbook.pages import FOREIGN, Page, PageRequest, read_page
from services.guestbook.schema import add_slots
from services.guestbook.tables import SLOTS, idempotency_key, message, message_count

KEYS_KEPT = timedelta(hours=24)
"""Time in which the same idempotency key gets the same answer."""
TURN_TIMEOUT = 3.0
"""Seconds a request waits for one of the connections before it is told to come back."""

_BATCH = 1000
_message = select(message.c.id, message.c.username, message.c.message, message.c.timestamp).where(
    message.c.id == bindparam("id")
)
_by_key = select(idempotency_key).where(idempotency_key.c.value == bindparam("key"))
_count = (
    update(message_count)
    .where(message_count.c.slot == bindparam("at"))
    .values(
        total=message_count.c.total + bindparam("by"),
        last_id=case(
            (message_count.c.last_id < bindparam("id"), bindparam("id")),
            else_=message_count.c.last_id,
        ),
    )
)
_expired = (
    select(idempotency_key.c.value)
    .where(idempotency_key.c.created < bindparam("before"))
    .limit(_BATCH)
)
_forget = delete(idempotency_key).where(
    idempotency_key.c.value.in_(bindparam("values", expanding=True))
)

T = TypeVar("T")


class KeyReusedError(Exception):
    """The idempotency key came before, with another message."""


class PreconditionFailedError(Exception):
    """The message has another entity tag than the request named."""


@dataclass(frozen=True, slots=True)
class Added:
    """A stored message."""

    message: Message
    replayed: bool
    """Whether an earlier request with the same key had stored it."""


class Storage:
    """The messages in the database. Every method raises DatabaseUnavailableError."""

    def __init__(self, url: URL) -> None:
        self._database = Database(url)
        self._turns = asyncio.Semaphore(POOL_SIZE)
        self._threads = ThreadPoolExecutor(POOL_SIZE, "database")
        self._probing = CapacityLimiter(1)
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
        """Returns when the database answers; in a thread of its own, however busy the others."""
        await to_thread.run_sync(
            self._database.probe, limiter=self._probing, abandon_on_cancel=True
        )

    async def page(self, request: PageRequest) -> Page:
        """Returns a page of messages, and their number."""
        return await self._ask("SELECT", lambda: self._page(request))

    async def get(self, message_id: int) -> Message | None:
        """Returns a message by its id."""
        return await self._ask(
            "SELECT", lambda: self._database.read(lambda connection: _get(connection, message_id))
        )

    async def add(self, entry: Entry, key: str | None = None) -> Added:
        """Stores a message, or finds the one stored for the same key; raises KeyReusedError."""
        return await self._ask("INSERT", lambda: self._add(entry, key))

    async def change(
        self, message_id: int, values: Mapping[str, Any], tags: Iterable[str] | None
    ) -> Message | None:
        """Changes fields of a message; returns None when there is none.

        Raises PreconditionFailedError where `tags` do not name its current state.
        """

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
                connection.execute(changed.values(dict(values)))
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

    def maintain(self, *, reconcile: bool) -> int:
        """Forgets old idempotency keys; checks the number of messages, returns by how much it was
        off. Blocks."""
        while self._database.write(_forget_keys) == _BATCH:
            pass
        return self._database.maintain(_reconcile) if reconcile else 0

    def _page(self, request: PageRequest) -> Page:
        page = self._read(request)
        expected = max(0, min(request.size, page.total - request.offset))
        if page.foreign or len(page.messages) != expected:
            self._database.maintain(_reconcile)
            page = self._read(request)
        self._total = page.total
        return page

    def _read(self, request: PageRequest) -> Page:
        return self._database.read(lambda connection: read_page(connection, request, self._total))

    def _add(self, entry: Entry, key: str | None) -> Added:
        # A message without a key gets one of its own: when the connection breaks at the commit,
        # the next attempt learns by it whether the message was stored.
        value = key or f"own {uuid4()}"  # No client's key has a space.
        fingerprint = entry.fingerprint()
        timestamp = entry.timestamp or now()

        def work(connection: Connection, uncertain: bool) -> Added:
            if key or uncertain:
                row = connection.execute(_by_key, {"key": value}).first()
                if row is not None and row.fingerprint != fingerprint:
                    raise KeyReusedError
                if row is not None:
                    stored = Message(row.message_id, entry.username, entry.message, row.timestamp)
                    return Added(stored, replayed=key is not None)
            # Rows of somebody else that are not counted yet must stay the last ones.
            foreign = bool(connection.execute(select(FOREIGN)).scalar_one())
            values = {"username": entry.username, "message": entry.message, "timestamp": timestamp}
            message_id = _only(connection.execute(insert(message), values).inserted_primary_key)
            connection.execute(
                insert(idempotency_key).values(created=func.now()),
                {
                    "value": value,
                    "fingerprint": fingerprint,
                    "message_id": message_id,
                    "timestamp": timestamp,
                },
            )
            _add_to_count(connection, 1, message_id, last_id=0 if foreign else message_id)
            stored = Message(message_id, entry.username, entry.message, timestamp)
            return Added(stored, replayed=False)

        return self._database.write(work)

    async def _ask(self, operation: str, question: Callable[[], T]) -> T:
        """Runs a question in a thread, with its span and its metric.

        There are as many threads as connections, and the wait for one ends, so that a database
        that hangs does not gather ever more requests.
        """
        outcome = "error"
        try:
            async with asyncio.timeout(TURN_TIMEOUT):
                await self._turns.acquire()
        except TimeoutError:
            backend_counter("database", "timeout").inc()
            raise DatabaseUnavailableError("all connections are busy", "timeout") from None
        try:
            attributes = {**self._attributes, "db.operation.name": operation}
            with client_span(f"{operation} {message.name}", attributes):
                run = copy_context().run
                loop = asyncio.get_running_loop()
                answer = await loop.run_in_executor(self._threads, run, question)
                outcome = "ok"
                return answer
        except (DataRefusedError, KeyReusedError, PreconditionFailedError):
            outcome = "refused"
            raise
        except DatabaseUnavailableError as error:
            outcome = error.error_type
            raise
        finally:
            self._turns.release()
            backend_counter("database", outcome).inc()


def _get(connection: Connection, message_id: int, *, for_update: bool = False) -> Message | None:
    statement = _message.with_for_update() if for_update else _message
    row = connection.execute(statement, {"id": message_id}).first()
    return None if row is None else Message(*row)


def _check(stored: Message, tags: Iterable[str] | None) -> None:
    if tags is not None and not {"*", stored.etag()} & set(tags):
        raise PreconditionFailedError


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
    values = connection.execute(_expired, {"before": before}).scalars().all()
    if values:
        connection.execute(_forget, {"values": values})
    return len(values)


def _only(key: Any) -> int:
    return int(key[0])
