"""A client of the guestbook service."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import httpx

from tests.support.service import Service
from tests.support.wait import wait

PATH = "/api/messages"


class Client:
    """Speaks HTTP with a running guestbook."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.http = httpx.Client(base_url=service.url, timeout=30, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.http.close()

    def get(self, path: str = PATH, **options: Any) -> httpx.Response:
        return self.http.get(path, **options)

    def post(
        self, document: object = None, key: str | None = None, **options: Any
    ) -> httpx.Response:
        headers = {} if key is None else {"Idempotency-Key": key}
        return self.http.post(PATH, json=document, headers=headers, **options)

    def add(self, message: str = "hello", username: str = "Ann", **more: object) -> str:
        """Store a message; answers its link."""
        answer = self.post({"username": username, "message": message, **more})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["_links"]["self"]["href"])

    def all(self) -> list[dict[str, Any]]:
        """Every message, page by page, by the links."""
        found: list[dict[str, Any]] = []
        url: str | None = f"{PATH}?size=1000"
        while url:
            page = self.http.get(url).raise_for_status().json()
            found += page["_embedded"]["messages"]
            url = page["_links"].get("next", {}).get("href")
        return found

    def total(self, **query: object) -> int:
        """The number of messages, as a page of this query gives it."""
        answer = self.get(params=query)
        assert answer.status_code == 200, answer.text
        return int(answer.json()["page"]["totalElements"])

    def readiness(self) -> httpx.Response:
        url = f"{self.service.management}/actuator/health/readiness"
        return httpx.get(url, trust_env=False, timeout=10)


def until_ready(client: Client, seconds: float = 20) -> None:
    wait(lambda: client.readiness().status_code == 200, "the guestbook to be ready", seconds)


def until_unready(client: Client, seconds: float = 20) -> None:
    wait(lambda: client.readiness().status_code == 503, "the guestbook to be unready", seconds)
