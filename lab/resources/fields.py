"""Fields of hand-written models that the lab refuses or that have no effect, with the reason.

For the kinds without a schema to go by: Kubernetes' own, the mesh configuration, IstioOperator.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, get_args, get_origin

from pydantic import Field
from pydantic.fields import FieldInfo

from lab.resources import checks
from lab.resources.checks import NO_EFFECT, fields
from lab.resources.resource import Check, Model


def refused(reason: str, **options: Any) -> Any:
    """Declares a field that the lab refuses at apply; `reason` says why or what instead."""
    return _declared(checks.refused("", reason), options)


def ignored(reason: str, **options: Any) -> Any:
    """Declares a field that is a warning of its own."""
    return _declared(checks.warned("", reason), options)


def inert(reason: str) -> Any:
    """Declares a field without effect; one warning names all those of a document."""
    return _declared(Check("", checks.never, NO_EFFECT, "warning", reason), {})


def _declared(check: Check, options: dict[str, Any]) -> Any:
    field: FieldInfo = Field(default=None, **options)
    field.metadata.append(check)
    return field


def declared(model: type[Model], prefix: str = "") -> Iterator[Check]:
    """Yields the checks that the fields of a model, and of those below it, declare."""
    for attribute, name in fields(model):
        info = model.model_fields[attribute]
        if found := [item for item in info.metadata if isinstance(item, Check)]:
            yield replace(found[0], where=f"{prefix}{name}")
        elif (inner := model_in(info.annotation)) is not None:
            yield from declared(inner[0], f"{prefix}{name}{inner[1]}.")


def model_in(annotation: Any) -> tuple[type[Model], str] | None:
    """Returns the model in an annotation, with `[]` in `list[Model] | None` and `{}` in a map."""
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return annotation, ""
    kind = {list: "[]", dict: "{}"}.get(get_origin(annotation), "")
    for argument in get_args(annotation):
        if (inner := model_in(argument)) is not None:
            return inner[0], kind or inner[1]
    return None
