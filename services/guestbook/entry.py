"""What a client may send: a whole message, or changes to one."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field
from pydantic.json_schema import WithJsonSchema

from services.guestbook import timestamps

MAX_USERNAME = 255
MAX_MESSAGE = 2000


def _storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not contain NUL")
    return text


Username = Annotated[
    str,
    Field(strict=True, min_length=1, max_length=MAX_USERNAME),
    AfterValidator(_storable),
]
Text = Annotated[
    str,
    Field(strict=True, min_length=1, max_length=MAX_MESSAGE),
    AfterValidator(_storable),
]


def _timestamp(value: object) -> datetime | None:
    return None if value is None else timestamps.parse(value)


Timestamp = Annotated[
    datetime | None,
    BeforeValidator(_timestamp),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}],
            "description": "UTC to the millisecond; missing means now",
        }
    ),
]


class _Fields(BaseModel):
    def values(self) -> dict[str, Any]:
        """What was given, by field."""
        return {name: value for name in self.model_fields_set if (value := getattr(self, name))}


class Entry(_Fields):
    """A whole message, as POST and PUT carry it. Other fields, such as `_links`, mean nothing."""

    username: Username
    message: Text
    timestamp: Timestamp = None

    def fingerprint(self) -> bytes:
        """SHA-256 of what the client said: equal for a repetition, different for another entry."""
        said = [self.username, self.message, timestamps.render(self.timestamp)]
        return hashlib.sha256(json.dumps(said).encode()).digest()


class Changes(_Fields):
    """The fields to change, as PATCH carries them (RFC 7396)."""

    username: Username = ""
    message: Text = ""
    timestamp: Timestamp = None
