"""The page as a visitor reads it, taken from its HTML."""

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
    times: list[str]
    """The times of those messages that have one."""
    reasons: list[str]
    """Why a back end did not answer."""
    name: str
    message: str
    key: str
    time: str
    problem: str | None
    sessions_work: bool

    def form(self, **changes: str) -> dict[str, str]:
        """Returns the fields a browser sends, after the visitor changed these."""
        filled = {"name": self.name, "message": self.message, "key": self.key, "time": self.time}
        return {**filled, **changes}


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
        times=_all(r"<time[^>]*>([^<]*)</time>", text),
        reasons=_all(r'class="reason"[^>]*>([^<]*)<', text),
        name=_one(r'name="name" value="([^"]*)"', text) or "",
        message=_one(r"<textarea[^>]*>\n([^<]*)</textarea>", text) or "",
        key=_one(r'name="key" value="([^"]*)"', text) or "",
        time=_one(r'name="time" value="([^"]*)"', text) or "",
        problem=html.unescape(re.sub(r"<[^>]*>", "", problem[1])) if problem else None,
        sessions_work='id="sessions"' not in text,
    )


def request_id(response: httpx.Response) -> str | None:
    """Returns the request id that an error page shows."""
    return _one(r'id="request-id"[^>]*>([^<]*)<', response.text)


def _one(pattern: str, text: str) -> str | None:
    return next(iter(_all(pattern, text)), None)


def _all(pattern: str, text: str) -> list[str]:
    return [html.unescape(found) for found in re.findall(pattern, text, re.S)]
