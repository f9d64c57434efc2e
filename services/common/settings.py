"""Settings from environment variables, read once, checked, and typed."""

import os
import re
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticUseDefault

_SERVICE_LINK = re.compile(r"(tcp|udp|sctp)://[^/]+:\d+")
_CREDENTIALS = re.compile(r"(?<=://).*@")


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

_URL = Field(json_schema_extra={"allowed": "an http:// or https:// URL"})
BaseUrl = Annotated[str, AfterValidator(_base_url), _URL]
"""URL of an HTTP service: scheme, host, and maybe port and path; no final slash."""

Seconds = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)]
"""A duration in seconds."""

Text = Annotated[str, Field(min_length=1)]
"""Text that is not empty."""


class CommonSettings(BaseModel):
    """Settings of every service. A subclass adds its own; each has a description below it.

    The environment variable of a field is its name in capitals. Only `load` reads the
    environment; constructing the class takes the arguments and the defaults.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    host: str = "0.0.0.0"  # noqa: S104
    """Address both ports are bound to."""
    port: Port = 8080
    """Port of the application; 0 takes a free one."""
    management_port: Port = 9000
    """Port of health checks and metrics; 0 takes a free one."""
    demo_version: str = Field("1.0", min_length=1, max_length=100)
    """Version the service says it is, in answers and logs."""
    hostname: Text = Field(default_factory=socket.gethostname)
    """Host name in answers; on Kubernetes the pod's name. Without it, the machine's own."""
    log_format: Literal["text", "json"] = "text"
    """Form of the log lines on standard output."""
    shutdown_drain: Seconds = 3
    """Seconds after SIGTERM in which the service is not ready but still takes new connections, so
    that load balancers can move away. Ctrl-C skips them."""
    shutdown_grace: Seconds = 25
    """Seconds after SIGTERM, the drain included, in which requests in flight may finish. Keep it
    below the pod's terminationGracePeriodSeconds."""
    otel_service_name: Text = "unknown_service"
    """Name of the service in exported spans."""
    otel_exporter_otlp_endpoint: BaseUrl | None = None
    """Base URL of an OTLP/HTTP collector, such as `http://collector:4318`; spans go to `/v1/traces`
    below it. Turns on span export."""
    zipkin_endpoint: BaseUrl | None = None
    """URL of a Zipkin v2 collector, such as `http://zipkin:9411/api/v2/spans`. Turns on span
    export."""

    @model_validator(mode="after")
    def _two_ports(self) -> Self:
        if self.port == self.management_port != 0:
            raise ValueError(f"PORT and MANAGEMENT_PORT are both {self.port}; they must differ")
        return self


S = TypeVar("S", bound=CommonSettings)


def load(cls: type[S], environ: Mapping[str, str] = os.environ) -> S:
    """Reads the settings of a service from the environment (an empty variable counts as not set).

    A value that is not allowed ends the process with status 2, after one line on standard error
    that names the variable, its value and what is allowed.
    """
    try:
        return cls.model_validate({name.lower(): value for name, value in environ.items() if value})
    except ValidationError as error:
        properties = cls.model_json_schema()["properties"]
        for problem in error.errors():
            print(f"error: {_reason(problem, properties)}", file=sys.stderr)  # noqa: T201
        sys.exit(2)


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
        expected = f"expected a readable file ({reason})"
        raise ValueError(f"{variable}={str(file)!r} is not allowed; {expected}") from None


def allowed(schema: Mapping[str, Any]) -> str:
    """Describes the allowed values of a setting, from its JSON schema."""
    if "allowed" in schema:
        return str(schema["allowed"])
    if "anyOf" in schema:
        return allowed(next(part for part in schema["anyOf"] if part.get("type") != "null"))
    if "enum" in schema:
        return " or ".join(schema["enum"])
    if schema["type"] == "boolean":
        return "true or false"
    if schema["type"] in ("integer", "number"):
        text = "a whole number" if schema["type"] == "integer" else "a number"
        limits = {"exclusiveMinimum": "above", "minimum": "from", "maximum": "to"}
        parts = [f" {word} {schema[name]:g}" for name, word in limits.items() if name in schema]
        return "".join([text, *parts])
    if "maxLength" in schema:
        return f"text of {schema.get('minLength', 0)} to {schema['maxLength']} characters"
    return "text, not empty" if schema.get("minLength") else "text"


def _reason(problem: Mapping[str, Any], properties: Mapping[str, Any]) -> str:
    """Returns what is wrong with a setting."""
    message: str = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:
        return message
    name = str(problem["loc"][0])
    value = repr(_CREDENTIALS.sub("***@", str(problem["input"])))
    if len(value) > 100:
        value = value[:100] + "…"
    expected = allowed(properties[name])
    if problem["type"] == "value_error" and expected.startswith("text"):
        expected = message  # A validator of the service's own; its message says what it wants.
    return f"{name.upper()}={value} is not allowed; expected {expected}"
