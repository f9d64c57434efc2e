"""Settings from environment variables, read once, checked, and typed."""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, Self, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticUseDefault
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict
from pydantic_settings.sources import PydanticBaseSettingsSource

_SERVICE_LINK = re.compile(r"(tcp|udp|sctp)://[^/]+:\d+")
_CREDENTIALS = re.compile(r"(?<=://)[^/@]*@")


def _ignore_service_link(value: Any) -> Any:
    """Ignores `REDIS_PORT=tcp://10.0.0.1:6379`, as Kubernetes sets for a Service named redis."""
    if isinstance(value, str) and _SERVICE_LINK.fullmatch(value):
        raise PydanticUseDefault
    return value


def _base_url(value: str) -> str:
    if not re.fullmatch(r"https?://[^/?#\s]+(/[^?#\s]*)?", value):
        raise ValueError("not an http:// or https:// URL")
    return value.rstrip("/")


Port = Annotated[int, Field(ge=0, le=65535), BeforeValidator(_ignore_service_link)]
"""A TCP port. A Kubernetes service link (`tcp://…`) counts as not set."""

BaseUrl = Annotated[
    str,
    AfterValidator(_base_url),
    Field(json_schema_extra={"allowed": "an http:// or https:// URL"}),
]
"""URL of an HTTP service: scheme, host, and maybe port and path; no final slash."""

Seconds = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)]
"""A duration in seconds."""


class CommonSettings(BaseSettings):
    """Settings of every service. A subclass adds its own; each field needs a description.

    The environment variable of a field is its name in capitals. Only `load` reads the
    environment; constructing the class takes the arguments and the defaults.
    """

    model_config = SettingsConfigDict(extra="ignore", frozen=True)

    host: str = Field("0.0.0.0", description="Address both ports are bound to.")  # noqa: S104
    port: Port = Field(8080, description="Port of the application; 0 takes a free one.")
    management_port: Port = Field(
        9000, description="Port of health checks and metrics; 0 takes a free one."
    )
    demo_version: str = Field(
        "1.0",
        min_length=1,
        max_length=100,
        description="Version the service says it is, in answers and logs.",
    )
    hostname: str = Field(
        default_factory=socket.gethostname,
        min_length=1,
        description="Host name in answers; on Kubernetes the pod's name. "
        "Without it, the machine's own.",
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="Form of the log lines on standard output."
    )
    shutdown_drain: Seconds = Field(
        3,
        description="Seconds after SIGTERM in which the service is not ready but still takes new "
        "connections, so that load balancers can move away. Ctrl-C skips them.",
    )
    shutdown_grace: Seconds = Field(
        25,
        description="Seconds after SIGTERM, the drain included, in which requests in flight may "
        "finish. Keep it below the pod's terminationGracePeriodSeconds.",
    )
    otel_service_name: str = Field(
        "unknown_service", min_length=1, description="Name of the service in exported spans."
    )
    otel_exporter_otlp_endpoint: BaseUrl | None = Field(
        None,
        description="Base URL of an OTLP/HTTP collector, such as `http://collector:4318`; spans go "
        "to `/v1/traces` below it. Turns on span export.",
    )
    zipkin_endpoint: BaseUrl | None = Field(
        None,
        description="URL of a Zipkin v2 collector, such as `http://zipkin:9411/api/v2/spans`. "
        "Turns on span export.",
    )

    @model_validator(mode="after")
    def _two_ports(self) -> Self:
        if self.port == self.management_port != 0:
            raise ValueError(f"PORT and MANAGEMENT_PORT are both {self.port}; they must differ")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


def password(value: SecretStr | None, file: Path | None, variable: str) -> str | None:
    """Returns a password given as a value or in a file; `variable` is the name of the latter.

    Raises ValueError for a file that cannot be read.
    """
    if value is not None:
        return value.get_secret_value()
    if file is None:
        return None
    try:
        return file.read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ValueError(
            f"{variable}={str(file)!r} is not allowed; expected a readable file ({reason})"
        ) from None


S = TypeVar("S", bound=CommonSettings)


def load(cls: type[S], environ: Mapping[str, str] | None = None) -> S:
    """Reads the settings of a service from the environment (an empty variable counts as not set).

    A value that is not allowed ends the process with status 2, after one line on standard error
    that names the variable, its value and what is allowed.
    """
    environ = os.environ if environ is None else environ
    source = EnvSettingsSource(cls)
    source.env_vars = {name.lower(): value for name, value in environ.items() if value}
    try:
        return cls(**source())
    except ValidationError as error:
        _refuse(cls, error)


def allowed(schema: Mapping[str, Any]) -> str:
    """Describes the allowed values of a setting, from its JSON schema."""
    if "allowed" in schema:
        return str(schema["allowed"])
    if "anyOf" in schema:
        return allowed(next(part for part in schema["anyOf"] if part.get("type") != "null"))
    if "enum" in schema:
        return " or ".join(schema["enum"])
    if schema.get("type") == "boolean":
        return "true or false"
    if schema.get("type") in ("integer", "number"):
        kind = "a whole number" if schema["type"] == "integer" else "a number"
        low, high = schema.get("minimum"), schema.get("maximum")
        above = schema.get("exclusiveMinimum")
        if above is not None:
            kind += f" above {above:g}"
        if low is not None:
            kind += f" from {low:g}"
        return kind + (f" to {high:g}" if high is not None else "")
    if "maxLength" in schema:
        return f"text of {schema.get('minLength', 0)} to {schema['maxLength']} characters"
    return "text, not empty" if schema.get("minLength") else "text"


def _refuse(cls: type[CommonSettings], error: ValidationError) -> NoReturn:
    properties = cls.model_json_schema()["properties"]
    for problem in error.errors():
        if not problem["loc"]:
            _print(problem["msg"].removeprefix("Value error, "))
            continue
        name = str(problem["loc"][0])
        schema = properties[name]
        secret = schema.get("writeOnly") or schema.get("format") == "password"
        value = "(hidden)" if secret else _shown(problem["input"])
        expected = allowed(schema)
        if problem["type"] == "value_error" and expected.startswith("text"):
            # A validator of the service's own; its message says what it wants.
            expected = problem["msg"].removeprefix("Value error, ")
        _print(f"{name.upper()}={value} is not allowed; expected {expected}")
    sys.exit(2)


def _print(reason: str) -> None:
    print(f"error: {reason}", file=sys.stderr)  # noqa: T201


def _shown(value: Any) -> str:
    text = repr(_CREDENTIALS.sub("***@", str(value)))
    return text if len(text) <= 100 else text[:100] + "…"
