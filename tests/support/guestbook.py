"""The whole guestbook as processes of this machine, without containers and without a mesh."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from tests.support.redis import RedisServer
from tests.support.service import Service, environment


class Guestbook:
    """Redis, a message service, a guestbook service on SQLite, and as many uis as are started."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._exit = ExitStack()
        self._uis: dict[str, Service] = {}

    def __enter__(self) -> Self:
        with self._exit:
            self._redis = RedisServer(self._folder)
            self._exit.callback(self._redis.stop)
            self._redis.start()
            self.message = self._start("message", HOSTNAME="message-service-545c84c666-nqfx6")
            self._start_guestbook(0)
            self._exit = self._exit.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._exit.close()

    def restart_guestbook(self) -> None:
        """Starts the guestbook service again, on the port it had before."""
        self._start_guestbook(urlsplit(self.guestbook.url).port or 0)

    def start_ui(self, **settings: object) -> Service:
        """Starts one more ui; it is stopped at the end, if it still runs then."""
        return self._start(
            "ui",
            HOSTNAME="ui-6d4cf56db6-x7k2p",
            MESSAGE_HOST=self.message.url,
            GUESTBOOK_HOST=self.guestbook.url,
            REDIS_HOST="127.0.0.1",
            REDIS_PORT=self._redis.port,
            **settings,
        )

    def ui(self, **settings: object) -> Service:
        """Returns the ui with these settings, started when it is first asked for."""
        key = str(settings)
        if key not in self._uis:
            self._uis[key] = self.start_ui(**settings)
        return self._uis[key]

    def _start_guestbook(self, port: int) -> None:
        database = f"sqlite:///{self._folder}/guestbook.db"
        self.guestbook = self._start("guestbook", DATABASE_URL=database, PORT=port)

    def _start(self, name: str, **settings: object) -> Service:
        service = Service(name, environment(**settings))
        self._exit.callback(service.stop)
        return service
