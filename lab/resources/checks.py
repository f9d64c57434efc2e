"""Checks of a typed resource: rows of a table, each about the fields that a pattern matches."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from pydantic import AliasChoices

from lab import versions
from lab.resources.resource import Check, Model, Path, Problem, Resource

NO_EFFECT = "no effect"
"""The text of a warning that is joined with the others of its document."""

WITHOUT_EFFECT = "no effect in the lab (see docs/supported-fields.md): "
"""The beginning of the joined warnings; the names of the fields follow."""


def never(_value: object) -> bool:
    return False


def refused(where: str, reason: str) -> Check:
    """Refuses a field that the lab does not support; `reason` says why, or what instead."""
    return Check(where, never, f"not supported by the lab: {reason}", reason=reason)


def warned(where: str, reason: str) -> Check:
    """Warns about a field that is deprecated or has no effect."""
    return Check(where, never, reason, "warning", reason)


def newer(where: str, version: str) -> Check:
    """Refuses a field that the types don't have, because Istio has it since `version`."""
    followed = versions.istio().rpartition(".")[0]
    what = f"this field is new in {version}"
    return Check(where, never, f"not supported by the lab, which follows Istio {followed}: {what}")


def problems(resource: Resource, checks: tuple[Check, ...]) -> list[Problem]:
    """Returns the problems of a resource in the order of the rows, then of exclusive fields."""
    found: list[tuple[int, Problem]] = []
    no_effect: dict[str | int, None] = {}
    exclusives: list[Problem] = []
    for field, path, value in _places(resource.body, "", ()):
        for row in _rows(checks, field):
            if checks[row].text == NO_EFFECT:
                no_effect[path[-1]] = None
                continue
            found += (
                (row, problem)
                for problem in _answers(checks[row], path, value if field else resource)
            )
        if isinstance(value, Model) and value.one_of:
            exclusives += _exclusives(value, path)
    if no_effect:
        names = ", ".join(map(str, no_effect))
        reason = f"{WITHOUT_EFFECT}{names}"
        found.append((-1, Problem((), reason, "warning")))
    found.sort(key=lambda item: item[0])
    faulty = {problem.path for _, problem in found if problem.severity == "error"}
    return [problem for _, problem in found] + [
        problem for problem in exclusives if problem.path not in faulty
    ]


@functools.cache
def _rows(checks: tuple[Check, ...], field: str) -> tuple[int, ...]:
    by_name = _by_name(checks)
    candidates = (*by_name.get(field.rpartition(".")[2], ()), *by_name.get("*", ()))
    return tuple(row for row in candidates if matches(checks[row].where, field))


@functools.cache
def _by_name(checks: tuple[Check, ...]) -> dict[str, list[int]]:
    """Returns the rows about fields of each name."""
    found: dict[str, list[int]] = {}
    for row, check in enumerate(checks):
        for name in check.where.rpartition(".")[2].split("|"):
            found.setdefault(name, []).append(row)
    return found


def _exclusives(value: Model, path: Path) -> Iterator[Problem]:
    for names in exclusive(value):
        if len(names) > 1:
            reason = f"only one of {', '.join(names[:-1])} and {names[-1]} may be set"
            yield Problem(path, reason)


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


def text_about(path: Path, checks: tuple[Check, ...]) -> str:
    """Returns the text of the row that refuses a field that the types don't have, if one does."""
    field = ".".join("[]" if isinstance(step, int) else step for step in path).replace(".[]", "[]")
    rows = (check for check in checks if check.test is never)
    return next((check.text for check in rows if matches(check.where, field)), "")


@functools.cache
def matches(where: str, field: str) -> bool:
    """Returns whether a pattern matches a field, such as `spec.http[].match[].headers{}`."""
    steps, names = where.split("."), field.split(".")
    if steps[0] == "**":
        steps = steps[1:]
        names = names[-len(steps) :]
    return len(steps) == len(names) and all(
        step == "*" or name in step.split("|") for step, name in zip(steps, names, strict=True)
    )


def _places(value: Any, field: str, path: Path) -> Iterator[tuple[str, Path, Any]]:
    """Yields the field, the place and the value of a body and of all that is set in it."""
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
