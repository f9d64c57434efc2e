"""Keeps the tables: makes them, brings the count in line, forgets old idempotency keys."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import cast

from sqlalchemy import URL, Connection, bindparam, delete, func, select

from services.guestbook import counter, database, timestamps
from services.guestbook.tables import idempotency_key, message_count, metadata

KEYS_KEPT = timedelta(hours=24)
"""How long the same idempotency key gets the same answer."""

_BATCH = 1000
_LOCK = "guestbook-tables"

_old = (
    select(idempotency_key.c.value)
    .where(idempotency_key.c.created < bindparam("before"))
    .limit(_BATCH)
)
_forget = delete(idempotency_key).where(
    idempotency_key.c.value.in_(bindparam("values", expanding=True))
)


class NotPreparedError(Exception):
    """The tables are being made by somebody else."""


class Upkeep:
    """The state of the tables, as far as this process knows."""

    def __init__(self, url: URL) -> None:
        self._quick = database.writing_engine(url, 1)
        self._patient = database.patient_engine(url)
        self._making = threading.Lock()
        self._ready = False

    def close(self) -> None:
        self._quick.dispose()

    def ensure_tables(self) -> None:
        """Make what is missing, once; replicas that start together take turns."""
        if self._ready:
            return
        if not self._making.acquire(blocking=False):
            raise NotPreparedError
        try:
            with self._quick.begin() as connection:
                _make_tables(connection)
                counted = connection.execute(select(func.count()).select_from(message_count))
                known = counted.scalar_one() > 0
            if not known:
                self.reconcile()
            self._ready = True
        finally:
            self._making.release()

    def forget_tables(self) -> None:
        """They are gone, as when the database is a new one: make them again before the next use."""
        self._ready = False

    def reconcile(self) -> int:
        """Bring the count in line with the table; answers by how much it was off."""
        with self._patient.begin() as connection:
            return counter.reconcile(connection)

    def expire_keys(self) -> None:
        """Forget idempotency keys that are past their time, a small transaction at a time."""
        before = timestamps.now() - KEYS_KEPT
        while True:
            with self._quick.begin() as connection:
                values = connection.execute(_old, {"before": before}).scalars().all()
                if values:
                    connection.execute(_forget, {"values": values})
            if len(values) < _BATCH:
                return


def _make_tables(connection: Connection) -> None:
    # SQLite's write lock, taken when the transaction began, does the same.
    lock = connection.dialect.name != "sqlite"
    if lock and not _ask(connection, "SELECT GET_LOCK(%s, 2)"):
        raise NotPreparedError
    try:
        metadata.create_all(connection)
    finally:
        if lock:
            _ask(connection, "SELECT RELEASE_LOCK(%s)")


def _ask(connection: Connection, statement: str) -> int | None:
    return cast(int | None, connection.exec_driver_sql(statement, (_LOCK,)).scalar_one())
