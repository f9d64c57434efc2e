"""What the typed Istio kinds share: value types, and fields the lab refuses or Istio ignores.

A model lists every field of Istio's CRD. A field outside the lab's subset is declared with
`refused(reason)` and one that Istio itself ignores with `ignored(reason)`, so that both are
answered by name instead of being "unknown" or silently dropped; `field_problems` finds them.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from lab.resources.resource import Model, Path, Problem
from lab.resources.values import *
from lab.resources.values import (
    export_to,
    parse_duration,
)

NETWORKING_VERSIONS = ("v1", "v1beta1", "v1alpha3")
"""The versions of networking.istio.io that Istio 1.30 serves for its main kinds."""


class IstioModel(Model):
    """Istio's JSON has camelCase names only; the snake_case spelling is unknown to a cluster."""

    model_config = ConfigDict(populate_by_name=False, validate_by_alias=True)


def refused(reason: str, **options: Any) -> Any:
    """A field of Istio's API that the lab refuses at apply; `reason` says why or what instead."""
    return Field(default=None, json_schema_extra={"refused": reason}, **options)


def ignored(reason: str, **options: Any) -> Any:
    """A field Istio accepts and does nothing with, or has deprecated; setting it is a warning."""
    return Field(default=None, json_schema_extra={"ignored": reason}, **options)


def field_problems(value: object, path: Path) -> Iterator[Problem]:
    """Every refused (error) or ignored (warning) field set in `value` and below it."""
    if isinstance(value, BaseModel):
        for name, info in type(value).model_fields.items():
            item = getattr(value, name)
            if item is None:
                continue
            where = (*path, info.alias or name)
            extra = info.json_schema_extra
            if isinstance(extra, dict) and "refused" in extra:
                yield Problem(where, f"not supported by the lab: {extra['refused']}")
                continue
            if isinstance(extra, dict) and "ignored" in extra:
                yield Problem(where, str(extra["ignored"]), "warning")
            yield from field_problems(item, where)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from field_problems(item, (*path, index))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from field_problems(item, (*path, key))


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
Port = Annotated[int, Field(strict=True)]
"""A port number; the range is istiod's to check, with its own message."""
Integer = Annotated[int, Field(strict=True)]
Number = Annotated[float, Field(strict=True)]
Text = Annotated[str, StringConstraints(strict=True)]


class Percent(IstioModel):
    value: Number = 0.0


def export_to_problems(names: list[str] | None, path: Path) -> Iterator[Problem]:
    for problem in export_to(names or []):
        yield Problem((*path, *problem.path), problem.reason)
