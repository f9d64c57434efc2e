"""Connections to the database: bounded in number and time, and tried again where that helps."""

import logging
import sqlite3
import ssl
import threading
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from http import HTTPStatus
from time import monotonic
from typing import Any, Literal, TypeVar

import pymysql
from pymysql.constants import FIELD_TYPE
from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event
from sqlalchemy.exc import DBAPIError, DisconnectionError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from services.common.outage import Outage
from services.common.telemetry import CallError
from services.guestbook.tables import PEOPLE, TablesNotReadyError, prepare_tables

POOL_SIZE = 10
"""Connections for requests."""
MAINTENANCE_CONNECTIONS = 1
"""Connections beside them: for the tables, and to count the messages."""

# Seconds:
CONNECT_TIMEOUT = 2
STATEMENT_TIMEOUT = 2.5  # The server ends a statement, also when its client has left.
ANSWER_TIMEOUT = 3  # For each read or write of a connection, to notice a server that hangs.
MAINTENANCE_TIMEOUT = 300  # The same for statements that take as long as the table is large.
LOCK_TIMEOUT = 2  # For a row that another transaction holds.
IDLE_BEFORE_PING = 1  # A pooled connection is tried before it is used.
RECYCLE = 1800  # A connection is replaced before Envoy drops it, which is after an hour.
PREPARING = 0.6  # A probe waits so long for the tables, and gets its answer in 0.8.
TRY_AGAIN_WITHIN = 1.0  # A failure after that is answered: somebody is waiting.
ATTEMPTS = 5

# Error codes of MySQL and MariaDB:
_NO_TABLE = {1054, 1146}  # The database is a new one, or (unknown column) one of earlier.
_READ_ONLY = {1290, 1792, 1836}  # Another server may have taken over.
_IN_THE_WAY = {1213, 1317}  # A deadlock; a statement that was killed.
_KILLED = 1927  # MariaDB: the connection was.
_REFUSED = {1366, 1406}  # The data is at fault: not in the character set; too long.

T = TypeVar("T")

logger = logging.getLogger(__name__)


class DatabaseUnavailableError(CallError):
    """The database is unavailable; the text is the reason."""


