"""explain: the fields of a kind."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from lab.cli.client import FailureError
from lab.cli.output import write

if TYPE_CHECKING:
    from lab.manifests.schema import Field
    from lab.resources.resource import Kind


def explain(
    path: Annotated[str, typer.Argument(metavar="KIND[.FIELD]...", show_default=False)],
    recursive: Annotated[
        bool, typer.Option("--recursive", help="All fields below, names and types only.")
    ] = False,
) -> None:
    """Say what the fields of a kind are, as `kubectl explain` does.

    Descriptions are Istio's own. A field that the lab refuses, or that has no
    effect in it, says so. No lab has to run.

    Examples:
      guestbook explain virtualservice
      guestbook explain virtualservice.spec.http.retries
      guestbook explain dr.spec.trafficPolicy.outlierDetection
      guestbook explain authorizationpolicy.spec.rules --recursive
    """
    from lab.manifests import registry, schema

    name, *fields = path.split(".")
    kind = registry.find(name)
    if kind is None:
        raise FailureError(registry.unknown(name))
    try:
        found = schema.explain(kind, fields)
        lines = [*_head(kind, found, nested=bool(fields)), *_body(found)]
        if found.fields:
            lines.append("FIELDS:")
            below = _tree(kind, fields, found) if recursive else _fields(found)
            lines += below
    except schema.UnknownFieldError as error:
        raise FailureError(str(error)) from None
    write("\n".join(lines))


def _head(kind: Kind, found: Field, *, nested: bool) -> Iterator[str]:
    if kind.group:
        yield f"GROUP:      {kind.group}"
    yield f"KIND:       {kind.kind}"
    yield f"VERSION:    {kind.versions[0]}"
    yield ""
    if nested:
        yield f"FIELD: {found.name} <{found.type}>{_required(found)}"
        yield ""


def _body(found: Field) -> Iterator[str]:
    if found.values:
        yield f"ENUM:\n    {_listed(found.values)}\n"
    yield "DESCRIPTION:"
    yield from _wrapped(found.description or "<empty>")
    yield from _limit(found)
    yield ""


def _fields(found: Field) -> Iterator[str]:
    for field in found.fields:
        yield f"  {field.name}\t<{field.type}>{_required(field)}"
        if field.values:
            yield f"  enum: {_listed(field.values)}"
        yield from _wrapped(field.description)
        yield from _limit(field)
        yield ""


def _tree(kind: Kind, path: list[str], found: Field, depth: int = 1) -> Iterator[str]:
    from lab.manifests import schema

    for field in found.fields:
        refused = "  (in the lab: refused)" if field.limit.startswith("refused") else ""
        yield f"{'  ' * depth}{field.name}\t<{field.type}>{_required(field)}{refused}"
        below = [*path, field.name]
        yield from _tree(kind, below, schema.explain(kind, below), depth + 1)


def _required(field: Field) -> str:
    return " -required-" if field.required else ""


def _listed(values: tuple[str, ...]) -> str:
    return ", ".join(values)


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 76, initial_indent="    ", subsequent_indent="    ")


def _limit(field: Field) -> list[str]:
    return _wrapped(f"In the lab: {field.limit}.") if field.limit else []
