"""Connections that never keep a request for long, and what their errors mean."""

from __future__ import annotations

import sqlite3
import ssl
from collections.abc import Mapping
from enum import Enum, auto
from time import monotonic
from typing import Any

import pymysql
from sqlalchemy import URL, Engine, NullPool, create_engine, event
from sqlalchemy.exc import DBAPIError, DisconnectionError, IntegrityError

CONNECT_TIMEOUT = 2
"""Seconds to connect to MySQL."""
ANSWER_TIMEOUT = 3
"""Seconds for each read from, or write to, a connection; a hung server is noticed after them."""
LOCK_TIMEOUT = 2
"""Seconds to wait for a row that another transaction holds."""
IDLE_BEFORE_PING = 1
"""Seconds after which a pooled connection is tried before it is used."""
RECYCLE = 1800
"""Seconds after which a connection is replaced: below the hour after which Envoy drops it."""

_INIT_COMMAND = (
    "SET SESSION time_zone='+00:00', "
    "sql_mode=CONCAT(@@sql_mode, ',STRICT_TRANS_TABLES'), "
    f"innodb_lock_wait_timeout={LOCK_TIMEOUT}"
)


def reading_engine(url: URL, size: int) -> Engine:
    """For single statements: each sees one state of the data and needs no transaction."""
    return _engine(
        url,
        size,
        isolation_level="AUTOCOMMIT",
        # There is nothing to roll back, and asking for it is a round trip.
        skip_autocommit_rollback=True,
        pool_reset_on_return=None,
    )


def writing_engine(url: URL, size: int) -> Engine:
    """For transactions."""
    engine = _engine(url, size)
    _begin_immediate(engine)
    return engine


def probing_engine(url: URL) -> Engine:
    """For readiness: a connection of its own each time, so that it proves connecting works."""
    return _engine(url, 0, answer_timeout=1, isolation_level="AUTOCOMMIT")


def patient_engine(url: URL) -> Engine:
    """For upkeep, whose statements may take as long as the table is large."""
    engine = _engine(url, 0, answer_timeout=300)
    _begin_immediate(engine)
    return engine


def _engine(url: URL, size: int, *, answer_timeout: int = ANSWER_TIMEOUT, **options: Any) -> Engine:
    if size:
        options |= {
            "pool_size": size,
            "max_overflow": 0,
            "pool_timeout": ANSWER_TIMEOUT,
            "pool_recycle": RECYCLE,
            "pool_use_lifo": True,
        }
    else:
        options |= {"poolclass": NullPool}
    if url.get_backend_name() == "sqlite":
        options["connect_args"] = {"timeout": LOCK_TIMEOUT, "isolation_level": None}
    else:
        # READ COMMITTED locks no gaps between rows, over which posts would wait for each other.
        options.setdefault("isolation_level", "READ COMMITTED")
        options["connect_args"] = {
            "charset": "utf8mb4",
            "connect_timeout": CONNECT_TIMEOUT,
            "read_timeout": answer_timeout,
            "write_timeout": answer_timeout,
            "init_command": _INIT_COMMAND,
        }
    engine = create_engine(url, **options)
    if url.get_backend_name() == "sqlite":
        event.listen(engine, "connect", _write_ahead)
    else:
        event.listen(engine, "do_connect", lambda _dialect, _record, _args, kw: _Connection(**kw))
        if size:
            event.listen(engine, "checkin", _note_use)
            event.listen(engine, "checkout", _ping_when_idle)
    return engine


class _Connection(pymysql.Connection):
    """PyMySQL's connection, which prefers TLS, without reading the system's certificates for it.

    It uses none of them when the URL names no authority, but reads all for each connection: 30 ms,
    ten times the rest of connecting.
    """

    def _create_ssl_ctx(self, sslp: Mapping[str, Any]) -> ssl.SSLContext:
        if sslp:
            own: ssl.SSLContext = super()._create_ssl_ctx(sslp)  # type: ignore[misc]
            return own
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context


def _write_ahead(connection: sqlite3.Connection, _record: Any) -> None:
    connection.execute("PRAGMA journal_mode=WAL")


def _begin_immediate(engine: Engine) -> None:
    """SQLite: take the write lock at once; taking it later can fail in the middle."""
    if engine.dialect.name == "sqlite":
        event.listen(
            engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE")
        )


def _note_use(_connection: Any, record: Any) -> None:
    record.info["used"] = monotonic()


def _ping_when_idle(connection: Any, record: Any, _proxy: Any) -> None:
    """`pool_pre_ping`, but without its round trip for a connection used a moment ago."""
    if monotonic() - record.info.get("used", monotonic()) < IDLE_BEFORE_PING:
        return
    try:
        connection.ping(reconnect=False)
    except Exception as error:
        raise DisconnectionError from error


class Failure(Enum):
    """What to do about an error of the database."""

    CONFLICT = auto()
    """Another transaction was in the way: try again."""
    LOST = auto()
    """The connection broke: try again on a new one."""
    NO_TABLE = auto()
    """The database is a new one: make the tables and try again."""
    REFUSED = auto()
    """The data is at fault: never try again."""
    OTHER = auto()


_CODES = {
    1213: Failure.CONFLICT,  # deadlock
    1146: Failure.NO_TABLE,
    1406: Failure.REFUSED,  # too long, in a table the original made
    1366: Failure.REFUSED,  # not in the character set of such a table
}


def failure(error: DBAPIError) -> Failure:
    """Sort an error of the database by what helps against it."""
    if error.connection_invalidated:
        return Failure.LOST
    if isinstance(error, IntegrityError):
        return Failure.CONFLICT
    if isinstance(error.orig, sqlite3.Error):
        return Failure.NO_TABLE if "no such table" in str(error.orig) else Failure.OTHER
    code = error.orig.args[0] if error.orig is not None and error.orig.args else None
    return _CODES.get(code, Failure.OTHER) if isinstance(code, int) else Failure.OTHER


def reason(error: Exception) -> str:
    """An error of the database in one line, without the statement and its data."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    if isinstance(cause.args, tuple) and len(cause.args) == 2 and isinstance(cause.args[0], int):
        return f"{cause.args[1]} ({cause.args[0]})"
    return str(cause).partition("\n")[0] or type(cause).__name__
