"""What a manifest is once it has been read: typed, and still knowing where it came from.

Everything in the lab that reads Kubernetes or Istio resources reads them in this form. Positions
are kept so that an error, and `guestbook route`, can name the file and the line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

Path = tuple[str | int, ...]
"""Where a field is inside a document: `("spec", "http", 0, "fault")`."""


def dotted(path: Path) -> str:
    """Returns a path as a person writes it: `spec.http[0].fault`."""
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).lstrip(".")


class Model(BaseModel):
    """Base of every typed manifest: camelCase in YAML, an unknown field is an error."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True
    )


@dataclass(frozen=True, slots=True)
class Source:
    """The file (as the user named it) and the lines a document came from; lines count from 1."""

    file: str
    line: int
    lines: Mapping[Path, int] = field(default_factory=dict, repr=False, compare=False)

    def at(self, *path: str | int) -> str:
        """`file:line` of a field, or of its nearest ancestor that has a position."""
        for end in range(len(path), -1, -1):
            if (line := self.lines.get(path[:end])) is not None:
                return f"{self.file}:{line}"
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something a validation found in one document; `reason` says what and what to do instead."""

    path: Path
    reason: str
    severity: Literal["error", "warning"] = "error"


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
        """The typed `spec`; the whole body for kinds without one (ConfigMap, ServiceAccount)."""
        return getattr(self.body, "spec", self.body)

    def describe(self, path: Path, reason: str) -> str:
        """One line for a person: file, line, field and reason."""
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
    """A kind the lab supports: its names, its versions, its typed body and its validation.

    `validate` says what the API server's schema cannot: for Istio, what istiod's validation
    webhook rejects (errors) or comments on (warnings).
    """

    group: str
    kind: str
    plural: str
    versions: tuple[str, ...]
    body: type[Model]
    short_names: tuple[str, ...] = ()
    namespaced: bool = True
    validate: Callable[[Resource], Iterable[Problem]] = lambda _resource: ()
