"""What a visitor reads on the page, taken from its HTML."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass

import httpx

UNAVAILABLE = "Guestbook Service is currently unavailable"


@dataclass(frozen=True)
class Shown:
    greeting: str | None
    messages: list[tuple[str, str]]
    """Author and text, in order."""
    name: str
    message: str
    key: str
    problem: str | None
    sessions_work: bool


def read(response: httpx.Response) -> Shown:
    """Take the page apart."""
    text = response.text
    entries = re.findall(
        r"<strong[^>]*>([^<]*)</strong>(?:(?!<strong).)*?"
        r'<p class="text"[^>]*>([^<]*)</p>',
        text,
        re.S,
    )
    problem = re.search(r'id="problem">(.*?)</div>', text, re.S)
    return Shown(
        greeting=_one(r'<p id="greeting"[^>]*>([^<]*)</p>', text),
        messages=[(html.unescape(who), html.unescape(what)) for who, what in entries],
        name=_one(r'name="name" value="([^"]*)"', text) or "",
        message=_one(r"<textarea[^>]*>\n([^<]*)</textarea>", text) or "",
        key=_one(r'name="key" value="([^"]*)"', text) or "",
        problem=html.unescape(re.sub(r"<[^>]*>", "", problem[1])) if problem else None,
        sessions_work='id="sessions"' not in text,
    )


def _one(pattern: str, text: str) -> str | None:
    found = re.search(pattern, text, re.S)
    return html.unescape(found[1]) if found else None
