"""A message as clients send it and get it: fields, limits and timestamps."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field
from pydantic.json_schema import WithJsonSchema

MAX_USERNAME = 255
MAX_MESSAGE = 2000
"""Characters."""

FIRST = datetime(1000, 1, 1)
"""The earliest time of MySQL's DATETIME; the latest is the end of the year 9999."""

_EPOCH = datetime(1970, 1, 1)
_TIMESTAMP = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:T([0-9]{2}:[0-9]{2})(?:(:[0-9]{2})(?:\.([0-9]{1,9}))?)?"
    r"(Z|[+-][0-9]{2}(?::?[0-9]{2})?)?)?"
)


class Message(NamedTuple):
    """A stored message. A table that the Java original wrote may hold NULLs."""

    id: int
    username: str | None
    message: str | None
    timestamp: datetime | None
    """UTC, without a zone."""

    def etag(self) -> str:
        """Returns the entity tag of this state of the message."""
        state = [self.id, self.username, self.message, render_timestamp(self.timestamp)]
        return f'"{hashlib.sha256(json.dumps(state).encode()).hexdigest()[:24]}"'


def now() -> datetime:
    """Returns the current time in UTC, without a zone, cut to the millisecond."""
    moment = datetime.now(UTC).replace(tzinfo=None)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def parse_timestamp(value: object) -> datetime | None:
    """Returns UTC without a zone, from ISO 8601 or from milliseconds since 1970, as Jackson does.

    No offset means UTC. Raises ValueError with the reason.
    """
    if value is None:
        return None
    try:
        moment = _parse(value)
    except (ValueError, OverflowError):
        moment = datetime.min
    if moment < FIRST:
        example = "2026-01-31T12:00:00.000+00:00"
        raise ValueError(f"not a timestamp such as {example}, from the year 1000 to 9999")
    return moment


def render_timestamp(moment: datetime | None) -> str | None:
    """Returns `2026-01-31T12:00:00.000+00:00`, from UTC without a zone."""
    return None if moment is None else moment.isoformat(timespec="milliseconds") + "+00:00"


def _parse(value: object) -> datetime:
    if isinstance(value, int) and not isinstance(value, bool):
        return _EPOCH + timedelta(milliseconds=value)
    match = _TIMESTAMP.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError
    day, minutes, seconds, fraction, zone = match.groups()
    milliseconds = ((fraction or "") + "000")[:3]
    text = f"{day}T{minutes or '00:00'}{seconds or ':00'}.{milliseconds}{zone or 'Z'}"
    return datetime.fromisoformat(text).astimezone(UTC).replace(tzinfo=None)


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not contain NUL")
    return text


_Username = Annotated[
    str,
    Field(strict=True, min_length=1, max_length=MAX_USERNAME),
    AfterValidator(_without_nul),
]
_Text = Annotated[
    str,
    Field(strict=True, min_length=1, max_length=MAX_MESSAGE),
    AfterValidator(_without_nul),
]
_Timestamp = Annotated[
    datetime | None,
    BeforeValidator(parse_timestamp),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}],
            "description": "UTC to the millisecond, from the year 1000 to 9999; missing means now",
        }
    ),
]


class _Fields(BaseModel):
    def values(self) -> dict[str, Any]:
        """Returns the given fields by name; a timestamp of null counts as not given."""
        return {name: value for name in self.model_fields_set if (value := getattr(self, name))}


class Entry(_Fields):
    """A whole message, as POST and PUT carry it. Other fields, such as `_links`, are ignored."""

    username: _Username
    message: _Text
    timestamp: _Timestamp = None

    def fingerprint(self) -> bytes:
        """Returns a SHA-256 that is equal for a repetition and differs for another entry."""
        said = [self.username, self.message, render_timestamp(self.timestamp)]
        return hashlib.sha256(json.dumps(said).encode()).digest()


class Changes(_Fields):
    """The fields to change, as PATCH carries them (RFC 7396)."""

    username: _Username = ""
    message: _Text = ""
    timestamp: _Timestamp = None


class Link(BaseModel):
    """A link of HAL."""

    href: str
    templated: bool = False


class MessageDocument(BaseModel):
    """A message in HAL."""

    username: str | None
    message: str | None
    timestamp: datetime | None
    links: dict[str, Link] = Field(alias="_links")


class _Embedded(BaseModel):
    messages: list[MessageDocument]


class _PageInfo(BaseModel):
    size: int
    totalElements: int  # noqa: N815
    totalPages: int  # noqa: N815
    number: int


class PageDocument(BaseModel):
    """A page of messages in HAL."""

    embedded: _Embedded = Field(alias="_embedded")
    links: dict[str, Link] = Field(alias="_links")
    page: _PageInfo


class LinksDocument(BaseModel):
    """A document of HAL that has links alone."""

    links: dict[str, Link] = Field(alias="_links")
