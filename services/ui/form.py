"""The form under the page: what came in, and whether it can be used."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass

from starlette.datastructures import FormData

NAME_LENGTH = 100
MESSAGE_LENGTH = 2000
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


def read(data: FormData) -> Form:
    """The form as it was sent. A missing or strange key gets a new one: it is then a first try."""
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


def _text(data: FormData, field: str) -> str:
    """A text field: line ends as LF (browsers send CR LF), half a surrogate pair as "?"."""
    value = data.get(field)
    if not isinstance(value, str):
        return ""
    return value.replace("\r\n", "\n").encode("utf-8", "replace").decode("utf-8")
