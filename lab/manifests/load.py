"""Reading of manifests into typed resources: the API server's schema check, with file and line.

Everything is read and checked before anything is used: `parse` returns all resources or raises
one error that names every problem.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from lab.manifests import offline, registry, schema
from lab.manifests.read import ManifestError, read
from lab.resources import checks
from lab.resources.document import Document, DocumentError, documents, of_value, without_nulls
from lab.resources.metadata import Metadata, internal_annotations, metadata_problems
from lab.resources.resource import Check, Kind, Path, Problem, Resource, Source, dotted


@dataclass(frozen=True, slots=True)
class Loaded:
    """Resources in the order of the files, and the warnings about them."""

    resources: tuple[Resource, ...]
    warnings: tuple[str, ...] = ()


def load(names: Iterable[str], namespace: str | None = None, *, running: bool = True) -> Loaded:
    """Reads and parses the files behind `-f` arguments."""
    return parse([text for name in names for text in read(name)], namespace, running=running)


def parse(
    files: Iterable[tuple[str, str | dict[str, Any]]],
    namespace: str | None = None,
    *,
    running: bool = True,
) -> Loaded:
    """Returns the resources of `(name, text)` pairs, or of an object's value in place of its text.

    `namespace` is the one asked for on the command line: it is given to resources without one,
    and one that names another is an error. Without `running` pods are only names and ports, and
    what concerns their processes is not read. Raises ManifestError.
    """
    resources: list[Resource] = []
    errors: list[str] = []
    warnings: list[str] = []
    for file, text in files:
        try:
            given = documents(text) if isinstance(text, str) else [of_value(text)]
            found = [item for document in given for item in _items(document)]
        except DocumentError as error:
            errors.append(f"{file}:{error.line}: {error.reason}")
            continue
        for document in found if running else offline.reduced_documents(found):
            resource, problems = _resource(document, file, namespace)
            for problem in problems:
                line = _describe(document, file, problem)
                (errors if problem.severity == "error" else warnings).append(line)
            if resource is not None:
                resources.append(resource)
    if errors:
        raise ManifestError(errors)
    return Loaded(tuple(resources), tuple(warnings))


def _items(document: Document) -> Iterator[Document]:
    value = document.value
    if (
        isinstance(value, dict)
        and value.get("kind") == "List"
        and isinstance(value.get("items"), list)
    ):
        for index, item in enumerate(value["items"]):
            yield document.within(("items", index), item)
    else:
        yield document


def _describe(document: Document, file: str, problem: Problem) -> str:
    source = Source(file, document.line, document.lines)
    if not isinstance(document.value, dict):
        return f"{source.at(*problem.path)}: {problem.reason}"
    metadata = document.value.get("metadata")
    name = metadata.get("name", "") if isinstance(metadata, dict) else ""
    kind = str(document.value.get("kind", "(no kind)"))
    resource = Resource("", kind, "", str(name or "(no name)"), None, source)
    if problem.reason.startswith(STRICT):  # It names the field.
        return f"{source.at(*problem.path)}: {kind} {resource.name}: {problem.reason}"
    return resource.describe(problem.path, problem.reason)


def _resource(
    document: Document, file: str, namespace: str | None
) -> tuple[Resource | None, list[Problem]]:
    value = document.value
    if not isinstance(value, dict):
        return None, [Problem((), "a resource is a mapping with apiVersion, kind and metadata")]
    for key in ("apiVersion", "kind"):
        if not isinstance(value.get(key), str):
            return None, [Problem((key,), f"{key} is missing or not a string")]
    kind = registry.of(value["apiVersion"], value["kind"])
    if isinstance(kind, str):
        return None, [Problem(("kind",), kind)]
    declared = value.get("metadata") or {}
    if kind.kind == "IstioOperator" and isinstance(declared, dict):
        # istioctl accepts an overlay without a name, and this is the name it gives.
        declared = {"name": "installed-state"} | declared
    metadata, problems = typed(Metadata, document, declared, ("metadata",))
    content = {
        key: item
        for key, item in value.items()
        if key not in ("apiVersion", "kind", "metadata", "status")
    }
    of_istio = kind.group.endswith(".istio.io")
    if of_istio:
        content = without_nulls(content)
    body, more = typed(kind.body, document, content, (), kind.checks)
    problems += more
    if metadata is None or body is None:
        return None, problems
    problems += metadata_problems(metadata, kind.kind)
    if of_istio:
        problems += internal_annotations(metadata, kind.kind)
    where, problem = _namespace(kind, metadata, namespace)
    if problem is not None:
        problems.append(problem)
    resource = Resource(
        api_version=value["apiVersion"],
        kind=kind.kind,
        namespace=where,
        name=metadata.name,
        body=body,
        source=Source(file, document.line, document.lines),
        labels=metadata.labels or {},
        annotations=metadata.annotations or {},
        raw=value,
    )
    return resource, [*problems, *checks.problems(resource, kind.checks)]


def _namespace(kind: Kind, metadata: Metadata, namespace: str | None) -> tuple[str, Problem | None]:
    if not kind.namespaced:
        return "", None
    if metadata.namespace is not None and namespace not in (None, metadata.namespace):
        reason = (
            f'the namespace of this resource, "{metadata.namespace}", is not the one asked for, '
            f'"{namespace}"'
        )
        return metadata.namespace, Problem(("metadata", "namespace"), reason)
    return metadata.namespace or namespace or "default", None


def typed(
    model: type[Any],
    document: Document,
    content: dict[str, Any],
    base: Path,
    rows: tuple[Check, ...] = (),
) -> tuple[Any, list[Problem]]:
    """Returns the part of a document at `base` as a model; None, and why, when it does not fit."""
    try:
        text = json.dumps(content, allow_nan=False)
        return model.model_validate_json(text, strict=True), []
    except ValidationError as error:
        problems = {
            (problem.path, problem.reason): problem
            for details in error.errors(include_url=False)
            if (problem := _problem(details, document, content, base, rows)) is not None
        }
        return None, list(problems.values())
    except ValueError:
        return None, [Problem(base, "infinity and nan are not values of Kubernetes")]


def _problem(
    details: ErrorDetails,
    document: Document,
    content: dict[str, Any],
    base: Path,
    rows: tuple[Check, ...],
) -> Problem:
    """Returns a pydantic error in the words of a manifest; steps through unions are left out."""
    path = list(base)
    value: Any = content
    for step in details["loc"]:
        inside = (isinstance(value, dict) and step in value) or (
            isinstance(value, list) and isinstance(step, int) and step < len(value)
        )
        if inside:
            value = value[step]
            path.append(step)
        elif details["type"] == "missing" and step == details["loc"][-1]:
            path.append(step)
    where = tuple(path)
    kind = details["type"]
    spelled = document.spelled.get(where)
    if kind == "extra_forbidden":
        return Problem(where, checks.text_about(where, rows) or _unknown(document, where))
    if kind == "missing":
        return Problem(where, "required, but missing")
    if kind == "string_type" and spelled is not None and not isinstance(value, str):
        read = json.dumps(value) if value is None or isinstance(value, bool) else "a number"
        return Problem(
            where, f'must be a string, and YAML reads {spelled} as {read}: write "{spelled}"'
        )
    if kind == "none_required" or value is None:
        return Problem(where, "has no value")
    message = details["msg"].removeprefix("Value error, ").partition(" after validation")[0]
    return Problem(where, message[:1].lower() + message[1:])


STRICT = "strict decoding error: "
"""The beginning of what the API server says of a field that a kind has not."""


def _unknown(document: Document, path: Path) -> str:
    """Returns the text about a field that no type has, with one that is spelled much like it.

    The lab's types lack some fields of Kubernetes' kinds; those of Istio's kinds have all.
    """
    said = f'{STRICT}unknown field "{dotted(path)}"'
    kind = registry.of(document.value.get("apiVersion", ""), document.value.get("kind", ""))
    if isinstance(kind, str):
        return said
    names = [step for step in path[:-1] if isinstance(step, str)]
    with contextlib.suppress(schema.UnknownFieldError):
        known = [field.name for field in schema.explain(kind, names).fields]
        if meant := schema.like(str(path[-1]), known):
            return said + meant
    if meant := _indented(document, kind, path):
        return said + meant
    if kind.group.endswith(".istio.io"):
        return said
    return f"{said}, or one of Kubernetes that the lab does not support"


def _indented(document: Document, kind: Kind, path: Path) -> str:
    """Returns a hint at a field without a value above an unknown one that belongs into it."""
    beside: Any = document.value
    for step in path[:-1]:
        beside = beside[step]
    names = [step for step in path[:-1] if isinstance(step, str)]
    for field in (name for name, value in beside.items() if value is None):
        with contextlib.suppress(schema.UnknownFieldError):
            inside = schema.explain(kind, [*names, field]).fields
            if any(path[-1] == item.name for item in inside):
                return f" (it belongs under {field}: indent it further)"
    return ""
