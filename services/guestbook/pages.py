"""A page of messages: the request, in the grammar of Spring Data, and its query."""

import re
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from typing import Annotated, Any, NamedTuple

from fastapi import HTTPException, Query
from sqlalchemy import ColumnElement, Connection, Select, bindparam, func, select

from services.guestbook.models import Message
from services.guestbook.tables import PEOPLE, message, message_count

FIELDS = ("id", "username", "timestamp")
"""The fields to sort by; each has an index."""
DEFAULT_SIZE = 20
MAX_SIZE = 1000
FAR = 1000
"""Rows before a page from which on the database skips them in an index, from the nearer end."""

_INT = re.compile(r"[+-]?[0-9]{1,10}")

Sort = tuple[tuple[str, str], ...]
"""Fields, each with `asc` or `desc`."""


@dataclass(frozen=True, slots=True)
class PageRequest:
    """A page that a client asks for."""

    number: int
    size: int
    sort: Sort

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


async def page_request(
    page: Annotated[str | None, Query(description="Number of the page, from 0")] = None,
    size: Annotated[str | None, Query(description="Messages on a page, 1 to 1000; else 20")] = None,
    sort: Annotated[
        list[str] | None,
        Query(description="`field,asc` or `field,desc` of id, username, timestamp"),
    ] = None,
) -> PageRequest:
    """Reads the parameters as Spring Data does: a bad number is the default, a bad sort ignored."""
    directions: dict[str, str] = {}
    for parameter in sort or ():
        # `field[,field…][,asc|desc]`: the direction holds for all fields.
        *names, direction = parameter.split(",")
        if direction.lower() not in ("asc", "desc"):
            names.append(direction)
            direction = "asc"
        if "message" in names:
            reason = f"sort: no sorting by message; there are {', '.join(FIELDS)}"
            raise HTTPException(HTTPStatus.BAD_REQUEST, reason)
        for name in names:
            if name in FIELDS:
                directions.setdefault(name, direction.lower())
    wanted = _int(size)
    allowed = min(wanted, MAX_SIZE) if wanted > 0 else DEFAULT_SIZE
    return PageRequest(max(_int(page), 0), allowed, tuple(directions.items()))


def _int(text: str | None) -> int:
    """Returns a whole number of 32 bits, 0 for anything else."""
    value = int(text) if text and _INT.fullmatch(text) else 0
    return value if -(2**31) <= value < 2**31 else 0


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
    state = rows[0][-2:] if rows else connection.execute(_empty_page).one()
    return Page([Message(*row[:-2]) for row in rows], int(state[0]), bool(state[1]))


@lru_cache(maxsize=64)
def _statement(dialect: str, sort: Sort, *, far: bool, backwards: bool) -> Select[Any]:
    if all(field != "id" for field, _ in sort):
        # It makes the order total, in the direction of the field before it.
        sort = (*sort, ("id", sort[-1][1] if sort else "asc"))
    order: list[ColumnElement[Any]] = []
    for field, direction in sort:
        column: ColumnElement[Any] = message.c[field]
        if dialect == "sqlite" and field == "username":
            column = column.collate(PEOPLE)
        descending = (direction == "desc") is not backwards
        order.append(column.desc() if descending else column.asc())
    rows = select(message, *_state).order_by(*order)
    # Far away the ids come from an index alone; only the rows of the page itself are read.
    cut = select(message.c.id).order_by(*order) if far else rows
    cut = cut.limit(bindparam("limit")).offset(bindparam("offset"))
    if not far:
        return cut
    ids = cut.subquery()
    return rows.join(ids, ids.c.id == message.c.id)
