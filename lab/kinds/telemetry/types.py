"""Telemetry: types of the API of Istio.

Written by `python -m scripts.istio_schema` from lab/resources/istio.json.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from lab.kinds.types import LabelSelector
from lab.resources.resource import Model


class AccessLogFilter(Model):
    expression: str = ""


class ModeSelector(Model):
    mode: Literal["CLIENT_AND_SERVER", "CLIENT", "SERVER"] = "CLIENT_AND_SERVER"


class ProviderRef(Model):
    name: Annotated[str, Field(min_length=1)]


class AccessLogging(Model):
    disabled: bool | None = None
    filter: AccessLogFilter | None = None
    match: ModeSelector | None = None
    providers: list[ProviderRef] = Field(default_factory=list)


class NamedTag(Model):
    default_value: str = ""
    name: Annotated[str, Field(min_length=1)]


class LiteralTag(Model):
    value: Annotated[str, Field(min_length=1)]


class CustomTag(Model):
    one_of = (("literal", "environment", "header", "formatter"),)
    environment: NamedTag | None = None
    formatter: LiteralTag | None = None
    header: NamedTag | None = None
    literal: LiteralTag | None = None


class Tracing(Model):
    custom_tags: dict[str, CustomTag] | None = None
    disable_context_propagation: bool | None = None
    disable_span_reporting: bool | None = None
    enable_istio_tags: bool | None = None
    match: ModeSelector | None = None
    providers: list[ProviderRef] = Field(default_factory=list)
    random_sampling_percentage: Annotated[float, Field(ge=0, le=100)] | None = None
    use_request_id_for_trace_sampling: bool | None = None


class TelemetrySpec(Model):
    access_logging: list[AccessLogging] = Field(default_factory=list)
    metrics: Any = None
    selector: LabelSelector | None = None
    target_ref: Any = None
    target_refs: Any = None
    tracing: list[Tracing] = Field(default_factory=list)


class Telemetry(Model):
    spec: TelemetrySpec = TelemetrySpec()
