"""The name in `/hello/{name}`: any UTF-8 text, however it is encoded in the path."""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import unquote_to_bytes

from starlette.convertors import Convertor
from starlette.exceptions import HTTPException

MAX_LENGTH = 1000
"""Characters."""

_MAX_RAW = MAX_LENGTH * 12
"""Bytes in the path: four of UTF-8 a character, each written as `%XX`."""


class AnyText(Convertor[str]):
    """A path parameter that may hold slashes (sent as `%2F`) and line breaks."""

    regex = r"[\s\S]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


def decode(raw: bytes) -> str:
    """The name from its part of the raw path.

    Raises an HTTP error: 404 for a further path segment, 414 for a name over MAX_LENGTH, 400 for
    bytes that are not UTF-8.
    """
    if b"/" in raw:
        raise HTTPException(
            HTTPStatus.NOT_FOUND, "a name is one path segment; a slash in it is written %2F"
        )
    if len(raw) <= _MAX_RAW:
        try:
            name = (unquote_to_bytes(raw) if b"%" in raw else raw).decode()
        except UnicodeDecodeError:
            raise HTTPException(HTTPStatus.BAD_REQUEST, "the name is not UTF-8") from None
        if len(name) <= MAX_LENGTH:
            return name
    raise HTTPException(
        HTTPStatus.REQUEST_URI_TOO_LONG, f"the name is over {MAX_LENGTH} characters long"
    )
