"""A message as clients send it and as it is stored: fields, limits and timestamps."""

import hashlib
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field
from pydantic.json_schema import WithJsonSchema

MAX_USERNAME = 255  # Characters.
MAX_MESSAGE = 2000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST = datetime(1000, 1, 1)  # MySQL's DATETIME begins here and ends with the year 9999.
_ISO_8601 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"(T[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?(Z|[+-][0-9]{2}(:?[0-9]{2})?)?)?"
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
        state = _digest(self.id, self.username, self.message, render_timestamp(self.timestamp))
        return f'"{state.hex()[:24]}"'


def now() -> datetime:
    """Returns the current time as it is stored."""
    return _stored(datetime.now(UTC))


def parse_timestamp(value: object) -> datetime | None:
    """Reads ISO 8601 or milliseconds since 1970, as Jackson does; without an offset it is UTC.

    Raises ValueError with the reason.
    """
    if value is None:
        return None
    moment = datetime.min
    try:
        if isinstance(value, int | float) and not isinstance(value, bool) and value == int(value):
            moment = _stored(_EPOCH + timedelta(milliseconds=value))
        elif isinstance(value, str) and _ISO_8601.fullmatch(value):
            read = datetime.fromisoformat(value)
            moment = _stored(read if read.tzinfo else read.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        pass
    if moment < _FIRST:
        example = "2026-01-31T12:00:00.000+00:00"
        raise ValueError(f"not a timestamp such as {example}, from the year 1000 to 9999")
    return moment


def render_timestamp(moment: datetime | None) -> str | None:
    """Returns `2026-01-31T12:00:00.000+00:00`, from UTC without a zone."""
    return None if moment is None else moment.isoformat(timespec="milliseconds") + "+00:00"


def _stored(moment: datetime) -> datetime:
    """Returns a time in UTC, without a zone, cut to the millisecond."""
    utc = moment.astimezone(UTC).replace(tzinfo=None)
    return utc.replace(microsecond=utc.microsecond // 1000 * 1000)


def _digest(*values: object) -> bytes:
    return hashlib.sha256(json.dumps(values).encode()).digest()


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not contain NUL")
    return text


_TIMESTAMP_SCHEMA = {
    "anyOf": [
        {"type": "string", "format": "date-time", "pattern": "^[1-9]"},
        {"type": "integer", "minimum": -30610224000000, "maximum": 253402300799999},
        {"type": "null"},
    ],
    "description": "UTC to the millisecond, from the year 1000 to 9999; missing means now",
}
_String = Annotated[
    str,
    Field(strict=True, min_length=1, json_schema_extra={"pattern": r"^[^\x00]*$"}),
    AfterValidator(_without_nul),
]
_Username = Annotated[_String, Field(max_length=MAX_USERNAME)]
_Text = Annotated[_String, Field(max_length=MAX_MESSAGE)]
_Timestamp = Annotated[
    datetime | None, BeforeValidator(parse_timestamp), WithJsonSchema(_TIMESTAMP_SCHEMA)
]


class Changes(BaseModel):
    """The fields to change, as PATCH carries them (RFC 7396). Others, as `_links`, are ignored."""

    username: _Username = ""
    message: _Text = ""
    timestamp: _Timestamp = None


class Entry(Changes):
    """A whole message, as POST and PUT carry it."""

    username: _Username
    message: _Text

    def fingerprint(self) -> bytes:
        """Returns a digest that is equal for a repetition and differs for another entry."""
        return _digest(self.username, self.message, render_timestamp(self.timestamp))
