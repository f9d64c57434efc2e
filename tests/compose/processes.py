"""The whole guestbook as processes of this machine: what Compose runs, without containers."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.services.process import Service, environment
from tests.services.ui.conftest import RedisServer


class Guestbook:
    """Redis, a message service, a guestbook service on SQLite, and as many uis as are started."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("redis-server") is None:
            pytest.skip("redis-server is not installed (Debian: apt-get install redis-server)")
        self._folder = folder
        self._exit = ExitStack()
        self.services: dict[str, Service] = {}

    def __enter__(self) -> Self:
        with self._exit:
            self._redis = RedisServer(self._folder)
            self._exit.callback(self._redis.stop)
            self._redis.start()
            self.services["message-service"] = self._start("message")
            self.services["guestbook-service"] = self._start(
                "guestbook", DATABASE_URL=f"sqlite:///{self._folder}/guestbook.db"
            )
            self._exit = self._exit.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._exit.close()

    def start_ui(self, version: str = "1.0") -> Service:
        """One more ui; it is stopped at the end, if it still runs then."""
        return self._start(
            "ui",
            DEMO_VERSION=version,
            MESSAGE_HOST=self.services["message-service"].url,
            GUESTBOOK_HOST=self.services["guestbook-service"].url,
            REDIS_HOST="127.0.0.1",
            REDIS_PORT=self._redis.port,
        )

    def _start(self, name: str, **settings: object) -> Service:
        service = Service(name, environment(**settings))
        self._exit.callback(service.stop)
        return service
