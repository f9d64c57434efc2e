"""No field of an Istio resource is ignored in silence.

Of every field in Istio's own schemas the lab either makes something, or warns, or refuses it. What
it makes something of is in `fields/`, a file a kind; there each field is left out in turn, and the
configuration of some proxy must differ.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any, get_args

import pytest
import yaml
from pydantic import AliasChoices
from pydantic.fields import FieldInfo

from lab.envoy import translate
from lab.kinds.mesh_config import becomes as mesh_config
from lab.kinds.mesh_config.checks import MeshConfig
from lab.manifests import load, registry
from tests.support import sample
from tests.support.fields import COMPANIONS, DOCUMENTS, SCHEMAS, schema_of

Place = tuple[str | int, ...]
Field = tuple[str, ...]
"""A field by its names; `[]` is any item of a list and `{}` any key of a map."""

REFUSED = {
    "DestinationRule": [
        "host: a, trafficPolicy: {loadBalancer: {localityLbSetting: {enabled: true}}}"
    ],
    "VirtualService": [
        "hosts: [a], http: [{fault: {abort: {http2Error: X}}, route: [{destination: {host: a}}]}]"
    ],
}
"""Specs with fields that are refused by their value, so that no model says it."""

FOR_PEOPLE = {"Gateway": ["servers: [{name: x}]"]}
"""Specs with fields from which Istio makes nothing either."""


def fields_of(schema: Any, prefix: Field = ()) -> Iterator[Field]:
    """Every field that a schema has."""
    for name, inner in schema.get("properties", {}).items():
        yield (*prefix, name)
        yield from fields_of(inner, (*prefix, name))
    if schema.get("type") == "array":
        yield from fields_of(schema["items"], (*prefix, "[]"))
    if isinstance(schema.get("additionalProperties"), dict):
        yield from fields_of(schema["additionalProperties"], (*prefix, "{}"))


def places(value: Any, prefix: Place = ()) -> Iterator[Place]:
    """Every key in a document, from the outside in."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*prefix, key)
            yield from places(inner, (*prefix, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from places(inner, (*prefix, index))


def field(schema: Any, place: Place) -> Field:
    """The field of a schema that is at a place of a document."""
    names: list[str] = []
    for step in place:
        if isinstance(step, int):
            names.append("[]")
            schema = schema.get("items", {})
        elif step in schema.get("properties", {}):
            names.append(step)
            schema = schema["properties"][step]
        else:
            names.append("{}")
            inner = schema.get("additionalProperties")
            schema = inner if isinstance(inner, dict) else {}
    return tuple(names)


def without(document: Any, place: Place) -> Any:
    changed = copy.deepcopy(document)
    inner = changed
    for step in place[:-1]:
        inner = inner[step]
    del inner[place[-1]]
    return changed


def translated(companion: str, document: Any) -> str:
    """The configuration of every proxy; "refused" when the lab does not take the document."""
    try:
        snapshot = sample.with_manifests(companion + yaml.safe_dump(document))
    except load.ManifestError:
        return "refused"
    if document["kind"] == "IstioOperator":
        snapshot = replace(snapshot, mesh=mesh_config.installed(snapshot.of("IstioOperator")))
    configs = [translate.proxy_config(snapshot, pod) for pod in sample.PODS if pod.proxy != "none"]
    return json.dumps([[c.listeners, c.clusters, c.routes, c.endpoints] for c in configs])


@cache
def warnings(text: str) -> tuple[str, ...]:
    return load.parse([("x", text)]).warnings


@pytest.mark.parametrize(
    ("file", "document"), DOCUMENTS, ids=[f"{f}-{d['metadata']['name']}" for f, d in DOCUMENTS]
)
def test_each_field_makes_a_difference(file: str, document: Any) -> None:
    companion = COMPANIONS.get(file, "")
    complete = translated(companion, document)
    assert complete != "refused"
    said = warnings(yaml.safe_dump(document))
    silent = [
        dotted(place)
        for place in places(document["spec"], ("spec",))
        if translated(companion, without(document, place)) == complete
        and not any(warned(dotted(place), line) for line in said)
    ]
    assert silent == []


def warned(field: str, line: str) -> bool:
    """Whether a warning is about a field, or one below it."""
    return f" {field}: " in line or f" {field}." in line


def dotted(place: Place) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place)[1:]


@pytest.mark.parametrize("kind", sorted(name.rpartition("/")[2] for name in SCHEMAS))
def test_every_field_of_istio_is_known(kind: str) -> None:
    """Each is refused with a reason, answered with a warning, or in `fields/`.

    A model that is used in several places counts once: its fields are the same everywhere.
    """
    specs = [document["spec"] for _, document in DOCUMENTS if document["kind"] == kind]
    others = [*REFUSED.get(kind, ()), *FOR_PEOPLE.get(kind, ())]
    specs += [yaml.safe_load(f"{{{text}}}") for text in others]
    shown = {
        known[-1]
        for spec in specs
        for place in places({"spec": spec})
        if (known := path_in_models(kind, field(schema_of(kind), place)))
    }
    spec = schema_of(kind)["properties"]["spec"]
    unknown = [
        ".".join(found)
        for found in fields_of(spec, ("spec",))
        if (known := path_in_models(kind, found))
        and known[-1] not in shown
        and not any(answered(*step) for step in known)
    ]
    assert unknown == []


def test_every_field_of_the_mesh_configuration_is_known() -> None:
    """It has no schema to go by; the models say what there is."""
    shown = {
        known[-1]
        for _, document in DOCUMENTS
        if document["kind"] == "IstioOperator"
        for place in places({"spec": document["spec"]})
        if (known := path_in_models("IstioOperator", tuple(map(str, steps(place)))))
    }
    silent = [
        f"{model.__name__}.{name}"
        for model in models(MeshConfig)
        for name in model.model_fields
        if (model, name) not in shown and not answered(model, name) and name not in NAMES
    ]
    assert silent == []


NAMES = ("trust_domain", "root_namespace")
"""Settings with one value that the lab takes."""


def steps(place: Place) -> Iterator[str | int]:
    return (step for step in place if isinstance(step, str))


def models(model: Any) -> Iterator[Any]:
    yield model
    for info in model.model_fields.values():
        if (inner := model_in(info.annotation)) is not None:
            yield from models(inner)


@pytest.mark.parametrize(("kind", "spec"), [(k, spec) for k in REFUSED for spec in REFUSED[k]])
def test_what_is_refused_by_its_value(kind: str, spec: str) -> None:
    head = f"apiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: a}}\n"
    with pytest.raises(load.ManifestError, match="not supported"):
        load.parse([("x", f"{head}spec: {{{spec}}}")])


def path_in_models(kind: str, found: Field) -> list[tuple[Any, str]]:
    """The models along the way to a field, each with its field's name.

    Where a model has no fields of its own to look at (a refused part of Istio, a map of text) the
    way ends.
    """
    model: Any = next(item for item in registry.KINDS if item.kind == kind).body
    way: list[tuple[Any, str]] = []
    for name in found:
        if name in ("[]", "{}"):
            continue
        if model is None:
            break
        own = next((n for n, i in model.model_fields.items() if name in spellings(n, i)), None)
        assert own is not None, f"{kind} has no field {'.'.join(found)}"
        way.append((model, own))
        model = model_in(model.model_fields[own].annotation)
    return way


def spellings(name: str, info: FieldInfo) -> set[str]:
    chosen = info.validation_alias
    others = chosen.choices if isinstance(chosen, AliasChoices) else [info.alias or name]
    return {str(other) for other in others}


def answered(model: Any, name: str) -> bool:
    """Whether a model refuses a field or warns about it."""
    extra = model.model_fields[name].json_schema_extra
    return isinstance(extra, dict) and bool({"refused", "ignored"} & set(extra))


def model_in(annotation: Any) -> Any:
    """The model inside `list[Model] | None` and the like."""
    if isinstance(annotation, type) and hasattr(annotation, "model_fields"):
        return annotation
    return next((m for arg in get_args(annotation) if (m := model_in(arg)) is not None), None)
