"""Telemetry: the typed body and what istiod's validation says about it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from lab.kinds.selection import Selecting, selector_problems
from lab.resources.istio import IstioModel, Number, Text, field_problems, refused
from lab.resources.resource import Kind, Path, Problem, Resource

WorkloadMode = Literal["CLIENT_AND_SERVER", "CLIENT", "SERVER"]


class ProviderRef(IstioModel):
    name: Text


class ModeSelector(IstioModel):
    mode: WorkloadMode = "CLIENT_AND_SERVER"


class LiteralTag(IstioModel):
    value: Text


class NamedTag(IstioModel):
    name: Text
    default_value: Text = ""


class CustomTag(IstioModel):
    literal: LiteralTag | None = None
    environment: NamedTag | None = refused("the environment of a proxy; use a literal")
    header: NamedTag | None = None
    formatter: LiteralTag | None = None


class Tracing(IstioModel):
    match: ModeSelector | None = None
    providers: list[ProviderRef] = Field(default_factory=list)
    random_sampling_percentage: Number | None = None
    disable_span_reporting: bool | None = None
    disable_context_propagation: bool | None = None
    custom_tags: dict[Text, CustomTag] | None = None
    enable_istio_tags: bool | None = None
    use_request_id_for_trace_sampling: bool | None = None


class AccessLogFilter(IstioModel):
    expression: Text = ""


class AccessLogging(IstioModel):
    match: ModeSelector | None = None
    providers: list[ProviderRef] = Field(default_factory=list)
    disabled: bool | None = None
    filter: AccessLogFilter | None = None


class TelemetrySpec(Selecting):
    tracing: list[Tracing] = Field(default_factory=list)
    access_logging: list[AccessLogging] = Field(default_factory=list)
    metrics: list[dict[str, object]] | None = refused(
        "metrics come from Envoy itself: the filter istio.stats is not in the Envoy of the lab"
    )


class Telemetry(IstioModel):
    spec: TelemetrySpec = TelemetrySpec()


def validate(resource: Resource) -> Iterator[Problem]:
    """What istiod's webhook says of a Telemetry, and what the lab does not translate."""
    spec: TelemetrySpec = resource.spec
    path: Path = ("spec",)
    yield from field_problems(spec, path)
    yield from selector_problems(spec, path)
    if len(spec.tracing) > 1:
        yield Problem((*path, "tracing"), "multiple tracing is not currently supported", "warning")
    for index, tracing in enumerate(spec.tracing):
        yield from _tracing(tracing, (*path, "tracing", index))
    for index, logging in enumerate(spec.access_logging):
        yield from _providers(logging.providers, (*path, "accessLogging", index))


def _tracing(tracing: Tracing, path: Path) -> Iterator[Problem]:
    if len(tracing.providers) > 1:
        yield Problem(
            (*path, "providers"), "multiple providers is not currently supported", "warning"
        )
    yield from _providers(tracing.providers, path)
    sampling = tracing.random_sampling_percentage
    if sampling is not None and not 0 <= sampling <= 100:
        yield Problem(
            (*path, "randomSamplingPercentage"),
            "randomSamplingPercentage must be in range [0.0, 100.0]",
        )
    for name, tag in (tracing.custom_tags or {}).items():
        where: Path = (*path, "customTags", name)
        if not name:
            yield Problem(where, "tag name may not be empty")
        given = [tag.literal, tag.environment, tag.header, tag.formatter]
        if sum(kind is not None for kind in given) != 1:
            yield Problem(where, "a tag has exactly one of literal, environment, header, formatter")
        if tag.literal is not None and not tag.literal.value:
            yield Problem((*where, "literal"), "literal tag value may not be empty")
        if tag.header is not None and not tag.header.name:
            yield Problem((*where, "header"), "header tag name may not be empty")


def _providers(providers: list[ProviderRef], path: Path) -> Iterator[Problem]:
    for index, provider in enumerate(providers):
        if not provider.name:
            yield Problem((*path, "providers", index), "providers.name may not be empty")


KINDS: tuple[Kind, ...] = (
    Kind(
        group="telemetry.istio.io",
        kind="Telemetry",
        plural="telemetries",
        versions=("v1", "v1alpha1"),
        body=Telemetry,
        short_names=("telemetry",),
        validate=validate,
    ),
)
