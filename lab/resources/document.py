"""YAML text to plain values that remember their lines, and values to text.

The text is composed into nodes and constructed here, for three reasons: every field keeps its
line, a key given twice is an error as it is for the API server, and the spelling of a scalar is
kept, so that `version: 1.0` can be answered with "put it in quotes".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from lab.resources.resource import Path

MAX_NODES = 200_000
"""A bound on what aliases may expand to."""

_TAG = "tag:yaml.org,2002:"


class DocumentError(Exception):
    """Raised for text that is not usable YAML; `line` counts from 1."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML document: its value, the line of each field and the spelling of each scalar."""

    value: Any
    line: int
    lines: dict[Path, int] = field(default_factory=dict)
    spelled: dict[Path, str] = field(default_factory=dict)

    def within(self, path: Path, value: Any) -> Document:
        """Returns a part as a document of its own (an item of a `kind: List`)."""
        size = len(path)
        return Document(
            value,
            self.lines.get(path, self.line),
            {key[size:]: line for key, line in self.lines.items() if key[:size] == path},
            {key[size:]: text for key, text in self.spelled.items() if key[:size] == path},
        )


def of_value(value: Any) -> Document:
    """Returns a document without a text: all its fields are on line 1."""
    return Document(value, 1, dict.fromkeys(_paths(value, ()), 1))


def _paths(value: Any, path: Path) -> Iterator[Path]:
    yield path
    if isinstance(value, dict | list):
        for step, inside in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _paths(inside, (*path, step))


def documents(text: str) -> Iterator[Document]:
    """Yields the documents of a YAML (or JSON) text, the empty ones left out.

    Raises DocumentError.
    """
    if text.lstrip()[:1] in ("{", "["):
        # JSON may be indented with tabs and has pairs of surrogates, YAML may not.
        text = _PAIR.sub(_character, text.replace("\t", " "))
    try:
        for node in yaml.compose_all(text, yaml.CSafeLoader):
            document = Document(None, node.start_mark.line + 1)
            value = _Builder(document).value(node, ())
            if value is not None:
                yield Document(value, document.line, document.lines, document.spelled)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = " ".join(part for part in (error.problem, error.context) if part)
        raise DocumentError(mark.line + 1 if mark else 1, f"not valid YAML: {reason}") from None
    except yaml.YAMLError as error:
        reason = str(error).splitlines()[0]
        raise DocumentError(1, f"not valid YAML: {reason}") from None


_PAIR = re.compile(r"(\\\\)|\\u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})", re.IGNORECASE)
"""An escaped backslash, or the two surrogates of one character in JSON."""


def _character(found: re.Match[str]) -> str:
    backslash, high, low = found.groups()
    return backslash or bytes.fromhex(high + low).decode("utf-16-be")


_LETTERS = {"y": True, "Y": True, "n": False, "N": False}
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+")
"""Booleans and numbers that kubectl knows and PyYAML does not."""


class _Dumper(yaml.CSafeDumper):
    """Writes text of several lines as a block, and quotes what would be read as another value."""


def _scalar(dumper: yaml.CSafeDumper, text: str) -> yaml.ScalarNode:
    other = text in _LETTERS or _FLOAT.fullmatch(text)
    style = "|" if "\n" in text else '"' if other else None
    return dumper.represent_scalar(f"{_TAG}str", text, style=style)


_Dumper.add_representer(str, _scalar)


def written(value: Any) -> str:
    """Returns a value as YAML, which `documents` reads as the same value."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text


class _Builder:
    """Constructs one document; holds what the recursion shares."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._scalars = yaml.constructor.SafeConstructor()
        self._open: set[int] = set()
        self._count = 0

    def value(self, node: yaml.Node, path: Path) -> Any:
        line = node.start_mark.line + 1
        self._document.lines.setdefault(path, line)
        self._count += 1
        if self._count > MAX_NODES:
            raise DocumentError(line, "too large once its aliases are expanded")
        if id(node) in self._open:
            raise DocumentError(line, "an alias that contains itself")
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
            if isinstance(node, yaml.ScalarNode):
                return self._scalar(node, path)
            raise DocumentError(line, "not a mapping, a list or a scalar")
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise DocumentError(line, "a key must be a string")
            if key_node.tag == _TAG + "merge":
                raise DocumentError(line, "merge keys (<<) are not supported: write the fields out")
            key = str(key_node.value)
            if key in mapping:
                raise DocumentError(line, f'the key "{key}" is given twice')
            self._document.lines[(*path, key)] = line
            mapping[key] = self.value(value_node, (*path, key))
        return mapping

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        text = str(node.value)
        self._document.spelled[path] = text
        kind = node.tag.removeprefix(_TAG)
        if kind == "str" and not node.style and text in _LETTERS:
            return _LETTERS[text]
        if kind == "str" and not node.style and _FLOAT.fullmatch(text):
            return _number(float(text))
        if kind == "str" or kind == "timestamp" or (kind in ("int", "float") and ":" in text):
            # Kubernetes reads dates and `1:30` as strings; YAML 1.1 as a date and as base 60.
            return text
        if kind == "null":
            return None
        try:
            if kind == "bool":
                return self._scalars.construct_yaml_bool(node)
            if kind == "int":
                return self._scalars.construct_yaml_int(node)
            if kind == "float":
                return _number(self._scalars.construct_yaml_float(node))
        except ValueError:
            return text
        raise DocumentError(node.start_mark.line + 1, f"the YAML tag {node.tag} is not supported")


def _number(value: float) -> float:
    """Returns 1000.0 as 1000, as it is in the JSON that Kubernetes makes of YAML."""
    return int(value) if value.is_integer() and abs(value) < 1e21 else value


def without_nulls(value: Any) -> Any:
    """Returns a value without the fields that are null, as the API server drops them."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value
