"""Connections to the database: bounded in number and time, and tried again where that helps."""

from __future__ import annotations

import logging
import sqlite3
import ssl
import threading
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum, auto
from time import monotonic
from typing import Any, Literal, TypeVar

import pymysql
from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event
from sqlalchemy.exc import DBAPIError, DisconnectionError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from services.common.outage import Outage
from services.common.telemetry import CallError
from services.guestbook.pages import PEOPLE
from services.guestbook.schema import TablesNotReadyError, prepare_tables

POOL_SIZE = 10
"""Connections for requests."""
MAINTENANCE_CONNECTIONS = 1
"""Connections beside them: for the tables, and to count the messages."""

CONNECT_TIMEOUT = 2
"""Seconds to connect to MySQL."""
STATEMENT_TIMEOUT = 2.5
"""Seconds after which the server ends a statement, also when its client has left."""
ANSWER_TIMEOUT = 3
"""Seconds for each read from, or write to, a connection; a hung server is noticed after them."""
MAINTENANCE_TIMEOUT = 300
"""The same for statements that take as long as the table is large."""
LOCK_TIMEOUT = 2
"""Seconds to wait for a row that another transaction holds."""
IDLE_BEFORE_PING = 1
"""Seconds after which a pooled connection is tried before it is used."""
RECYCLE = 1800
"""Seconds after which a connection is replaced: below the hour after which Envoy drops it."""

_ATTEMPTS = 5
_TRY_AGAIN_WITHIN = 1.0
"""Seconds after which a failure is answered and not tried again: somebody is waiting."""

T = TypeVar("T")

logger = logging.getLogger(__name__)


class DatabaseUnavailableError(CallError):
    """The database is unavailable; the text is the reason."""

    def __init__(self, reason: str, error_type: str = "unreachable") -> None:
        super().__init__(reason, error_type)


class DataRefusedError(Exception):
    """The database refuses the data; the text is the reason."""


class Database:
    """The connections of this process. Its methods block, so they belong in threads.

    All raise DatabaseUnavailableError.
    """

    def __init__(self, url: URL) -> None:
        # It writes a stack trace for each connection that breaks; `_outages` log the change.
        logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
        self._requests = _engine(url, ANSWER_TIMEOUT, STATEMENT_TIMEOUT, pool_size=POOL_SIZE)
        self._maintenance = _engine(url, MAINTENANCE_TIMEOUT, 0, poolclass=NullPool)
        self._maintaining = threading.Lock()
        self._prepared = False
        self._answered = float("-inf")
        self._outages = {
            kind: Outage(
                logger, f"The database takes no {kind}", f"The database takes {kind} again"
            )
            for kind in ("reads", "writes")
        }

    def close(self) -> None:
        """Closes all connections."""
        self._requests.dispose()

    def probe(self) -> None:
        """Returns when the database answers requests: one just now, else a statement."""
        if monotonic() - self._answered > IDLE_BEFORE_PING:
            self.read(lambda connection: connection.exec_driver_sql("SELECT 1"))

    def read(self, work: Callable[[Connection], T]) -> T:
        """Runs statements that change nothing, each on its own state of the data."""

        def read(_uncertain: bool) -> T:
            with self._requests.connect() as connection:
                return work(connection)

        return self._attempt("reads", read)

    def write(self, work: Callable[[Connection, bool], T]) -> T:
        """Runs a transaction; the flag says that the outcome of an earlier attempt is not known.

        It also raises DataRefusedError.
        """

        def write(uncertain: bool) -> T:
            with _transaction(self._requests) as connection:
                return work(connection, uncertain)

        return self._attempt("writes", write)

    def maintain(self, work: Callable[[Connection], T]) -> T:
        """Runs a transaction that may take long; one at a time."""

        def maintain(_uncertain: bool) -> T:
            with self._maintaining, _transaction(self._maintenance) as connection:
                return work(connection)

        return self._attempt("writes", maintain)

    def _attempt(self, kind: Literal["reads", "writes"], work: Callable[[bool], T]) -> T:
        """Does the work, again where that helps."""
        started = monotonic()
        uncertain = False
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self._prepare()
                result = work(uncertain)
            except (TablesNotReadyError, PoolTimeout) as error:
                reason = str(error) if isinstance(error, TablesNotReadyError) else "all are busy"
                raise self._unavailable(kind, reason) from None
            except DBAPIError as error:
                match failure := _failure(error):
                    case Failure.REFUSED:
                        raise DataRefusedError(_reason(error)) from None
                    case Failure.LOST:
                        uncertain = True
                    case Failure.NO_TABLE:
                        self._prepared = False
                    case Failure.READ_ONLY:
                        self._requests.dispose()  # New connections may reach another server.
                late = monotonic() - started > _TRY_AGAIN_WITHIN
                if failure is Failure.OTHER or attempt == _ATTEMPTS or late:
                    raise self._unavailable(kind, _reason(error)) from None
            else:
                self._answered = monotonic()
                self._outages[kind].works()
                return result
        raise AssertionError("unreachable")

    def _unavailable(self, kind: str, reason: str) -> DatabaseUnavailableError:
        self._outages[kind].fails(reason)
        return DatabaseUnavailableError(reason)

    def _prepare(self) -> None:
        if self._prepared:
            return
        if not self._maintaining.acquire(blocking=False):
            raise TablesNotReadyError("the tables are being prepared")
        try:
            with _transaction(self._maintenance) as connection:
                prepare_tables(connection)
            self._prepared = True
        finally:
            self._maintaining.release()


