"""The form under the page: its fields as they were sent, and their limits."""

from __future__ import annotations

import hashlib
import re
import secrets
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.message import Message
from email.parser import BytesParser
from http import HTTPStatus
from urllib.parse import parse_qsl

from starlette.exceptions import HTTPException
from starlette.requests import Request

NAME_LENGTH = 100
MESSAGE_LENGTH = 2000
MAX_FIELDS = 10

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
    decoded is a problem of the form, which has the other characters. Raises HTTPException 415.
    """
    head = Message()
    head["content-type"] = request.headers.get("content-type", "")
    body = await request.body()
    charset = head.get_content_charset("utf-8")
    problem = None
    try:
        fields = _fields(head, body, charset, "strict")
    except (LookupError, UnicodeError):
        problem = f"The text is not {charset.upper()}, as this form was sent. Please send UTF-8."
        fields = _fields(head, body, "utf-8", "ignore")
    key = fields.get("key", "")
    return Form(
        name=_text(fields, "name").strip(),
        message=_text(fields, "message"),
        key=key if _KEY.fullmatch(key) else _new_key(),
        time=_time(fields.get("time", "")),
        problem=problem,
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


def _fields(head: Message, body: bytes, charset: str, errors: str) -> dict[str, str]:
    """Returns the first value of each field."""
    match head.get_content_type():
        case "application/x-www-form-urlencoded":
            try:
                pairs = parse_qsl(
                    body.decode(charset, errors),
                    keep_blank_values=True,
                    encoding=charset,
                    errors=errors,
                    max_num_fields=MAX_FIELDS,
                )
            except UnicodeError:
                raise
            except ValueError:
                detail = f"The form has over {MAX_FIELDS} fields."
                raise HTTPException(HTTPStatus.BAD_REQUEST, detail) from None
        case "multipart/form-data":
            whole = f"content-type: {head['content-type']}\r\n\r\n".encode() + body
            parts = BytesParser().parsebytes(whole).get_payload()
            pairs = [
                (_field_name(part), _payload(part).decode(_charset(part, charset, errors), errors))
                for part in (parts if isinstance(parts, list) else [])[:MAX_FIELDS]
                if isinstance(part, Message)
            ]
        case other:
            raise HTTPException(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                f"A form of the type {other} cannot be read; nothing was stored.",
            )
    return dict(reversed(pairs))


def _field_name(part: Message) -> str:
    name = part.get_param("name", "", header="content-disposition")
    return name if isinstance(name, str) else ""


def _payload(part: Message) -> bytes:
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def _charset(part: Message, charset: str, errors: str) -> str:
    return part.get_content_charset(charset) if errors == "strict" else charset


def _text(fields: Mapping[str, str], name: str) -> str:
    """Returns a text field: line ends as LF (browsers send CR LF), half a surrogate pair as "?"."""
    value = fields.get(name, "")
    return value.replace("\r\n", "\n").encode("utf-8", "replace").decode("utf-8")


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
