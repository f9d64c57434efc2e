"""Settings of the guestbook service."""

from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, field_validator, model_validator
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from services.common.settings import CommonSettings, Port, Text, password

_ALLOWED_URLS = (
    "mysql+pymysql://USER:PASSWORD@HOST:PORT/DATABASE or sqlite:////absolute/path/to/file"
)


class Settings(CommonSettings):
    """Environment variables of the guestbook service."""

    otel_service_name: Text = "guestbook-service"
    """Name of the service in exported spans."""
    database_url: SecretStr | None = Field(
        None,
        description=f"The database as one URL: `{_ALLOWED_URLS}`. Wins over the `MYSQL_…` ones.",
    )
    mysql_host: Text = "mysql"
    """Host of the MySQL server."""
    mysql_port: Port = 3306
    """Port of the MySQL server."""
    mysql_database: Text = "guestbook"
    """Database that holds the messages; it must exist."""
    mysql_user: Text = "guestbook"
    """User of the MySQL server."""
    mysql_password: SecretStr | None = None
    """Password of that user."""
    mysql_password_file: Path | None = None
    """File that holds the password; used when `MYSQL_PASSWORD` is not set."""

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        try:
            url = make_url(value.get_secret_value())
        except (ArgumentError, ValueError):
            raise ValueError(_ALLOWED_URLS) from None
        known = url.drivername in ("mysql+pymysql", "sqlite", "sqlite+pysqlite")
        if not known or url.database in (None, "", ":memory:"):
            raise ValueError(_ALLOWED_URLS)
        return value

    @model_validator(mode="after")
    def _readable_password(self) -> Self:
        self.url()
        return self

    def url(self) -> URL:
        """Returns the address of the database."""
        secret = password(self.mysql_password, self.mysql_password_file, "MYSQL_PASSWORD_FILE")
        if self.database_url is not None:
            return make_url(self.database_url.get_secret_value())
        place = (self.mysql_host, self.mysql_port, self.mysql_database)
        return URL.create("mysql+pymysql", self.mysql_user, secret, *place)
