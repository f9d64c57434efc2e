"""The tables, and the conversion of those of the Java original and of earlier versions.

The promises of the storage hold on InnoDB alone, with the columns below; Hibernate made `message`
as MyISAM, in Latin-1, with columns that are short and may be NULL.
"""

import logging
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateColumn, CreateIndex, CreateTable

from services.guestbook.models import MAX_MESSAGE, MAX_USERNAME

MAX_KEY = 255  # Characters of an idempotency key.
SLOTS = 16  # Rows of `message_count`.
PEOPLE = "people"  # SQLite's collation for names; each connection is given it.

_LOCK = "guestbook-tables"
_LOCK_SECONDS = 2

logger = logging.getLogger(__name__)

_metadata = sa.MetaData()
_big_id = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_milliseconds = sa.DateTime().with_variant(mysql.DATETIME(fsp=3), "mysql", "mariadb")
_digest = sa.LargeBinary(32).with_variant(mysql.BINARY(32), "mysql", "mariadb")
_options: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
}


def _text(length: int, collation: str) -> Any:
    charset = collation.partition("_")[0]
    on_mysql = mysql.VARCHAR(length, charset=charset, collation=collation)
    return sa.String(length).with_variant(on_mysql, "mysql", "mariadb")


message = sa.Table(
    "message",
    _metadata,
    sa.Column("id", _big_id, primary_key=True, autoincrement=True),
    # Sorted as people do: case and accents come last.
    sa.Column("username", _text(MAX_USERNAME, "utf8mb4_unicode_ci"), nullable=False),
    sa.Column("message", _text(MAX_MESSAGE, "utf8mb4_bin"), nullable=False),
    sa.Column("timestamp", _milliseconds, nullable=False),
    # Each holds the id as well, so a page in either order is read straight from it.
    sa.Index("message_username", "username"),
    sa.Index("message_timestamp", "timestamp"),
    sqlite_autoincrement=True,  # An id is never given twice, as in MySQL.
    **_options,
)

message_count = sa.Table(
    "message_count",
    _metadata,
    sa.Column("slot", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("total", sa.BigInteger, nullable=False),
    sa.Column("last_id", sa.BigInteger, nullable=False, server_default="0"),
    **_options,
)

idempotency_key = sa.Table(
    "idempotency_key",
    _metadata,
    sa.Column("value", _text(MAX_KEY, "ascii_bin"), primary_key=True),
    sa.Column("fingerprint", _digest, nullable=False),
    sa.Column("message_id", sa.BigInteger, nullable=False),
    sa.Column("timestamp", _milliseconds, nullable=False),
    sa.Column("created", _milliseconds, nullable=False),
    sa.Index("idempotency_key_created", "created"),
    **_options,
)


class TablesNotReadyError(Exception):
    """The tables cannot be used yet; the text says why."""


def prepare_tables(connection: sa.Connection) -> None:
    """Makes and converts tables; replicas that start together take turns.

    Raises TablesNotReadyError, with the statement to run where the server refuses it.
    """
    # SQLite's write lock, taken when the transaction began, does the same as GET_LOCK.
    locks = connection.dialect.name != "sqlite"
    if locks and not connection.scalar(sa.select(sa.func.get_lock(_LOCK, _LOCK_SECONDS))):
        raise TablesNotReadyError("another replica prepares the tables")
    try:
        refused = []
        for table in _metadata.sorted_tables:
            new = not sa.inspect(connection).has_table(table.name)
            if new:
                connection.exec_driver_sql(_create(connection.dialect, table))
            for statement in _changes(connection, table):
                try:
                    connection.exec_driver_sql(statement)
                except DBAPIError as error:
                    if error.connection_invalidated:
                        raise
                    refused.append(f"{statement};")
                else:
                    if not new:
                        logger.info("Converted a table: %s", statement)
        if refused:
            raise TablesNotReadyError(f"the database refuses to run: {' '.join(refused)}")
        add_slots(connection)
    finally:
        if locks:
            connection.scalar(sa.select(sa.func.release_lock(_LOCK)))


def add_slots(connection: sa.Connection) -> None:
    """Adds the rows of `message_count` that are missing."""
    found = connection.scalars(sa.select(message_count.c.slot)).all()
    if missing := set(range(SLOTS)).difference(found):
        rows = [{"slot": slot, "total": 0} for slot in sorted(missing)]
        connection.execute(sa.insert(message_count), rows)


def _create(dialect: sa.Dialect, table: sa.Table) -> str:
    """Returns CREATE TABLE; in MySQL with the indexes, which need another right afterwards."""
    text = str(CreateTable(table).compile(dialect=dialect))
    indexes = [f", INDEX {index.name} ({index.columns[0].name})" for index in table.indexes]
    return text if dialect.name == "sqlite" else text.replace("\n)", "".join(indexes) + "\n)")


def _changes(connection: sa.Connection, table: sa.Table) -> list[str]:
    """Returns the statements that make the table of the database that of this module."""
    dialect, found = connection.dialect, sa.inspect(connection)
    columns = {column["name"] for column in found.get_columns(table.name)}
    missing = [column for column in table.columns if column.name not in columns]
    parts = [f"ADD COLUMN {CreateColumn(column).compile(dialect=dialect)}" for column in missing]
    if dialect.name != "sqlite":
        if found.get_table_options(table.name).get("mysql_engine") != "InnoDB":
            parts.append("ENGINE=InnoDB")
        parts += _conversions(connection, table)
    indexes = {index["name"] for index in found.get_indexes(table.name)}
    new = [index for index in table.indexes if index.name not in indexes]
    statements = []
    if dialect.name == "sqlite":
        statements = [str(CreateIndex(index).compile(dialect=dialect)) for index in new]
    else:  # In one statement, which needs no other right than to alter the table.
        parts += [f"ADD INDEX {index.name} ({index.columns[0].name})" for index in new]
    return ([f"ALTER TABLE {table.name} {', '.join(parts)}"] if parts else []) + statements


def _conversions(connection: sa.Connection, table: sa.Table) -> list[str]:
    """Returns the parts of an ALTER TABLE for columns of another type.

    No text is cut, and a column that holds NULLs, which the original wrote, may go on to.
    """
    parts = []
    rows = connection.exec_driver_sql(
        "SELECT column_name, column_type, collation_name, is_nullable, "
        "character_maximum_length, datetime_precision "
        "FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = %s",
        (table.name,),
    )
    for name, kind, collation, nullable, length, precision in rows.all():
        column = table.columns.get(name)
        if column is None:
            continue
        wanted: Any = column.type.dialect_impl(connection.dialect)
        definition = wanted.compile(dialect=connection.dialect)
        if length is not None:
            same = length >= wanted.length and collation == getattr(wanted, "collation", None)
            if length > wanted.length:
                definition = f"{kind} CHARACTER SET {wanted.charset} COLLATE {wanted.collation}"
        else:
            same = precision is None or precision >= wanted.fsp
            definition = kind if same else definition
        nulls = sa.select(sa.func.count()).where(column.is_(None))
        has_null = nullable == "YES" and connection.scalar(nulls)
        if not same or (nullable == "YES" and not has_null):
            parts.append(f"MODIFY {name} {definition}{'' if has_null else ' NOT NULL'}")
    return parts
