"""Messages in the database: what is answered as stored is there, once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any, TypeVar
from uuid import uuid4

from sqlalchemy import URL, Connection, bindparam, delete, insert, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from services.guestbook import counter, database, pages, timestamps
from services.guestbook.database import Failure
from services.guestbook.entry import Entry
from services.guestbook.hal import Message
from services.guestbook.paging import PageRequest
from services.guestbook.tables import idempotency_key, message
from services.guestbook.upkeep import NotPreparedError, Upkeep

CONNECTIONS = 10
"""Connections to read with, and as many to write with."""

_ATTEMPTS = 5
_TRY_AGAIN_WITHIN = 1.0
"""Seconds after which a failure is answered and not tried again: somebody is waiting."""

_by_key = select(idempotency_key).where(idempotency_key.c.value == bindparam("key"))

T = TypeVar("T")

logger = logging.getLogger(__name__)


class DatabaseUnavailableError(Exception):
    """The database does not do its work now. The text says why."""


class DataRefusedError(Exception):
    """The database takes no such data. The text says why."""


class KeyReusedError(Exception):
    """The idempotency key came before, with another message."""


@dataclass(frozen=True, slots=True)
class Added:
    message: Message
    replayed: bool
    """Whether an earlier request with the same key had stored it."""


class Storage:
    """The messages. Its methods block, so they belong in threads; every one of them raises
    DatabaseUnavailableError."""

    def __init__(self, url: URL) -> None:
        # It writes a stack trace for each connection that breaks; we say once that they do.
        logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
        self._reading = database.reading_engine(url, CONNECTIONS)
        self._writing = database.writing_engine(url, CONNECTIONS)
        self._probing = database.probing_engine(url)
        self._upkeep = Upkeep(url)
        self._available: bool | None = None

    def close(self) -> None:
        """Close all connections."""
        for closable in (self._reading, self._writing):
            closable.dispose()
        self._upkeep.close()

    def probe(self) -> None:
        """Ask the database for a sign of life, on a connection of its own."""

        def select_1(_uncertain: bool) -> None:
            with self._probing.connect() as connection:
                connection.exec_driver_sql("SELECT 1")

        self._attempt(select_1)

    def keep_up(self, *, reconcile: bool) -> None:
        """Forget old keys, and check the count against the table."""

        def work(_uncertain: bool) -> None:
            self._upkeep.expire_keys()
            if reconcile and (difference := self._upkeep.reconcile()):
                logger.info("The count of messages was off by %d", difference)

        self._attempt(work)

    def page(self, request: PageRequest) -> tuple[list[Message], int]:
        """The messages of a page, and how many there are in all."""
        messages, total = self._read(lambda connection: pages.page(connection, request))
        if len(messages) != max(0, min(request.size, total - request.offset)):
            # Somebody wrote to the table by hand.
            self._attempt(lambda _uncertain: self._upkeep.reconcile())
            messages, total = self._read(lambda connection: pages.page(connection, request))
        return messages, total

    def get(self, message_id: int) -> Message | None:
        """A message by its id."""
        return self._read(lambda connection: pages.one(connection, message_id))

    def add(self, entry: Entry, key: str | None = None) -> Added:
        """Store a message, or find the one stored for the same key; raises KeyReusedError.

        A message without a key gets one of its own: when the connection breaks at the commit, the
        next attempt learns by it whether the message was stored.
        """
        value = key or f"own {uuid4()}"  # No client's key has a space.
        fingerprint = entry.fingerprint()
        timestamp = entry.timestamp or timestamps.now()

        def work(connection: Connection, uncertain: bool) -> Added:
            if key or uncertain:
                row = connection.execute(_by_key, {"key": value}).first()
                if row is not None and row.fingerprint != fingerprint:
                    raise KeyReusedError
                if row is not None:
                    stored = Message(row.message_id, entry.username, entry.message, row.timestamp)
                    return Added(stored, replayed=key is not None)
            values = {"username": entry.username, "message": entry.message, "timestamp": timestamp}
            message_id = _only(connection.execute(insert(message), values).inserted_primary_key)
            connection.execute(
                insert(idempotency_key),
                {
                    "value": value,
                    "fingerprint": fingerprint,
                    "message_id": message_id,
                    "timestamp": timestamp,
                    "created": timestamps.now(),
                },
            )
            counter.add(connection, message_id, 1)
            stored = Message(message_id, entry.username, entry.message, timestamp)
            return Added(stored, replayed=False)

        return self._write(work)

    def change(self, message_id: int, values: Mapping[str, Any]) -> Message | None:
        """Give a message other values; None when there is no such message."""

        def work(connection: Connection, _uncertain: bool) -> Message | None:
            if values:
                changed = update(message).where(message.c.id == message_id)
                connection.execute(changed.values(dict(values)))
            return pages.one(connection, message_id)

        return self._write(work)

    def delete(self, message_id: int) -> bool:
        """Delete a message; False when there is none."""

        def work(connection: Connection, uncertain: bool) -> bool:
            found = connection.execute(delete(message).where(message.c.id == message_id)).rowcount
            if found:
                counter.add(connection, message_id, -1)
            # Where the connection broke at the commit, it may be gone already.
            return bool(found) or uncertain

        return self._write(work)

    def _read(self, work: Callable[[Connection], T]) -> T:
        def read(_uncertain: bool) -> T:
            with self._reading.connect() as connection:
                return work(connection)

        return self._attempt(read)

    def _write(self, work: Callable[[Connection, bool], T]) -> T:
        def write(uncertain: bool) -> T:
            with self._writing.begin() as connection:
                return work(connection, uncertain)

        return self._attempt(write)

    def _attempt(self, work: Callable[[bool], T]) -> T:
        """Do it, and where trying again helps, again; `work` is told when the outcome of an
        earlier attempt is not known."""
        started = monotonic()
        uncertain = False
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self._upkeep.ensure_tables()
                result = work(uncertain)
            except NotPreparedError:
                raise DatabaseUnavailableError("the tables are being made") from None
            except PoolTimeout:
                raise DatabaseUnavailableError("all connections are busy") from None
            except DBAPIError as error:
                match failure := database.failure(error):
                    case Failure.REFUSED:
                        raise DataRefusedError(database.reason(error)) from None
                    case Failure.LOST:
                        uncertain = True
                    case Failure.NO_TABLE:
                        self._upkeep.forget_tables()
                late = monotonic() - started > _TRY_AGAIN_WITHIN
                if failure is Failure.OTHER or attempt == _ATTEMPTS or late:
                    raise self._unavailable(database.reason(error)) from None
            else:
                if not self._available:
                    self._available = True
                    logger.info("The database is available")
                return result
        raise AssertionError("unreachable")

    def _unavailable(self, reason: str) -> DatabaseUnavailableError:
        if self._available is not False:
            self._available = False
            logger.warning("The database is unavailable: %s", reason)
        return DatabaseUnavailableError(reason)


def _only(key: Any) -> int:
    return int(key[0])
