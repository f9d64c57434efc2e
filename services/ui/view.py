"""From what is known to the HTML of the page."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from services.ui import form as forms
from services.ui.clients import Entry, Greeting, Messages, UnavailableError
from services.ui.form import Form
from services.ui.settings import Settings

HERE = Path(__file__).parent
STATIC = HERE / "static"
TONES = 6
"""Number of colours for the round initials; see style.css."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who is looking, as far as that is known."""

    name: str | None
    """The name in the session; None without one."""
    sessions_down: bool = False
    """Redis did not answer."""


@dataclass(frozen=True, slots=True)
class Page:
    """What the page shows."""

    form: Form
    messages: Messages | UnavailableError
    visitor: Visitor
    greeting: Greeting | UnavailableError | None
    """None when nobody is to be greeted."""
    number: int = 1
    """Which page of the messages, from 1."""
    problem: str | None = None
    """Why what the visitor sent was not stored."""


@dataclass(frozen=True, slots=True)
class View:
    """The compiled templates, with all in them that is the same for every page."""

    index: Template
    error: Template
    entry: Callable[[Entry, datetime], str]
    """The HTML of a message, as of now."""

    def page(self, page: Page, nonce: str) -> str:
        """The guestbook, as HTML."""
        available = page.messages if isinstance(page.messages, Messages) else None
        now = datetime.now(UTC)
        entries = [self.entry(entry, now) for entry in available.entries] if available else []
        return self.index.render(
            page=page,
            nonce=nonce,
            available=available,
            # Safe: the template of a message escapes what it is given.
            entries=Markup("".join(entries)),  # noqa: S704
        )

    def error_page(self, status: int, detail: str, nonce: str) -> str:
        """A page that says what went wrong, as HTML."""
        return self.error.render(
            nonce=nonce, status=status, phrase=HTTPStatus(status).phrase, detail=detail
        )


def load(settings: Settings) -> View:
    """Compile the templates."""
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
    environment.filters.update(clock=clock, initial=initial, tone=tone)
    return View(
        environment.get_template("index.html"),
        environment.get_template("error.html"),
        _entry_renderer(environment.get_template("message.html")),
    )


def _entry_renderer(template: Template) -> Callable[[Entry, datetime], str]:
    """Renders messages; all visitors see the same few, so those seen last are kept."""

    @lru_cache(maxsize=1000)
    def render(username: str, message: str, moment: datetime | None, since: str) -> str:
        return template.render(username=username, message=message, moment=moment, since=since)

    def entry_html(entry: Entry, now: datetime) -> str:
        since = ago(entry.timestamp, now) if entry.timestamp else ""
        return render(entry.username, entry.message, entry.timestamp, since)

    return entry_html


def clock(moment: datetime) -> str:
    """A time for reading, in UTC: a page without scripts does not know the visitor's zone."""
    moment = moment.astimezone(UTC)
    return f"{moment.day} {moment:%b %Y, %H:%M} UTC"


def ago(moment: datetime, now: datetime) -> str:
    """How long ago that was, roughly; nothing for what is long ago or in the future."""
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
    """The letter in the circle beside a message."""
    return next((c.upper() for c in name if c.isalnum()), "") or name.strip()[:1] or "?"


def tone(name: str) -> int:
    """The colour of that circle: always the same for the same name."""
    return zlib.crc32(name.encode()) % TONES
