"""Settings of the message service."""

from pydantic import Field

from services.common.settings import CommonSettings, Text


class Settings(CommonSettings):
    """Environment variables of the message service."""

    otel_service_name: Text = "message-service"
    """Name of the service in exported spans."""
    greeting: str = Field("Hello $name from $hostname with $version", min_length=1, max_length=1000)
    """Template of the greeting; `$name`, `$hostname` and `$version` are filled in."""
