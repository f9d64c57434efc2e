"""Typed manifests with the positions of their fields, and the kinds they are of.

Everything in the lab that reads Kubernetes or Istio resources reads them in this form. Positions
are kept so that an error, and `guestbook route`, can name the file and the line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

Path = tuple[str | int, ...]
"""The place of a field inside a document: `("spec", "http", 0, "fault")`."""

Severity = Literal["error", "warning"]


def dotted(path: Path) -> str:
    """Returns a path as a person writes it: `spec.http[0].fault`."""
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).lstrip(".")


class Model(BaseModel):
    """Base of every typed manifest: camelCase names only, an unknown field is an error."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        extra="forbid",
        frozen=True,
        # A command reads a few kinds; the validators of the others are not built.
        defer_build=True,
    )
    one_of: ClassVar[tuple[tuple[str, ...], ...]] = ()
    """Groups of fields, by their names in YAML, of which one at most may be set."""


def object_name(kind: str, namespace: str, name: str) -> str:
    """Returns the name of an object as a place: `virtualservice/ui.default`."""
    return f"{kind.lower()}/{name}.{namespace}" if namespace else f"{kind.lower()}/{name}"


@dataclass(frozen=True, slots=True)
class Source:
    """The file (as the user named it) and the lines a document came from; lines count from 1.

    With line 0 `file` is the object itself, `virtualservice/ui.default`: its text is in no file.
    """

    file: str
    line: int
    lines: Mapping[Path, int] = field(default_factory=dict, repr=False, compare=False)

    def at(self, *path: str | int) -> str:
        """Returns `file:line` of a field, or of its nearest ancestor that has a position.

        Of an object it is `object:field`, or the object alone.
        """
        ends = (path[:end] for end in range(len(path), -1, -1))
        known = next((end for end in ends if end in self.lines), ())
        if self.line:
            return f"{self.file}:{self.lines.get(known, self.line)}"
        return f"{self.file}:{dotted(known)}" if known else self.file


@dataclass(frozen=True, slots=True)
class Problem:
    """An error or a warning about one field; `reason` names the fault and a way out."""

    path: Path
    reason: str
    severity: Severity = "error"


@dataclass(frozen=True, slots=True, eq=False)
class Check:
    """A rule about every value at the fields that `where` matches.

    `where` is a path such as `spec.http[].timeout`; `headers{}` is any value of a map, `a|b` either
    name, `*` any, `**.` at its beginning any way down, and the empty path the resource itself.
    `test` returns whether the value is good, a text that says what is wrong, or problems with
    paths relative to the value.
    """

    where: str
    test: Callable[[Any], object]
    text: str = "{reason}"
    """The message: `{value}` is the value, `{field}` its name, `{reason}` the text of `test`."""
    severity: Severity = "error"
    reason: str = ""
    """Of a field that is refused or has no effect, for docs/supported-fields.md."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One object of the cluster.

    `body` is the typed document without apiVersion, kind and metadata. `order` grows with each
    first apply: Istio sorts by creationTimestamp, and this stands for it.
    """

    api_version: str
    kind: str
    namespace: str
    """Empty for cluster-scoped kinds."""
    name: str
    body: Any
    source: Source
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    order: int = 0

    @property
    def spec(self) -> Any:
        """Returns the typed `spec`; the whole body for kinds without one, as ConfigMap."""
        return getattr(self.body, "spec", self.body)

    @property
    def config_path(self) -> str:
        """Returns the path by which istiod names a resource of its networking API in metadata."""
        kind = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", self.kind).lower()
        return f"/apis/networking.istio.io/v1/namespaces/{self.namespace}/{kind}/{self.name}"

    def describe(self, path: Path, reason: str) -> str:
        """Returns one line for a person: file, line, field and reason."""
        where = f"{dotted(path)}: " if path else ""
        return f"{self.source.at(*path)}: {self.kind} {self.name}: {where}{reason}"


@dataclass(frozen=True, slots=True)
class Origin:
    """The manifest, and the place in it, that decides something; without a source a default."""

    source: Source | None = None
    path: Path = ()
    resource: Resource | None = None

    def at(self, *below: str | int) -> str:
        """Returns `file:line` of the place or of a field below it; empty for a default."""
        return self.source.at(*self.path, *below) if self.source is not None else ""

    def __str__(self) -> str:
        return self.at()


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind the lab supports: its names, its versions, its typed body and its checks.

    The checks are what a type cannot say: for Istio, what istiod's validation webhook rejects
    (errors) or comments on (warnings), and what the lab refuses.
    """

    group: str
    kind: str
    plural: str
    versions: tuple[str, ...]
    body: type[Model]
    short_names: tuple[str, ...] = ()
    namespaced: bool = True
    checks: tuple[Check, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The names by which people call it, without a group."""
        return (self.plural, self.kind.lower(), *self.short_names)
