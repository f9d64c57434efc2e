"""Which page a client asks for, in the grammar of Spring Data: `page`, `size`, `sort`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, Field

FIELDS = ("id", "username", "message", "timestamp")
DEFAULT_SIZE = 20
MAX_SIZE = 1000


@dataclass(frozen=True, slots=True)
class Order:
    field: str
    direction: Literal["asc", "desc"] = "asc"


class PageQuery(BaseModel):
    """The query parameters of the list."""

    page: int = Field(0, ge=0, le=2**31 - 1, description="Number of the page, from 0")
    size: int = Field(DEFAULT_SIZE, ge=1, le=MAX_SIZE, description="Messages on a page")
    sort: list[Annotated[str, Field(max_length=100)]] = Field(
        [],
        max_length=len(FIELDS),
        description="`field,asc` or `field,desc`; repeat it for further fields",
    )


@dataclass(frozen=True, slots=True)
class PageRequest:
    number: int = 0
    size: int = DEFAULT_SIZE
    sort: tuple[Order, ...] = ()

    @property
    def offset(self) -> int:
        return self.number * self.size


def orders(sort: list[str]) -> tuple[Order, ...]:
    """Read `field[,field…][,asc|desc]` parameters; raises ValueError with the reason.

    As in Spring Data a direction holds for all fields of its parameter.
    """
    found: list[Order] = []
    for value in sort:
        *names, last = value.split(",")
        if not names or last.lower() not in ("asc", "desc"):
            names.append(last)
        direction: Literal["asc", "desc"] = "desc" if last.lower() == "desc" else "asc"
        for name in names:
            if name not in FIELDS:
                raise ValueError(
                    f"sort: {name!r} is not one of {', '.join(FIELDS)}; "
                    "expected field,asc or field,desc"
                )
            if all(order.field != name for order in found):
                found.append(Order(name, direction))
    return tuple(found)
