"""A page of messages: the request, in the grammar of Spring Data, and its query."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, bindparam, func, select

from services.guestbook.models import Message
from services.guestbook.tables import message, message_count

FIELDS = ("id", "username", "timestamp")
"""The fields to sort by; each has an index."""
DEFAULT_SIZE = 20
MAX_SIZE = 1000
FAR = 1000
"""Rows before a page from which on the database skips them in an index, from the nearer end."""

PEOPLE = "people"
"""SQLite's collation for names, made with each connection; MySQL's stands in the table."""

_INT = re.compile(r"[+-]?[0-9]{1,10}")
_MAX_INT = 2**31 - 1


class Order(NamedTuple):
    """A field to sort by."""

    field: str
    direction: Literal["asc", "desc"] = "asc"


@dataclass(frozen=True, slots=True)
class PageRequest:
    """A page that a client asks for."""

    number: int
    size: int
    sort: tuple[Order, ...] = ()

    @property
    def offset(self) -> int:
        """The number of messages before the page."""
        return self.number * self.size


class Page(NamedTuple):
    """A page as one state of the data has it."""

    messages: list[Message]
    total: int
    foreign: bool
    """Whether the table has newer rows than those that are counted: somebody else writes to it."""


def page_request(page: str | None, size: str | None, sort: list[str]) -> PageRequest:
    """Reads the parameters as Spring Data does: a bad number is the default, a bad sort ignored.

    Raises ValueError for `sort=message`, which has no index.
    """
    number = min(max(_int(page), 0), _MAX_INT)
    wanted = _int(size)
    orders = tuple(order for parameter in sort for order in _orders(parameter))
    first = tuple(
        order
        for at, order in enumerate(orders)
        if order.field not in [o.field for o in orders[:at]]
    )
    return PageRequest(number, min(wanted, MAX_SIZE) if wanted > 0 else DEFAULT_SIZE, first)


def _int(text: str | None) -> int:
    value = int(text) if text and _INT.fullmatch(text) else 0
    return value if -_MAX_INT - 1 <= value <= _MAX_INT else 0


def _orders(parameter: str) -> list[Order]:
    """Reads `field[,field…][,asc|desc]`; the direction holds for all fields."""
    *names, last = parameter.split(",")
    if last.lower() not in ("asc", "desc"):
        names.append(last)
    direction: Literal["asc", "desc"] = "desc" if last.lower() == "desc" else "asc"
    if "message" in names:
        raise ValueError(f"sort: no sorting by message; there are {', '.join(FIELDS)}")
    return [Order(name, direction) for name in names if name in FIELDS]


_columns = (message.c.id, message.c.username, message.c.message, message.c.timestamp)
_total = select(func.coalesce(func.sum(message_count.c.total), 0)).scalar_subquery()
_last_counted = select(func.coalesce(func.max(message_count.c.last_id), 0)).scalar_subquery()
_last = select(func.coalesce(func.max(message.c.id), 0)).scalar_subquery()
FOREIGN = (_last > _last_counted).label("foreign")
"""Whether somebody else wrote messages that are not counted yet."""
_state = (_total.label("total"), FOREIGN)
_empty_page = select(*_state)


def read_page(connection: Connection, request: PageRequest, guess: int | None) -> Page:
    """Reads a page; `guess` is the total that was seen last.

    A page near the end is read backwards, so that no page makes the database skip more than half
    of the rows. Its place from the end follows from the total; the same statement returns the
    total as of its state of the data, and is repeated where that differs.
    """
    dialect = connection.dialect.name
    if request.offset < FAR:
        near = _statement(dialect, request.sort, far=False, backwards=False)
        return _read(connection, near, request.size, request.offset)
    for total in (guess, None):
        if total is None:
            total, foreign = connection.execute(_empty_page).one()
            if total <= request.offset:
                return Page([], int(total), bool(foreign))
        after = int(total) - request.offset - request.size
        if after >= request.offset:
            break
        if total > request.offset:
            limit = min(request.size, int(total) - request.offset)
            backwards = _statement(dialect, request.sort, far=True, backwards=True)
            page = _read(connection, backwards, limit, max(after, 0))
            if page.total == total:
                return page._replace(messages=page.messages[::-1])
    forwards = _statement(dialect, request.sort, far=True, backwards=False)
    return _read(connection, forwards, request.size, request.offset)


def _read(connection: Connection, statement: Select[Any], limit: int, offset: int) -> Page:
    rows = connection.execute(statement, {"limit": limit, "offset": offset}).all()
    if not rows:
        total, foreign = connection.execute(_empty_page).one()
        return Page([], int(total), bool(foreign))
    return Page([Message(*row[:4]) for row in rows], int(rows[0][4]), bool(rows[0][5]))


@lru_cache(maxsize=64)
def _statement(dialect: str, sort: tuple[Order, ...], *, far: bool, backwards: bool) -> Select[Any]:
    order = _order_by(dialect, sort, backwards=backwards)
    if not far:
        rows = select(*_columns, *_state).order_by(*order)
        return rows.limit(bindparam("limit")).offset(bindparam("offset"))
    # The ids come from an index alone; only the rows of the page itself are read.
    ids = select(message.c.id).order_by(*order)
    found = ids.limit(bindparam("limit")).offset(bindparam("offset")).subquery()
    return select(*_columns, *_state).join(found, found.c.id == message.c.id).order_by(*order)


def _order_by(
    dialect: str, sort: tuple[Order, ...], *, backwards: bool
) -> list[ColumnElement[Any]]:
    """Returns the order, made total by the id, in the direction of the field before it."""
    orders = list(sort)
    if all(order.field != "id" for order in sort):
        orders.append(Order("id", sort[-1].direction if sort else "asc"))
    found: list[ColumnElement[Any]] = []
    for order in orders:
        column: ColumnElement[Any] = message.c[order.field]
        if dialect == "sqlite" and order.field == "username":
            column = column.collate(PEOPLE)
        descending = (order.direction == "desc") is not backwards
        found.append(column.desc() if descending else column.asc())
    return found
