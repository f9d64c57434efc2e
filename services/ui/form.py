"""The form under the page: its fields as they were sent, and their limits."""

import hashlib
import re
import secrets
import unicodedata
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.message import Message
from email.parser import BytesParser
from typing import Any, ClassVar
from urllib.parse import parse_qsl

from starlette.exceptions import HTTPException
from starlette.requests import Request

MAX_FIELDS = 10

_ASCII = bytes(range(128))
_KEY = re.compile(r"[A-Za-z0-9_-]{16,40}")
_BLANK_LETTERS = frozenset("\u115f\u1160\u2800\u3164\uffa0")
"""Letters and symbols that look like nothing."""


@dataclass(slots=True)
class Form:
    """The fields that a visitor sent, or would send."""

    NAME_LENGTH: ClassVar = 100
    MESSAGE_LENGTH: ClassVar = 2000

    name: str
    message: str = ""
    key: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    """Made anew for each form that is shown, so that sending one twice is recognised."""
    time: datetime | None = field(default_factory=lambda: datetime.now(UTC))
    """The time at which the form was made; the time of its message.

    None for a form that was sent without one, as by a script: a time of its arrival would make a
    repetition another message.
    """
    problem: str | None = None
    """Why it was not stored, in words for the visitor."""

    @property
    def has_message(self) -> bool:
        """Whether there is a message to store."""
        return bool(self.message.strip())

    @property
    def timestamp(self) -> str | None:
        """The time of the form, for its hidden field and the guestbook."""
        return self.time.isoformat(timespec="milliseconds") if self.time else None

    @property
    def idempotency_key(self) -> str:
        """The same for the same form with the same content; corrected content is a new message."""
        content = f"{len(self.name)}:{self.name}{self.message}{self.timestamp}".encode()
        return f"{self.key}-{hashlib.sha256(content).hexdigest()[:32]}"


async def read(request: Request) -> Form:
    """Returns the form as it was sent, in UTF-8 or in the charset that it declares.

    One without a usable key gets a new one: it is then a first try. Characters that cannot
    be decoded are left out. Raises HTTPException 400 and 415.
    """
    problem = None
    fields: dict[str, str] = {}
    content_type = request.headers.get("content-type", "")
    for name, value, charset in _fields(content_type, await request.body()):
        try:
            text = _decode(value, charset)
        except (LookupError, ValueError):
            problem = problem or f"The text cannot be read as {charset[:40]}; send UTF-8."
            text = value.decode("utf-8", "ignore")
        fields.setdefault(name, text.replace("\r\n", "\n"))  # Browsers send CR LF.
    form = Form(fields.get("name", "").strip(), fields.get("message", ""))
    if _KEY.fullmatch(fields.get("key", "")):
        form.key = fields["key"]
    form.time = _time(fields.get("time", ""))
    form.problem = problem or _problem(form)
    return form


def _fields(content_type: str, body: bytes) -> list[tuple[str, bytes, str]]:
    """Returns name, bytes and charset of each field."""
    head = Message()
    head["content-type"] = content_type
    match head.get_content_type():
        case "application/x-www-form-urlencoded":
            charset = head.get_content_charset("utf-8")
            pairs = parse_qsl(body.decode("latin-1"), keep_blank_values=True, encoding="latin-1")
            fields = [(name, value.encode("latin-1"), charset) for name, value in pairs]
        case "multipart/form-data":
            if body.lower().count(b"content-type:") > MAX_FIELDS:  # The parser is slow at these.
                raise HTTPException(400, "The form has parts within parts.")
            whole = b"content-type: %s\r\n\r\n%s" % (content_type.encode("latin-1"), body)
            form = BytesParser().parsebytes(whole)
            parts = [part for part in form.walk() if not part.is_multipart()]
            if form.defects:
                raise HTTPException(400, "The form is not complete.")
            if any(part.get_filename() is not None for part in parts):
                raise HTTPException(400, "The form takes no files.")
            fields = [_field(part) for part in parts]
        case _:
            raise HTTPException(415, "This is not a form that can be read; nothing was stored.")
    if len(fields) > MAX_FIELDS:
        raise HTTPException(400, f"The form has over {MAX_FIELDS} fields.")
    return fields


def _field(part: Message) -> tuple[str, bytes, str]:
    name = str(part.get_param("name", "", header="content-disposition"))
    value: Any = part.get_payload(decode=True)
    return name, value, part.get_content_charset("utf-8")


def _decode(value: bytes, charset: str) -> str:
    """Decodes text in a charset that has ASCII in its place; UTF-16 or base64 have not."""
    if _ASCII.decode(charset) != _ASCII.decode():
        raise LookupError
    return value.decode(charset)


def _time(text: str) -> datetime | None:
    """Reads the time of a form; None where it cannot be the time of one."""
    try:
        time = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return time if time.year >= 1970 and time < datetime.now(UTC) + timedelta(days=1) else None


def _problem(form: Form) -> str | None:
    """Returns why the form cannot be used; None when it can."""
    if not any(map(_visible, form.name)):
        return "Please enter your name."
    if len(form.name) > form.NAME_LENGTH:
        return f"The name is longer than {form.NAME_LENGTH} characters."
    if form.name in (".", ".."):
        return "This name cannot be part of a web address; please use another."
    if (length := len(form.message)) > form.MESSAGE_LENGTH:
        return f"The message has {length} characters; {form.MESSAGE_LENGTH} is the most."
    if "\0" in form.name or "\0" in form.message:
        return "The text contains a NUL character."
    return None


def _visible(character: str) -> bool:
    return unicodedata.category(character)[0] in "LNPS" and character not in _BLANK_LETTERS
