"""Makes the tables, and converts those of the Java original and of earlier versions.

The promises of the storage hold on InnoDB alone, with the columns of `tables.py`; Hibernate made
`message` as MyISAM, in Latin-1, with columns that are short and may be NULL.
"""

from __future__ import annotations

from typing import Any, cast

from sqlalchemy import Column, Connection, Table, func, insert, inspect, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateColumn, CreateIndex

from services.guestbook.tables import SLOTS, message_count, metadata

_LOCK = "guestbook-tables"
_LOCK_SECONDS = 2


class TablesNotReadyError(Exception):
    """The tables cannot be used yet; the text says why."""


def prepare_tables(connection: Connection) -> None:
    """Makes and converts tables; replicas that start together take turns.

    Raises TablesNotReadyError, with the statement to run where the server refuses it.
    """
    # SQLite's write lock, taken when the transaction began, does the same as GET_LOCK.
    mysql = connection.dialect.name != "sqlite"
    if mysql and not _ask(connection, "SELECT GET_LOCK(%s, %s)", _LOCK, _LOCK_SECONDS):
        raise TablesNotReadyError("another replica prepares the tables")
    try:
        metadata.create_all(connection)
        for table in metadata.sorted_tables:
            for statement in _changes(connection, table):
                _run(connection, statement)
        add_slots(connection)
    finally:
        if mysql:
            _ask(connection, "SELECT RELEASE_LOCK(%s)", _LOCK)


def add_slots(connection: Connection) -> None:
    """Adds the rows of `message_count` that are missing."""
    found = connection.execute(select(message_count.c.slot)).scalars().all()
    if missing := set(range(SLOTS)).difference(found):
        rows = [{"slot": slot, "total": 0} for slot in sorted(missing)]
        connection.execute(insert(message_count), rows)


def _run(connection: Connection, statement: str) -> None:
    try:
        connection.exec_driver_sql(statement)
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        reason = error.orig.args[-1] if error.orig is not None else error
        raise TablesNotReadyError(f"the database refuses ({reason}) to run: {statement};") from None


def _changes(connection: Connection, table: Table) -> list[str]:
    """Returns the statements that make the table of the database that of `tables.py`."""
    found = inspect(connection)
    columns = {column["name"] for column in found.get_columns(table.name)}
    parts = [
        f"ADD COLUMN {CreateColumn(column).compile(dialect=connection.dialect)}"
        for column in table.columns
        if column.name not in columns
    ]
    if connection.dialect.name != "sqlite":
        parts += _conversions(connection, table)
    indexes = {index["name"] for index in found.get_indexes(table.name)}
    return [
        *([f"ALTER TABLE {table.name} {', '.join(parts)}"] if parts else []),
        *(
            str(CreateIndex(index).compile(dialect=connection.dialect))
            for index in table.indexes
            if index.name not in indexes
        ),
    ]


def _conversions(connection: Connection, table: Table) -> list[str]:
    """Returns the parts of an ALTER TABLE for its engine and for columns of another type.

    No text is cut, and a column that holds NULLs, which the original wrote, may go on to.
    """
    engine = _ask(
        connection,
        "SELECT engine FROM information_schema.tables "
        "WHERE table_schema = DATABASE() AND table_name = %s",
        table.name,
    )
    parts = [] if engine == "InnoDB" else ["ENGINE=InnoDB"]
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
        holds_null = nullable == "YES" and _has_null(connection, column)
        same_null = nullable == "NO" or column.nullable or holds_null
        if length is not None:
            same = length >= wanted.length and collation == getattr(wanted, "collation", None)
            if length > wanted.length:
                definition = f"{kind} CHARACTER SET {wanted.charset} COLLATE {wanted.collation}"
        else:
            same = precision is None or precision >= wanted.fsp
            definition = definition if precision is not None and not same else kind
        if not same or not same_null:
            parts.append(f"MODIFY {name} {definition}{'' if holds_null else ' NOT NULL'}")
    return parts


def _has_null(connection: Connection, column: Column[Any]) -> bool:
    count = select(func.count()).select_from(column.table).where(column.is_(None))
    return bool(connection.execute(count).scalar_one())


def _ask(connection: Connection, statement: str, *parameters: object) -> Any:
    return cast(Any, connection.exec_driver_sql(statement, parameters).scalar_one())
