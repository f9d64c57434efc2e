"""Sessions in Redis: an opaque token in a cookie, the visitor's name behind it."""

import logging
import re
import secrets
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from services.common.metrics import backend_counter
from services.common.outage import Outage
from services.common.telemetry import Attributes, CallError, client_span
from services.ui.settings import Settings

COOKIE = "SESSION"
TTL_SECONDS = 30 * 60
"""Seconds after its last use at which a session ends."""

_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")

logger = logging.getLogger(__name__)


class SessionsDownError(CallError):
    """Redis does not answer, or takes no writes; the text is the reason."""


class Sessions:
    """The sessions. Every method raises SessionsDownError."""

    def __init__(self, settings: Settings) -> None:
        """Makes the client; it connects when it is first used, and again whenever it has to.

        A pooled connection may be closed meanwhile (a restart of Redis, an authorization policy of
        the mesh), so a command is tried once more on a new connection, without a pause. One that
        timed out is not: the visitor has waited.
        """
        self._redis = Redis.from_url(
            settings.redis(),
            socket_connect_timeout=1,
            socket_timeout=1,
            retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
            decode_responses=True,
        )
        address = self._redis.connection_pool.connection_kwargs
        self._attributes: Attributes = {
            "db.system.name": "redis",
            "server.address": address.get("host", "localhost"),
            "server.port": address.get("port", 6379),
        }
        self._outage = Outage(logger, "Sessions are unavailable", "Sessions are available again")

    async def close(self) -> None:
        """Closes all connections."""
        await self._redis.aclose()

    async def probe(self) -> None:
        """Returns when Redis takes writes."""
        await self._run("SET", "readiness", "1", "EX", 60)

    async def name_of(self, token: str) -> str | None:
        """Returns the name in a session, which then lasts another half hour; None without one.

        Redis is asked in any case, so that every visitor is told when sessions do not work.
        """
        if not _TOKEN.fullmatch(token):
            await self._run("PING")
            return None
        name: str | None = await self._run("GETEX", f"session:{token}", "EX", TTL_SECONDS)
        return name

    async def save(self, token: str, name: str) -> str:
        """Puts a name into the session; without one, starts one. Returns the session's token.

        A token that was not given out here is not taken over: whoever planted it would know it.
        """
        if _TOKEN.fullmatch(token):
            key = f"session:{token}"
            if await self._run("SET", key, name, "EX", TTL_SECONDS, "XX"):
                return token
        token = secrets.token_urlsafe(32)
        await self._run("SET", f"session:{token}", name, "EX", TTL_SECONDS)
        return token

    async def end(self, token: str) -> None:
        """Forgets a session."""
        if _TOKEN.fullmatch(token):
            await self._run("DEL", f"session:{token}")

    async def _run(self, command: str, *arguments: str | int) -> Any:
        """Runs a command, with its span and its metric."""
        outcome = "ok"
        with client_span(command, {**self._attributes, "db.operation.name": command}):
            try:
                answer = await self._redis.execute_command(command, *arguments)  # type: ignore[no-untyped-call]
            except RedisError as error:
                outcome = _outcome(error)
                self._outage.fails(error)
                raise SessionsDownError(str(error), outcome) from error
            finally:
                backend_counter("redis", outcome).inc()
        if command == "SET":  # A full or read-only Redis still answers others.
            self._outage.works()
        return answer


def _outcome(error: RedisError) -> str:
    if isinstance(error, RedisTimeoutError):
        return "timeout"
    return "unreachable" if isinstance(error, RedisConnectionError) else "error"
