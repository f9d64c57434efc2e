"""Reads a page so that it costs the same in a table of any size, as far as an index allows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, bindparam, func, select

from services.guestbook import counter
from services.guestbook.hal import Message
from services.guestbook.paging import Order, PageRequest
from services.guestbook.tables import message

FAR = 1000
"""Rows to skip from which on the database should not walk past them."""

_columns = (message.c.id, message.c.username, message.c.message, message.c.timestamp)
_by_id = select(*_columns).where(message.c.id == bindparam("id"))
_total = select(counter.total())
_first = select(func.min(message.c.id)).scalar_subquery()
_last_id = select(func.max(message.c.id)).scalar_subquery()
_without_gaps = _last_id - _first + 1 == counter.total()
_upwards = (
    select(*_columns, counter.total())
    .where(_without_gaps)
    .where(message.c.id >= _first + bindparam("offset"))
    .where(message.c.id < _first + bindparam("offset") + bindparam("size"))
    .order_by(message.c.id)
)
_downwards = (
    select(*_columns, counter.total())
    .where(_without_gaps)
    .where(message.c.id <= _last_id - bindparam("offset"))
    .where(message.c.id > _last_id - bindparam("offset") - bindparam("size"))
    .order_by(message.c.id.desc())
)


def one(connection: Connection, message_id: int) -> Message | None:
    row = connection.execute(_by_id, {"id": message_id}).first()
    return None if row is None else Message(*row)


def page(connection: Connection, request: PageRequest) -> tuple[list[Message], int]:
    """The messages of a page, and how many there are in all, of one state of the data."""
    parameters = {"size": request.size, "offset": request.offset}
    if request.offset < FAR:
        rows = connection.execute(_near(request.sort), parameters).all()
        if not rows:
            return [], int(connection.execute(_total).scalar_one())
    elif not request.sort or request.sort[0].field == "id":
        # Where no id is missing, the place of a message is its id.
        downwards = bool(request.sort) and request.sort[0].direction == "desc"
        rows = connection.execute(_downwards if downwards else _upwards, parameters).all()
        if not rows:
            return _far_page(connection, request)
    else:
        return _far_page(connection, request)
    return [Message(*row[:4]) for row in rows], int(rows[0][4])


@lru_cache(maxsize=64)
def _near(sort: tuple[Order, ...]) -> Select[Any]:
    return (
        select(*_columns, counter.total())
        .order_by(*_order_by(sort, backwards=False))
        .limit(bindparam("size"))
        .offset(bindparam("offset"))
    )


def _far_page(connection: Connection, request: PageRequest) -> tuple[list[Message], int]:
    """A page whose rows before it must be counted, from the nearer end."""
    with _snapshot(connection):
        total = int(connection.execute(_total).scalar_one())
        size = min(request.size, total - request.offset)
        if size <= 0:
            return [], total
        before = total - request.offset - size
        backwards = request.offset > before
        found = (
            select(message.c.id)
            .order_by(*_order_by(request.sort, backwards=backwards))
            .limit(size)
            .offset(before if backwards else request.offset)
            .subquery()
        )
        statement = (
            select(*_columns)
            .join(found, found.c.id == message.c.id)
            .order_by(*_order_by(request.sort, backwards=backwards))
        )
        messages = [Message(*row) for row in connection.execute(statement)]
    return messages[::-1] if backwards else messages, total


def _order_by(sort: tuple[Order, ...], *, backwards: bool) -> list[ColumnElement[Any]]:
    """The order, made total by the id: in the direction of what is before it, as indexes are."""
    orders = list(sort) if any(order.field == "id" for order in sort) else [*sort, _last(sort)]
    return [
        message.c[order.field].desc()
        if (order.direction == "desc") is not backwards
        else message.c[order.field].asc()
        for order in orders
    ]


def _last(sort: tuple[Order, ...]) -> Order:
    return Order("id", sort[-1].direction if sort else "asc")


@contextmanager
def _snapshot(connection: Connection) -> Iterator[None]:
    """Several statements on one state of the data, on a connection without transactions."""
    sqlite = connection.dialect.name == "sqlite"
    if not sqlite:
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    connection.exec_driver_sql("BEGIN" if sqlite else "START TRANSACTION READ ONLY")
    try:
        yield
    finally:
        connection.exec_driver_sql("COMMIT")
