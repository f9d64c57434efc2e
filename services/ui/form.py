"""The form under the page: what came in, and whether it can be used."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass

from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message, Receive

NAME_LENGTH = 100
MESSAGE_LENGTH = 2000
MAX_BODY_BYTES = 64 * 1024
_KEY = re.compile(r"[A-Za-z0-9_-]{16,40}")


@dataclass(frozen=True, slots=True)
class Form:
    """What a visitor sent, or would send."""

    name: str
    message: str
    key: str
    """Made anew for each form that is shown, so that sending one twice is recognised."""

    @property
    def has_message(self) -> bool:
        return bool(self.message.strip())

    @property
    def idempotency_key(self) -> str:
        """The same for the same form with the same content; corrected content is a new message."""
        content = f"{len(self.name)}:{self.name}{self.message}".encode()
        return f"{self.key}-{hashlib.sha256(content).hexdigest()[:32]}"


def empty(name: str = "") -> Form:
    """The form as a page shows it first."""
    return Form(name, "", secrets.token_urlsafe(16))


async def read(request: Request) -> Form:
    """The form as it was sent. A missing or strange key gets a new one: it is then a first try."""
    data = await Request(request.scope, _limited(request)).form(max_files=0, max_fields=10)
    key = _text(data, "key")
    return Form(
        name=_text(data, "name").strip(),
        message=_text(data, "message"),
        key=key if _KEY.fullmatch(key) else secrets.token_urlsafe(16),
    )


def problem(form: Form) -> str | None:
    """Why the form cannot be used, in words for the visitor; None when it can."""
    if not form.name:
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


def _limited(request: Request) -> Receive:
    """The request's body, as long as it is not too large (413)."""
    size = 0

    async def receive() -> Message:
        nonlocal size
        message = await request.receive()
        size += len(message.get("body", b""))
        if size > MAX_BODY_BYTES:
            raise HTTPException(
                413,
                f"What was sent is larger than {MAX_BODY_BYTES // 1024} kB, so it was not read. "
                "Nothing was stored; go back to shorten it.",
            )
        return message

    return receive


def _text(data: FormData, field: str) -> str:
    """A text field: line ends as LF (browsers send CR LF), half a surrogate pair as "?"."""
    value = data.get(field)
    if not isinstance(value, str):
        return ""
    return value.replace("\r\n", "\n").encode("utf-8", "replace").decode("utf-8")
