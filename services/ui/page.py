"""Renders the page, and the page of an error."""

from __future__ import annotations

import hashlib
import re
import secrets
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup
from starlette.responses import HTMLResponse, Response

from services.common.context import current_request
from services.common.errors import phrase
from services.ui import form as forms
from services.ui.backends import Entry, Greeting, Messages, UnavailableError
from services.ui.form import Form
from services.ui.security import content_security_policy, header_value
from services.ui.settings import Settings

HERE = Path(__file__).parent
STATIC = HERE / "static"
TONES = 6
"""Number of colours for the round initials; see style.css."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """The person who looks at the page, as far as the session knows."""

    name: str | None
    """The name in the session; None without one."""
    sessions_down: bool = False
    """Redis did not answer."""


@dataclass(frozen=True, slots=True)
class Page:
    """The content of the page."""

    form: Form
    messages: Messages | UnavailableError
    visitor: Visitor
    greeting: Greeting | UnavailableError | None
    """None when nobody is to be greeted."""
    number: int = 1
    """Number of the page of messages, from 1."""
    problem: str | None = None
    """Reason why the visitor's form was not stored."""


@dataclass(frozen=True, slots=True)
class Templates:
    """The compiled templates."""

    index: Template
    error: Template
    entry: Callable[[Entry, datetime], str]
    """Returns the HTML of a message, as of now."""

    def answer(self, page: Page, status: int = 200) -> Response:
        """Answers with the guestbook."""
        headers = {}
        if isinstance(page.greeting, Greeting):
            headers["x-message-version"] = header_value(page.greeting.version)
            headers["x-message-hostname"] = header_value(page.greeting.hostname)
        available = page.messages if isinstance(page.messages, Messages) else None
        now = datetime.now(UTC)
        entries = [self.entry(entry, now) for entry in available.entries] if available else []
        return _html(
            self.index,
            status,
            headers,
            page=page,
            available=available,
            # Safe: the template of a message escapes its values.
            entries=Markup("".join(entries)),  # noqa: S704
        )

    def error_answer(
        self, status: int, detail: str, headers: Mapping[str, str] | None = None
    ) -> Response:
        """Answers with a page that says what went wrong; a person reads it."""
        request = current_request.get(None)
        return _html(
            self.error,
            status,
            headers or {},
            status=status,
            phrase=phrase(status),
            detail=_DETAILS.get(status, detail),
            request_id=request.request_id if request else "",
        )


_DETAILS = {
    404: "There is no such page.",
    405: "This address does not answer such a request.",
    413: "The form is larger than 64 kB, so it was not read. Nothing was stored; go back to "
    "shorten it.",
    500: "Something went wrong here; the log of the ui says what.",
}


def _html(template: Template, code: int, headers: Mapping[str, str], **values: Any) -> Response:
    nonce = secrets.token_urlsafe(16)
    own = {
        "content-security-policy": content_security_policy(nonce),
        "cache-control": "no-store",
    }
    return HTMLResponse(template.render(nonce=nonce, **values), code, {**headers, **own})


def load(settings: Settings) -> Templates:
    """Compiles the templates."""
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.globals.update(
        version=settings.demo_version,
        hostname=settings.hostname,
        background=settings.ui_background,
        # In the address of the styles, so that a new image is not shown with an old cached file.
        style=hashlib.sha256((STATIC / "style.css").read_bytes()).hexdigest()[:12],
        name_length=forms.NAME_LENGTH,
        message_length=forms.MESSAGE_LENGTH,
    )
    environment.filters.update(clock=clock, initial=initial, tone=tone, compact=compact)
    return Templates(
        environment.get_template("index.html"),
        environment.get_template("error.html"),
        _entry_renderer(environment.get_template("message.html")),
    )


def _entry_renderer(template: Template) -> Callable[[Entry, datetime], str]:
    """Returns a renderer of messages; all visitors see the same few, so the last ones are kept."""

    @lru_cache(maxsize=1000)
    def render(username: str, message: str, moment: datetime | None, since: str) -> str:
        return template.render(username=username, message=message, moment=moment, since=since)

    def entry_html(entry: Entry, now: datetime) -> str:
        since = ago(entry.timestamp, now) if entry.timestamp else ""
        return render(entry.username, entry.message, entry.timestamp, since)

    return entry_html


def clock(moment: datetime) -> str:
    """Returns a time in UTC: a page without scripts does not know the visitor's zone."""
    return f"{moment.day} {moment:%b %Y, %H:%M} UTC"


def ago(moment: datetime, now: datetime) -> str:
    """Returns roughly how long ago that was; nothing for a time long ago or in the future."""
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
