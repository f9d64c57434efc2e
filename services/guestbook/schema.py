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
        f"ADD COLUMN {_definition(connection, column)}"
        for column in table.columns
        if column.name not in columns
    ]
    if connection.dialect.name != "sqlite":
        parts += _mysql_conversions(connection, table)
    indexes = {index["name"] for index in found.get_indexes(table.name)}
    return [
        *([f"ALTER TABLE {table.name} {', '.join(parts)}"] if parts else []),
        *(
            str(CreateIndex(index).compile(dialect=connection.dialect))
            for index in table.indexes
            if index.name not in indexes
        ),
    ]


def _mysql_conversions(connection: Connection, table: Table) -> list[str]:
    """Returns the parts of an ALTER TABLE for its engine and for columns of another type."""
    engine = _ask(
        connection,
        "SELECT engine FROM information_schema.tables "
        "WHERE table_schema = DATABASE() AND table_name = %s",
        table.name,
    )
    parts = [] if engine == "InnoDB" else ["ENGINE=InnoDB"]
    rows = connection.exec_driver_sql(
        "SELECT column_name, column_type, collation_name, is_nullable, character_maximum_length "
        "FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = %s",
        (table.name,),
    )
    for name, kind, collation, nullable, length in rows.all():
        column = table.columns.get(name)
        if column is None:
            continue
        wanted: Any = column.type.dialect_impl(connection.dialect)
        too_short = length is not None and length < (wanted.length or 0)
        other_text = collation != getattr(wanted, "collation", None)
        other_time = kind.startswith("datetime") and kind != "datetime(3)"
        # A column that holds NULLs, which the original wrote, stays as it is in this respect.
        may_be_null = nullable == "YES" and _has_null(connection, column)
        not_null_missing = nullable == "YES" and not column.nullable and not may_be_null
        if too_short or other_text or other_time or not_null_missing:
            longer = max(length or 0, wanted.length or 0) if length is not None else None
            definition = _definition(connection, column, longer)
            parts.append(
                "MODIFY " + (definition.replace(" NOT NULL", "") if may_be_null else definition)
            )
    return parts


def _definition(connection: Connection, column: Column[Any], length: int | None = None) -> str:
    """Returns a column as CREATE TABLE has it, but no shorter than `length`."""
    text = str(CreateColumn(column).compile(dialect=connection.dialect))
    wanted: Any = column.type.dialect_impl(connection.dialect)
    if length is not None and wanted.length is not None:
        text = text.replace(f"({wanted.length})", f"({length})")
    return text


def _has_null(connection: Connection, column: Column[Any]) -> bool:
    count = select(func.count()).select_from(column.table).where(column.is_(None))
    return bool(connection.execute(count).scalar_one())


def _ask(connection: Connection, statement: str, *parameters: object) -> Any:
    return cast(Any, connection.exec_driver_sql(statement, parameters).scalar_one())
