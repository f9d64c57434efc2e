"""Checks of a typed resource: rows of a table, each about the fields that a pattern matches."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any

from pydantic import AliasChoices

from lab.resources.resource import Check, Model, Path, Problem, Resource

NO_EFFECT = "no effect"
"""The text of a warning that is joined with the others of its document."""


def never(_value: object) -> bool:
    return False


def refused(where: str, reason: str) -> Check:
    """Refuses a field that the lab does not support; `reason` says why, or what instead."""
    return Check(where, never, f"not supported by the lab: {reason}", reason=reason)


def warned(where: str, reason: str) -> Check:
    """Warns about a field that is deprecated or has no effect."""
    return Check(where, never, reason, "warning", reason)


def problems(resource: Resource, checks: tuple[Check, ...]) -> list[Problem]:
    """Returns the problems of a resource in the order of the rows, then of exclusive fields."""
    places = tuple(_places(resource.body, "", ()))
    found: list[Problem] = []
    no_effect: dict[str | int, None] = {}
    for check in checks:
        if not check.where:
            found += _answers(check, (), resource)
        for field, path, value in places:
            if not matches(check.where, field):
                continue
            if check.text == NO_EFFECT:
                no_effect[path[-1]] = None
            else:
                found += _answers(check, path, value)
    if no_effect:
        names = ", ".join(map(str, no_effect))
        reason = f"no effect in the lab (see docs/supported-fields.md): {names}"
        found.append(Problem((), reason, "warning"))
    faulty = {problem.path for problem in found if problem.severity == "error"}
    return found + [
        Problem(path, f"only one of {', '.join(names[:-1])} and {names[-1]} may be set")
        for _, path, value in places
        if isinstance(value, Model) and path not in faulty
        for names in exclusive(value)
        if len(names) > 1
    ]


def exclusive(value: Model) -> Iterator[list[str]]:
    """Yields, for each group of exclusive fields, the names of those that are set."""
    attributes = {name: attribute for attribute, name in fields(type(value))}
    for group in value.one_of:
        yield [name for name in group if getattr(value, attributes[name]) is not None]


def exactly_one(value: Model) -> bool:
    """Returns whether one field of the model's first exclusive group is set."""
    return len(next(exclusive(value))) == 1


def _answers(check: Check, path: Path, value: Any) -> Iterator[Problem]:
    answer = check.test(value)
    if answer is None or answer is True:
        return
    if answer is False or isinstance(answer, str):
        field = path[-1] if path else ""
        text = check.text
        if not check.reason:
            text = text.format(value=value, field=field, reason=answer)
        yield Problem(path, text, check.severity)
        return
    for problem in answer:  # type: ignore[attr-defined]
        yield Problem((*path, *problem.path), problem.reason, problem.severity)


@functools.cache
def matches(where: str, field: str) -> bool:
    """Returns whether a pattern matches a field, such as `spec.http[].match[].headers{}`."""
    return _expression(where).fullmatch(field) is not None


@functools.cache
def _expression(where: str) -> re.Pattern[str]:
    steps = [
        r"(?:.+\.)?" if step == "**" else f"(?:{'|'.join(map(re.escape, step.split('|')))})\\."
        for step in where.split(".")
    ]
    if where.endswith(".**"):
        steps[-1] = ".+"
    return re.compile("".join(steps).removesuffix("\\."))


def _places(value: Any, field: str, path: Path) -> Iterator[tuple[str, Path, Any]]:
    """Yields the field, the place and the value of everything that is set, from the outside in."""
    if field:
        yield field, path, value
    if isinstance(value, Model):
        for attribute, name in fields(type(value)):
            if (item := getattr(value, attribute)) is not None:
                yield from _places(item, f"{field}.{name}" if field else name, (*path, name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _places(item, f"{field}[]", (*path, index))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _places(item, f"{field}{{}}", (*path, key))


@functools.cache
def fields(model: type[Model]) -> tuple[tuple[str, str], ...]:
    """Returns the attributes of a model, each with its name in YAML."""
    return tuple(
        (attribute, str(chosen.choices[0] if isinstance(chosen, AliasChoices) else chosen))
        for attribute, info in model.model_fields.items()
        for chosen in [info.validation_alias or info.alias or attribute]
    )
