"""Settings of the ui."""

from pathlib import Path
from typing import Annotated, Self
from urllib.parse import quote

from pydantic import AfterValidator, Field, SecretStr, model_validator
from redis.asyncio import ConnectionPool
from redis.exceptions import RedisError

from services.common.settings import BaseUrl, CommonSettings, Port, Text, password

CssColour = Annotated[
    str,
    Field(
        pattern=r"^(#([0-9a-fA-F]{3}|[0-9a-fA-F]{6})|[a-zA-Z]{3,30})$",
        json_schema_extra={"allowed": "a CSS colour name such as goldenrod, or #rgb or #rrggbb"},
    ),
]

_REDIS_URLS = "redis://USER:PASSWORD@HOST:PORT/DATABASE or rediss://… for TLS"


def _redis_url(value: SecretStr) -> SecretStr:
    url = value.get_secret_value()
    try:
        ConnectionPool.from_url(url).make_connection()  # type: ignore[no-untyped-call]
    except (ValueError, TypeError, RedisError):
        url = ""
    if not url.startswith(("redis://", "rediss://")):
        raise ValueError(_REDIS_URLS)
    return value


class Settings(CommonSettings):
    """Environment variables of the ui."""

    otel_service_name: Text = "ui"
    """Name of the service in exported spans."""
    message_host: BaseUrl = "http://message-service"
    """URL of the message service."""
    guestbook_host: BaseUrl = "http://guestbook-service"
    """URL of the guestbook service."""
    redis_url: Annotated[SecretStr, AfterValidator(_redis_url)] | None = Field(
        None,
        description=f"The Redis that keeps the sessions, as one URL: `{_REDIS_URLS}`. "
        "Wins over the other `REDIS_…` ones.",
    )
    redis_host: Text = "redis"
    """Host of that Redis."""
    redis_port: Port = 6379
    """Port of that Redis."""
    redis_password: SecretStr | None = None
    """Password of that Redis."""
    redis_password_file: Path | None = None
    """File that holds the password; used when `REDIS_PASSWORD` is not set."""
    redis_tls: bool = False
    """Whether Redis is spoken to over TLS."""
    backend_timeout: float = Field(15, gt=0, le=300)
    """Seconds the message and guestbook services may take, retries of a mesh included, before the
    page says that they are unavailable."""
    ui_background: CssColour | None = None
    """Background colour of the page, to tell one version from another; white when not set."""

    @model_validator(mode="after")
    def _readable_password(self) -> Self:
        self.redis()
        return self

    def redis(self) -> str:
        """Returns the URL of Redis."""
        if self.redis_url is not None:
            return self.redis_url.get_secret_value()
        secret = password(self.redis_password, self.redis_password_file, "REDIS_PASSWORD_FILE")
        login = f":{quote(secret, safe='')}@" if secret else ""
        host = f"[{self.redis_host}]" if ":" in self.redis_host else self.redis_host
        return f"redis{'s' if self.redis_tls else ''}://{login}{host}:{self.redis_port}"
