"""Sessions in Redis: an opaque token in a cookie, the visitor's name behind it."""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable
from typing import TypeGuard, cast

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from services.ui.settings import Settings

COOKIE = "SESSION"
TTL_SECONDS = 30 * 60
"""A session ends when it was not used for this long."""

Down = (RedisError, OSError)
"""What every function here raises when Redis does not answer (TimeoutError is an OSError)."""

_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")


def connect(settings: Settings) -> Redis:
    """Make the client; it connects when it is first used, and again whenever it has to.

    A pooled connection may be closed under us (a restart of Redis, an authorization policy of
    the mesh), so a command is tried once more on a new connection, without a pause. One that timed
    out is not: the visitor has waited.
    """
    return Redis(
        host=settings.redis_host,
        port=settings.redis_port,
        socket_connect_timeout=1,
        socket_timeout=1,
        retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
        decode_responses=True,
    )


async def ping(redis: Redis) -> None:
    """Whether sessions work: raises when Redis does not answer."""
    await cast("Awaitable[bool]", redis.ping())


async def name_of(redis: Redis, token: str | None) -> str | None:
    """The name in a session, which then lasts another half hour; None without a session.

    Redis is asked in any case, so that every visitor is told when sessions do not work.
    """
    if not _is_token(token):
        await ping(redis)
        return None
    name: str | None = await redis.getex(_key(token), ex=TTL_SECONDS)
    return name


async def save(redis: Redis, token: str | None, name: str) -> str:
    """Put a name into the session; without one, start one. Returns the session's token.

    A token we did not give out is not taken over: whoever planted it would know it.
    """
    if _is_token(token) and await redis.set(_key(token), name, ex=TTL_SECONDS, xx=True):
        return token
    token = secrets.token_urlsafe(32)
    await redis.set(_key(token), name, ex=TTL_SECONDS)
    return token


async def end(redis: Redis, token: str | None) -> None:
    """Forget a session."""
    if _is_token(token):
        await redis.delete(_key(token))


def _is_token(token: str | None) -> TypeGuard[str]:
    return token is not None and _TOKEN.fullmatch(token) is not None


def _key(token: str) -> str:
    return f"session:{token}"
