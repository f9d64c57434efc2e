"""Renders the page, and the page of an error."""

import hashlib
import re
import secrets
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup
from starlette.responses import HTMLResponse, Response

from services.common.context import current_request
from services.common.errors import phrase
from services.common.telemetry import CallError
from services.ui.backends import Greeting, Messages
from services.ui.form import Form
from services.ui.security import header_value
from services.ui.settings import Settings

HERE = Path(__file__).parent
STATIC = HERE / "static"
TONES = 6
"""Number of colours for the round initials; see style.css."""

_DETAILS = {
    404: "There is no such page.",
    405: "This address does not answer such a request.",
    413: "The form is larger than 64 kB, so it was not read. Nothing was stored; go back to "
    "shorten it.",
    500: "Something went wrong here; the log of the ui says what.",
}


class Templates:
    """The compiled templates."""

    def __init__(self, settings: Settings) -> None:
        environment = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        # In the address of the styles, so that a new image is not shown with an old cached file.
        style = hashlib.sha256((STATIC / "style.css").read_bytes()).hexdigest()[:12]
        environment.globals.update(settings=settings, style=style)
        environment.filters.update(clock=clock, initial=initial, tone=tone, compact=compact)
        environment.tests["failed"] = lambda part: isinstance(part, CallError)
        self._index = environment.get_template("index.html")
        self._error = environment.get_template("error.html")
        # All visitors see the same few messages, so the HTML of the last ones is kept.
        self._entry = lru_cache(maxsize=1000)(environment.get_template("message.html").render)

    def page(
        self,
        form: Form,
        visitor: str | CallError | None,
        greeting: Greeting | CallError | None,
        messages: Messages | CallError,
        number: int,
        status: int,
    ) -> Response:
        """Answers with a page of messages, by its number from 1."""
        headers = {}
        if isinstance(greeting, Greeting):
            headers["x-message-version"] = header_value(greeting.version)
            headers["x-message-hostname"] = header_value(greeting.hostname)
        entries = self._entries(messages) if isinstance(messages, Messages) else ""
        parts = {"form": form, "visitor": visitor, "greeting": greeting, "messages": messages}
        return _html(self._index, status, headers, entries=entries, number=number, **parts)

    def error(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
        """Answers with a page that says what went wrong; a person reads it."""
        error = {"status": status, "phrase": phrase(status), "detail": _DETAILS.get(status, detail)}
        request_id = current_request.get().request_id
        return _html(self._error, status, headers or {}, request_id=request_id, **error)

    def _entries(self, messages: Messages) -> Markup:
        now = datetime.now(UTC)
        entries = (
            self._entry(**vars(entry), since=ago(entry.timestamp, now))
            for entry in messages.entries
        )
        return Markup("".join(entries))  # noqa: S704  # The template escapes the values.


def _html(template: Template, code: int, headers: Mapping[str, str], **values: Any) -> Response:
    nonce = secrets.token_urlsafe(16)
    own = {
        # No script at all; styles of our own or with the nonce.
        "content-security-policy": f"default-src 'none'; style-src 'self' 'nonce-{nonce}'; "
        "img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        "cache-control": "no-store",
    }
    return HTMLResponse(template.render(nonce=nonce, **values), code, {**headers, **own})


def clock(moment: datetime) -> str:
    """Returns a time in UTC: a page without scripts does not know the visitor's zone."""
    return f"{moment.day} {moment:%b %Y, %H:%M} UTC"


def ago(moment: datetime | None, now: datetime) -> str:
    """Returns roughly how long ago that was; nothing for a time long ago or in the future."""
    if moment is None:
        return ""
    seconds = (now - moment).total_seconds()
    if seconds < -5 or seconds >= 7 * 86400:
        return ""
    if seconds < 60:
        return "just now"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min ago"
    if seconds < 86400:
        return f"{seconds // 3600:.0f} h ago"
    days = int(seconds // 86400)
    return "yesterday" if days == 1 else f"{days} days ago"


def initial(name: str) -> str:
    """Returns the letter in the circle beside a message."""
    return next((c.upper() for c in name if c.isalnum()), "") or name.strip()[:1] or "?"


def tone(name: str) -> int:
    """Returns the colour of that circle, always the same for the same name."""
    return zlib.crc32(name.encode()) % TONES


def compact(text: str) -> str:
    """Returns a text with at most one empty line in a row."""
    return re.sub(r"\n\s*\n", "\n\n", text)
