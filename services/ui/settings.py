"""What the ui reads from the environment, beyond what all services read."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from services.common.settings import BaseUrl, CommonSettings, Port

CssColour = Annotated[
    str,
    Field(
        pattern=r"^(#([0-9a-fA-F]{3}|[0-9a-fA-F]{6})|[a-zA-Z]{3,30})$",
        json_schema_extra={"allowed": "a CSS colour name such as goldenrod, or #rgb or #rrggbb"},
    ),
]


class Settings(CommonSettings):
    """Settings of the ui."""

    otel_service_name: str = Field(
        "ui", min_length=1, description="Name of the service in exported spans."
    )
    message_host: BaseUrl = Field(
        "http://message-service", description="URL of the message service."
    )
    guestbook_host: BaseUrl = Field(
        "http://guestbook-service", description="URL of the guestbook service."
    )
    redis_host: str = Field(
        "redis", min_length=1, description="Host of the Redis that keeps the sessions."
    )
    redis_port: Port = Field(6379, description="Port of that Redis.")
    backend_timeout: float = Field(
        15,
        gt=0,
        le=300,
        description="Seconds the message and guestbook services may take, retries of a mesh "
        "included, before the page says that they are unavailable.",
    )
    ui_background: CssColour | None = Field(
        None,
        description="Background colour of the page, to tell one version from another; "
        "white when not set.",
    )
