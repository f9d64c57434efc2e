"""Visitors of the guestbook: they read the page, sign it, and read on.

Each user is one browser with its own session cookie. Run it by hand with
`locust -f compose/locust/locustfile.py --host http://localhost:8080`.
"""

from __future__ import annotations

import random
from html.parser import HTMLParser

from locust import HttpUser, between, task

NAMES = ("Ada", "Grace", "Edsger", "Barbara", "Donald", "Radia", "Tim", "Margaret")
REMARKS = (
    "Lovely place.",
    "We came for the mesh and stayed for the view.",
    "Was here.",
    "The sidecars are great company.",
    "Back next year!",
)


class _Form(HTMLParser):
    """The hidden fields of the page's forms, which a browser would send back."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        field = dict(attrs)
        if tag == "input" and field.get("type") == "hidden" and (name := field.get("name")):
            self.hidden[name] = field.get("value") or ""


class Visitor(HttpUser):
    """Reads three pages for each message it leaves, a few seconds apart."""

    wait_time = between(1, 4)

    def on_start(self) -> None:
        self.name = random.choice(NAMES)  # noqa: S311 - not a secret

    @task(3)
    def read(self) -> None:
        with self.client.get("/", catch_response=True) as page:
            if "Guestbook Service is currently unavailable" in page.text:
                page.failure("the guestbook service is unavailable")

    @task(1)
    def sign(self) -> None:
        form = _Form()
        form.feed(self.client.get("/").text)
        fields = {**form.hidden, "name": self.name, "message": random.choice(REMARKS)}  # noqa: S311
        with self.client.post(
            "/greet", data=fields, allow_redirects=False, catch_response=True
        ) as answer:
            if answer.status_code == 303:
                answer.success()
            else:
                answer.failure(f"not stored: {answer.status_code}")
