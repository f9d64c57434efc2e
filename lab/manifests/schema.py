"""Fields of the kinds as `kubectl explain` has them: types, descriptions, the lab's limits.

Those of Istio's kinds are from the schema of its CRDs, with its descriptions, those of
Kubernetes' kinds from the lab's own models.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lab.kinds.kubernetes.kept_only import Declared
from lab.resources import istio
from lab.resources.checks import NO_EFFECT, matches
from lab.resources.metadata import Metadata
from lab.resources.resource import Kind

Json = dict[str, Any]


class UnknownFieldError(ValueError):
    """There is no such field; the message names it and one that is spelled much like it."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a kind, or the kind itself."""

    name: str
    type: str
    """`Object`, `[]string`, `map[string]string`, ..."""
    description: str
    required: bool
    values: tuple[str, ...]
    limit: str
    """Says that the lab refuses it or that it has no effect, and why; else empty."""
    fields: tuple[Field, ...]


def explain(kind: Kind, path: Sequence[str]) -> Field:
    """Returns the field of a kind at a path without indexes. Raises UnknownFieldError."""
    schema, definitions = _schema(kind)
    where = ""
    required = False
    for name in path:
        schema, mark = _inside(schema, definitions)
        known: Json = schema.get("properties", {})
        if name not in known:
            place = f"{kind.kind}.{where}".rstrip(".").replace("[]", "").replace("{}", "")
            raise UnknownFieldError(f'field "{name}" does not exist in {place}{like(name, known)}')
        required = name in schema.get("required", ())
        schema = known[name]
        where = f"{where}{mark}.{name}".lstrip(".")
    return _field(kind, schema, definitions, where, required=required)


def like(name: str, known: Iterable[str], ratio: float = 0.6) -> str:
    """Returns ` (did you mean "x"?)` for the known name that is most like a name, if any is."""
    found = difflib.get_close_matches(name, known, 1, ratio)
    return f' (did you mean "{found[0]}"?)' if found else ""


def _schema(kind: Kind) -> tuple[Json, Json]:
    """The schema of a kind, and the parts that it refers to."""
    found = istio.schema()["kinds"].get(kind.kind)
    if found is not None and found["group"] == kind.group:
        schema, definitions = found["schema"], {}
    else:
        model = kind.body.model_json_schema(by_alias=True, mode="validation")
        schema, definitions = model, model.pop("$defs", {})
        if kind.body is Declared:
            schema = {"type": "object", "properties": {}, "description": KEPT}
    own = Metadata.model_json_schema(by_alias=True, mode="validation")
    word = {"type": "string"}
    return {
        **schema,
        "properties": {
            "apiVersion": word,
            "kind": word,
            "metadata": {**own, "description": ""},
            **schema.get("properties", {}),
        },
    }, definitions | own.get("$defs", {})


KEPT = "Kept and printed; it changes nothing on one machine."


def _resolved(schema: Json, definitions: Json) -> Json:
    """A part without references, and without the choice of null."""
    if "$ref" in schema:
        schema = {**definitions[schema["$ref"].rpartition("/")[2]], **schema}
        schema.pop("$ref")
        return _resolved(schema, definitions)
    choices = [one for one in schema.get("anyOf", ()) if one.get("type") != "null"]
    if "properties" not in schema and choices:
        rest = {key: value for key, value in schema.items() if key != "anyOf"}
        return _resolved({**choices[0], **rest}, definitions)
    return schema


def _inside(schema: Json, definitions: Json) -> tuple[Json, str]:
    """The object in a list or a map, and the mark of the step into it."""
    schema, mark = _resolved(schema, definitions), ""
    while True:
        if "items" in schema:
            inner, step = schema["items"], "[]"
        elif isinstance(schema.get("additionalProperties"), dict):
            inner, step = schema["additionalProperties"], "{}"
        else:
            return schema, mark
        schema, mark = _resolved(inner, definitions), mark + step


def _type(schema: Json, definitions: Json) -> str:
    schema = _resolved(schema, definitions)
    if "items" in schema:
        return f"[]{_type(schema['items'], definitions)}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"map[string]{_type(schema['additionalProperties'], definitions)}"
    kind = str(schema.get("type", "string" if "enum" in schema else "any"))
    return "Object" if kind == "object" else kind


def _field(
    kind: Kind, schema: Json, definitions: Json, path: str, *, required: bool, deep: bool = True
) -> Field:
    whole = _resolved(schema, definitions)
    inner, mark = _inside(schema, definitions)
    names: Json = inner.get("properties", {}) if deep else {}
    values = (str(value) for value in inner.get("enum", ()) if value is not None)
    return Field(
        name=path.rpartition(".")[2],
        type=_type(schema, definitions),
        description=whole.get("description") or "",
        required=required,
        values=tuple(values),
        limit="; ".join(_limits(kind, path)),
        fields=tuple(
            _field(
                kind,
                part,
                definitions,
                f"{path}{mark}.{name}".lstrip("."),
                required=name in inner.get("required", ()),
                deep=False,
            )
            for name, part in names.items()
        ),
    )


def _limits(kind: Kind, path: str) -> Iterator[str]:
    for check in kind.checks:
        if check.reason and matches(check.where, path):
            what = "no effect" if check.text == NO_EFFECT else "a warning"
            yield f"{'refused' if check.severity == 'error' else what}: {check.reason}"
