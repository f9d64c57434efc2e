"""The form under the page: its fields as they were sent, and their limits."""

from __future__ import annotations

import hashlib
import re
import secrets
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.message import Message
from email.parser import BytesParser
from http import HTTPStatus
from urllib.parse import unquote_to_bytes

from starlette.exceptions import HTTPException
from starlette.requests import Request

NAME_LENGTH = 100
MESSAGE_LENGTH = 2000
MAX_FIELDS = 10

UTF_8 = "utf-8"
_ASCII = bytes(range(128))
_KEY = re.compile(r"[A-Za-z0-9_-]{16,40}")
_BLANK_LETTERS = frozenset("\u115f\u1160\u2800\u3164\uffa0")
"""Letters and symbols that look like nothing."""


@dataclass(frozen=True, slots=True)
class Form:
    """The fields that a visitor sent, or would send."""

    name: str
    message: str
    key: str
    """Made anew for each form that is shown, so that sending one twice is recognised."""
    time: datetime
    """The time at which the form was made; the time of its message."""
    problem: str | None = None
    """The reason why the form could not be read."""

    @property
    def has_message(self) -> bool:
        """Whether there is a message to store."""
        return bool(self.message.strip())

    @property
    def timestamp(self) -> str:
        """The time of the form, for its hidden field."""
        return self.time.isoformat(timespec="milliseconds")

    @property
    def idempotency_key(self) -> str:
        """The same for the same form with the same content; corrected content is a new message."""
        content = f"{len(self.name)}:{self.name}{self.message}{self.timestamp}".encode()
        return f"{self.key}-{hashlib.sha256(content).hexdigest()[:32]}"


def empty(name: str = "") -> Form:
    """Returns the form as a page shows it first."""
    return Form(name, "", _new_key(), datetime.now(UTC))


async def read(request: Request) -> Form:
    """Returns the form as it was sent, in UTF-8 or in the charset that it declares.

    A missing or strange key or time gets a new one: it is then a first try. Text that cannot be
    decoded is a problem of the form, which has the other characters. Raises HTTPException 400 and
    415.
    """
    undecodable = None
    fields: dict[str, str] = {}
    for name, value, charset in _fields(
        request.headers.get("content-type", ""), await request.body()
    ):
        try:
            text = _decode(value, charset)
        except (LookupError, UnicodeError):
            undecodable = undecodable or charset
            text = value.decode("utf-8", "ignore")
        fields.setdefault(name, text.replace("\r\n", "\n"))  # Browsers send CR LF.
    key = fields.get("key", "")
    return Form(
        name=fields.get("name", "").strip(),
        message=fields.get("message", ""),
        key=key if _KEY.fullmatch(key) else _new_key(),
        time=_time(fields.get("time", "")),
        problem=undecodable and f"The text cannot be read as {undecodable[:40]}; send UTF-8.",
    )


def problem(form: Form) -> str | None:
    """Returns why the form cannot be used, in words for the visitor; None when it can."""
    if form.problem:
        return form.problem
    if not any(map(_visible, form.name)):
        return "Please enter your name."
    if len(form.name) > NAME_LENGTH:
        return f"The name is longer than {NAME_LENGTH} characters."
    if form.name in (".", ".."):
        return "This name cannot be part of a web address; please use another."
    if len(form.message) > MESSAGE_LENGTH:
        return (
            f"The message has {len(form.message)} characters; {MESSAGE_LENGTH} is the most. "
            "It was not stored."
        )
    if "\0" in form.name or "\0" in form.message:
        return "The text contains a NUL character. It was not stored."
    return None


def _fields(content_type: str, body: bytes) -> list[tuple[str, bytes, str]]:
    """Returns name, bytes and charset of each field."""
    head = Message()
    head["content-type"] = content_type
    match head.get_content_type() if content_type else "":
        case "application/x-www-form-urlencoded":
            charset = head.get_content_charset(UTF_8)
            pairs = [pair.partition(b"=") for pair in body.split(b"&")]
            fields = [
                (_unquote(name).decode("ascii", "replace"), _unquote(value), charset)
                for name, _, value in pairs
            ]
        case "multipart/form-data":
            parsed = BytesParser().parsebytes(
                b"content-type: %s\r\n\r\n%s" % (content_type.encode("latin-1"), body)
            )
            parts = [part for part in parsed.walk() if not part.is_multipart()]
            if parsed.defects:
                raise HTTPException(HTTPStatus.BAD_REQUEST, "The form is not complete.")
            if any(part.get_filename() is not None for part in parts):
                raise HTTPException(HTTPStatus.BAD_REQUEST, "The form takes no files.")
            fields = [
                (_name(part), _payload(part), part.get_content_charset(UTF_8)) for part in parts
            ]
        case _:
            raise HTTPException(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                "This is not a form that can be read; nothing was stored.",
            )
    if len(fields) > MAX_FIELDS:
        raise HTTPException(HTTPStatus.BAD_REQUEST, f"The form has over {MAX_FIELDS} fields.")
    return fields


def _unquote(text: bytes) -> bytes:
    return unquote_to_bytes(text.replace(b"+", b" "))


def _name(part: Message) -> str:
    return str(part.get_param("name", "", header="content-disposition"))


def _payload(part: Message) -> bytes:
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def _decode(value: bytes, charset: str) -> str:
    """Decodes text in a charset that has ASCII in its place; UTF-16 or base64 have not."""
    if _ASCII.decode(charset) != _ASCII.decode():
        raise LookupError
    return value.decode(charset)


def _time(text: str) -> datetime:
    """Reads the time of a form; now, where it is missing or cannot be the time of one."""
    now = datetime.now(UTC)
    try:
        time = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        return now
    return time if time.year >= 1970 and time < now + timedelta(days=1) else now


def _new_key() -> str:
    return secrets.token_urlsafe(16)


def _visible(character: str) -> bool:
    return unicodedata.category(character)[0] in "LNPS" and character not in _BLANK_LETTERS