@contextmanager
def _transaction(engine: Engine) -> Iterator[Connection]:
    """Begins and commits by statements: connections commit by themselves otherwise.

    So a read needs no rollback, which would be one more round trip.
    """
    with engine.connect() as connection:
        # SQLite: the write lock is taken at once; taking it later can fail in the middle.
        sqlite = engine.dialect.name == "sqlite"
        connection.exec_driver_sql("BEGIN IMMEDIATE" if sqlite else "BEGIN")
        try:
            yield connection
            connection.exec_driver_sql("COMMIT")
        except BaseException:
            try:
                connection.exec_driver_sql("ROLLBACK")
            except Exception:
                connection.invalidate()
            raise


def _engine(url: URL, answer_timeout: int, statement_timeout: float, **options: Any) -> Engine:
    if "pool_size" in options:
        options |= {
            "max_overflow": 0,
            "pool_timeout": ANSWER_TIMEOUT,
            "pool_recycle": RECYCLE,
            "pool_use_lifo": True,
            "pool_reset_on_return": None,
        }
    if url.get_backend_name() == "sqlite":
        options["connect_args"] = {"timeout": LOCK_TIMEOUT, "isolation_level": None}
    else:
        options["connect_args"] = {
            "charset": "utf8mb4",
            "connect_timeout": CONNECT_TIMEOUT,
            "read_timeout": answer_timeout,
            "write_timeout": answer_timeout,
            "init_command": _session(statement_timeout),
        }
    engine = create_engine(
        url, isolation_level="AUTOCOMMIT", skip_autocommit_rollback=True, **options
    )
    if url.get_backend_name() == "sqlite":
        event.listen(engine, "connect", _set_up_sqlite)
    else:
        event.listen(engine, "do_connect", lambda _dialect, _record, _args, kw: _Connection(**kw))
        if "pool_size" in options:
            event.listen(engine, "checkin", _note_use)
            event.listen(engine, "checkout", _ping_when_idle)
    return engine


def _session(statement_timeout: float) -> str:
    """Returns the statement that sets up a session, of MySQL (`/*!`) or of MariaDB (`/*M!`).

    READ COMMITTED locks no gaps between rows, over which posts would wait for each other.
    """
    return (
        "SET SESSION time_zone='+00:00', "
        "sql_mode=CONCAT(@@sql_mode, ',STRICT_TRANS_TABLES'), "
        f"/*!80000 transaction_isolation='READ-COMMITTED', "
        f"max_execution_time={int(statement_timeout * 1000)}, */"
        f"/*M! tx_isolation='READ-COMMITTED', max_statement_time={statement_timeout}, */"
        f"innodb_lock_wait_timeout={LOCK_TIMEOUT}"
    )


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


def _set_up_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.create_collation(
        PEOPLE, lambda a, b: (_letters(a) > _letters(b)) - (_letters(a) < _letters(b))
    )


def _letters(name: str) -> str:
    """Returns a name without case and accents."""
    folded = unicodedata.normalize("NFKD", name.casefold())
    return "".join(c for c in folded if not unicodedata.combining(c))


def _note_use(_connection: Any, record: Any) -> None:
    record.info["used"] = monotonic()


def _ping_when_idle(connection: Any, record: Any, _proxy: Any) -> None:
    """Does `pool_pre_ping`, but without its round trip for a connection used a moment ago."""
    if monotonic() - record.info.get("used", monotonic()) < IDLE_BEFORE_PING:
        return
    try:
        connection.ping(reconnect=False)
    except Exception as error:
        raise DisconnectionError from error


class Failure(Enum):
    """The remedy for an error of the database."""

    CONFLICT = auto()
    """Another transaction or an operator was in the way: try again."""
    LOST = auto()
    """The connection broke: try again on a new one."""
    READ_ONLY = auto()
    """The server takes no writes any more: try again on a new connection."""
    NO_TABLE = auto()
    """The database is a new one: make the tables and try again."""
    REFUSED = auto()
    """The data is at fault: never try again."""
    OTHER = auto()


_CODES = {
    1054: Failure.NO_TABLE,  # unknown column: a table of an earlier version was restored
    1146: Failure.NO_TABLE,
    1213: Failure.CONFLICT,  # deadlock
    1290: Failure.READ_ONLY,  # --read-only
    1317: Failure.CONFLICT,  # the statement was killed
    1366: Failure.REFUSED,  # not in the character set
    1406: Failure.REFUSED,  # too long
    1792: Failure.READ_ONLY,  # a read-only transaction
    1836: Failure.READ_ONLY,  # a server in read-only mode
    1927: Failure.LOST,  # MariaDB: the connection was killed
}


def _failure(error: DBAPIError) -> Failure:
    if error.connection_invalidated:
        return Failure.LOST
    if isinstance(error, IntegrityError):
        return Failure.CONFLICT
    if isinstance(error.orig, sqlite3.Error):
        missing = ("no such table", "no such column", "has no column")
        found = any(words in str(error.orig) for words in missing)
        return Failure.NO_TABLE if found else Failure.OTHER
    code = error.orig.args[0] if error.orig is not None and error.orig.args else None
    return _CODES.get(code, Failure.OTHER) if isinstance(code, int) else Failure.OTHER


def _reason(error: DBAPIError) -> str:
    """Returns an error of the database in one line, without the statement and its data."""
    cause = error.orig if error.orig is not None else error
    if len(cause.args) == 2 and isinstance(cause.args[0], int):
        return f"{cause.args[1]} ({cause.args[0]})"
    return str(cause).partition("\n")[0] or type(cause).__name__