class RefusedError(CallError):
    """The data in the database, or its form, refuses a request; has the status of the answer."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason, "refused")
        self.status = status


class Database:
    """The connections of this process. Its methods block, so they belong in threads.

    All raise DatabaseUnavailableError.
    """

    def __init__(self, url: URL) -> None:
        # It writes a stack trace for each connection that breaks; `_outages` log the change.
        logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
        self._requests = _engine(
            url,
            ANSWER_TIMEOUT,
            STATEMENT_TIMEOUT,
            pool_size=POOL_SIZE,
            max_overflow=0,
            pool_timeout=ANSWER_TIMEOUT,
            pool_recycle=RECYCLE,
            pool_use_lifo=True,
            pool_reset_on_return=None,
        )
        event.listen(self._requests, "checkin", _note_use)
        event.listen(self._requests, "checkout", self._ping_when_idle)
        self._maintenance = _engine(url, MAINTENANCE_TIMEOUT, 0, poolclass=NullPool)
        for engine in (self._requests, self._maintenance):
            event.listen(engine, "after_cursor_execute", _note_write)
        self._maintaining = threading.Lock()
        self._prepared = False
        self._answered = float("-inf")
        takes = "The database takes"
        self._outages = {
            kind: Outage(logger, f"{takes} no {kind}", f"{takes} {kind} again")
            for kind in ("reads", "writes")
        }
        usable = ("The tables cannot be used", "The tables can be used again")
        self._outages["tables"] = Outage(logger, *usable)

    def close(self) -> None:
        """Closes all connections."""
        self._requests.dispose()

    def probe(self) -> None:
        """Returns when the database answers requests: one just now, else a statement.

        The first probe comes while the tables are being prepared, the next one a period later.
        """
        if not self._prepared and self._maintaining.acquire(timeout=PREPARING):
            self._maintaining.release()
        if monotonic() - self._answered > IDLE_BEFORE_PING:
            self.read(lambda connection: connection.exec_driver_sql("SELECT 1"))

    def read(self, work: Callable[[Connection], T]) -> T:
        """Runs statements that change nothing, each on its own state of the data."""
        return self._attempt("reads", self._requests.connect, lambda c, _: work(c))

    def write(self, work: Callable[[Connection, bool], T]) -> T:
        """Runs a transaction; the flag says that the outcome of an earlier attempt is not known.

        It also raises RefusedError.
        """
        return self._attempt("writes", lambda: _transaction(self._requests), work)

    def maintain(self, work: Callable[[Connection], T]) -> T:
        """Runs a transaction that may take long; one at a time."""
        return self._attempt("writes", self._maintenance_transaction, lambda c, _: work(c))

    def _attempt(
        self,
        kind: Literal["reads", "writes"],
        connect: Callable[[], AbstractContextManager[Connection]],
        work: Callable[[Connection, bool], T],
    ) -> T:
        """Does the work, again where that helps."""
        started, attempts, uncertain = monotonic(), 0, False
        while True:
            attempts += 1
            try:
                self._prepare()
                with connect() as connection:
                    result = work(connection, uncertain)
                    changed = connection.info.get("wrote")
            except TablesNotReadyError as error:
                raise self._unavailable("tables", str(error)) from None
            except PoolTimeout:
                raise self._unavailable(kind, "all connections are busy") from None
            except DBAPIError as error:
                code = _code(error)
                if code in _REFUSED:
                    reason = f"The database refuses this: {_reason(error)}"
                    raise RefusedError(HTTPStatus.BAD_REQUEST, reason) from None
                lost = error.connection_invalidated or code == _KILLED
                uncertain = uncertain or lost
                if code in _NO_TABLE:
                    self._prepared = False
                if code in _READ_ONLY:
                    self._requests.dispose()  # New connections may reach another server.
                again = lost or code in _NO_TABLE | _READ_ONLY | _IN_THE_WAY
                again = again or isinstance(error, IntegrityError)  # The same key came meanwhile.
                late = monotonic() - started > TRY_AGAIN_WITHIN
                if not again or late or attempts == ATTEMPTS:
                    raise self._unavailable(kind, _reason(error)) from None
            else:
                self._answered = monotonic()
                if kind == "reads" or changed:  # A read-only server takes empty transactions.
                    self._outages[kind].works()
                return result

    def _unavailable(self, kind: str, reason: str) -> DatabaseUnavailableError:
        # Another reason not to use the tables may be another statement to run.
        self._outages[kind].fails(reason, each=kind == "tables")
        return DatabaseUnavailableError(reason)

    def _prepare(self) -> None:
        if self._prepared:
            return
        if not self._maintaining.acquire(blocking=False):
            raise DatabaseUnavailableError("the tables are being prepared")
        try:
            with _transaction(self._maintenance) as connection:
                prepare_tables(connection)
            self._prepared = True
            self._outages["tables"].works()
        finally:
            self._maintaining.release()

    @contextmanager
    def _maintenance_transaction(self) -> Iterator[Connection]:
        with self._maintaining, _transaction(self._maintenance) as connection:
            yield connection

    def _ping_when_idle(self, connection: Any, record: Any, _proxy: Any) -> None:
        """Does `pool_pre_ping`, but without its round trip for a connection used a moment ago."""
        if monotonic() - record.info.get("used", monotonic()) < IDLE_BEFORE_PING:
            return
        try:
            self._requests.dialect.do_ping(connection)
        except Exception as error:
            raise DisconnectionError from error


def _note_write(
    connection: Connection, _cursor: Any, _text: str, _values: Any, context: Any, _many: bool
) -> None:
    if context.isinsert or context.isupdate or context.isdelete:
        connection.info["wrote"] = True


def _note_use(_connection: Any, record: Any) -> None:
    record.info["used"] = monotonic()


@contextmanager
def _transaction(engine: Engine) -> Iterator[Connection]:
    """Begins and commits by statements: connections commit by themselves otherwise.

    So a read needs no rollback, which would be one more round trip.
    """
    with engine.connect() as connection:
        # SQLite: the write lock is taken at once; taking it later can fail in the middle.
        sqlite = engine.dialect.name == "sqlite"
        connection.exec_driver_sql("BEGIN IMMEDIATE" if sqlite else "BEGIN")
        connection.info["wrote"] = False
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
    options |= {"isolation_level": "AUTOCOMMIT", "skip_autocommit_rollback": True}
    if url.get_backend_name() == "sqlite":
        arguments: dict[str, Any] = {"timeout": LOCK_TIMEOUT, "isolation_level": None}
        engine = create_engine(url, connect_args=arguments, **options)
        event.listen(engine, "connect", _set_up_sqlite)
        return engine
    # The conversion of a table must not fail for its zero dates, which other modes allow.
    mode = "CONCAT(@@sql_mode, ',STRICT_TRANS_TABLES')" if statement_timeout else "''"
    # For MySQL (`/*!`) and for MariaDB (`/*M!`). READ COMMITTED locks no gaps between rows, over
    # which posts would wait for each other.
    session = (
        "SET SESSION time_zone='+00:00', "
        f"sql_mode={mode}, "
        "/*!80000 transaction_isolation='READ-COMMITTED', "
        f"max_execution_time={int(statement_timeout * 1000)}, */"
        f"/*M! tx_isolation='READ-COMMITTED', max_statement_time={statement_timeout}, */"
        f"innodb_lock_wait_timeout={LOCK_TIMEOUT}"
    )
    arguments = {
        "charset": "utf8mb4",
        "connect_timeout": CONNECT_TIMEOUT,
        "read_timeout": answer_timeout,
        "write_timeout": answer_timeout,
        "init_command": session,
        "conv": {**pymysql.converters.conversions, FIELD_TYPE.DATETIME: _datetime},
    }
    engine = create_engine(url, connect_args=arguments, **options)
    event.listen(engine, "do_connect", lambda _dialect, _record, _args, kw: _Connection(**kw))
    return engine


def _datetime(text: str) -> datetime | None:
    """Returns a time; None for MySQL's zero date, which PyMySQL leaves as text."""
    moment = pymysql.converters.convert_datetime(text)
    return moment if isinstance(moment, datetime) else None


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


def _code(error: DBAPIError) -> int:
    """Returns MySQL's code of an error, 0 without one. SQLite has words for a missing table."""
    code = error.orig.args[0] if error.orig is not None and error.orig.args else 0
    if isinstance(code, int):
        return code
    missing = ("no such table", "no such column", "has no column")
    return 1146 if any(words in str(code) for words in missing) else 0


def _reason(error: DBAPIError) -> str:
    """Returns an error of the database in one line, without the statement and its data."""
    cause = error.orig if error.orig is not None else error
    if len(cause.args) == 2 and isinstance(cause.args[0], int):
        return f"{cause.args[1]} ({cause.args[0]})"
    return str(cause).partition("\n")[0] or type(cause).__name__
