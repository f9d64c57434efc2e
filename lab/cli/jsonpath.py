"""kubectl's JSONPath, as far as people use it: fields, indexes, `[*]`, filters and `range`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from lab.cli.client import FailureError

_TOKEN = re.compile(r"\{([^{}]*)\}")
_STEP = re.compile(
    r"\.\.(?P<deep>[\w-]+|\*)"
    r"|\.(?P<field>(?:[\w/-]|\\.)+|\*)"
    r"|\[(?P<index>-?\d+)\]"
    r"|\[(?P<slice>-?\d*:-?\d*)\]"
    r"|\[(?P<all>\*)\]"
    r"|\['(?P<quoted>[^']*)'\]"
    r'|\["(?P<double>[^"]*)"\]'
    r"|\[\?\(@(?P<path>[^=!<>\s]*)\s*(?:(?P<operator>==|!=)\s*(?P<value>[^)]*?)\s*)?\)\]"
)


def evaluate(template: str, value: Any) -> str:
    """Returns the text of a template for a value. Raises FailureError for a bad template."""
    if "{" not in template:
        template = "{" + template + "}"
    parts: list[tuple[str, str]] = []
    position = 0
    for match in _TOKEN.finditer(template):
        if match.start() > position:
            parts.append(("text", template[position : match.start()]))
        parts.append(("code", match[1].strip()))
        position = match.end()
    if position < len(template):
        parts.append(("text", template[position:]))
    text, rest = _run(parts, value, value)
    if rest:
        raise FailureError(f"jsonpath: {{end}} without {{range}} in {template}")
    return text


def _run(parts: list[tuple[str, str]], root: Any, here: Any) -> tuple[str, list[tuple[str, str]]]:
    out = []
    while parts:
        (kind, text), parts = parts[0], parts[1:]
        if kind == "text":
            out.append(text)
        elif text == "end":
            return "".join(out), [("code", "end"), *parts]
        elif text.startswith("range "):
            items = list(_find(text[6:].strip(), root, here))
            body = parts
            after = _after_end(parts)
            out.extend(_run(body, root, item)[0] for item in items)
            parts = after
        elif len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
            out.append(_unquoted(text))
        else:
            found = [_shown(item) for item in _find(text, root, here)]
            out.append(" ".join(found))
    return "".join(out), []


def _unquoted(text: str) -> str:
    return text[1:-1].replace("\\n", "\n").replace("\\t", "\t").replace('\\"', '"')


def _after_end(parts: list[tuple[str, str]]) -> list[tuple[str, str]]:
    depth = 1
    for index, (kind, text) in enumerate(parts):
        if kind == "code" and text.startswith("range "):
            depth += 1
        elif kind == "code" and text == "end":
            depth -= 1
            if depth == 0:
                return parts[index + 1 :]
    raise FailureError("jsonpath: {range} without {end}")


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _find(path: str, root: Any, here: Any) -> Iterator[Any]:
    start = here
    if path.startswith("$"):
        start, path = root, path[1:]
    path = path.removeprefix("@")
    if path in ("", "."):
        yield start
        return
    if not path.startswith((".", "[")):
        path = "." + path
    values = [start]
    position = 0
    while position < len(path):
        match = _STEP.match(path, position)
        if match is None:
            raise FailureError(f"jsonpath: can't read {path[position:]!r} in {path!r}")
        values = [found for value in values for found in _step(match, value)]
        position = match.end()
    yield from values


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return list(value) if isinstance(value, list) else []


def _step(match: re.Match[str], value: Any) -> Iterator[Any]:
    groups = match.groupdict()
    if groups["deep"]:
        yield from _deep(groups["deep"], value)
    elif groups["all"] or groups["field"] == "*":
        yield from _children(value)
    elif groups["index"] is not None:
        index = int(groups["index"])
        if isinstance(value, list):
            if not -len(value) <= index < len(value):
                raise FailureError(
                    f"error executing jsonpath: array index out of bounds: index {index}, "
                    f"length {len(value)}"
                )
            yield value[index]
    elif groups["slice"]:
        first, _, last = groups["slice"].partition(":")
        if isinstance(value, list):
            yield from value[int(first) if first else None : int(last) if last else None]
    elif groups["path"] is not None:
        for item in _children(value):
            if _passes(groups, item):
                yield item
    else:
        field = groups["field"] or groups["quoted"] or groups["double"] or ""
        field = re.sub(r"\\(.)", r"\1", field)
        if isinstance(value, dict) and field in value:
            yield value[field]


def _deep(name: str, value: Any) -> Iterator[Any]:
    if name == "*":
        yield from _children(value)
    elif isinstance(value, dict) and name in value:
        yield value[name]
    for child in _children(value):
        yield from _deep(name, child)


def _passes(groups: dict[str, Any], item: Any) -> bool:
    found = list(_find(groups["path"], item, item))
    if groups["operator"] is None:
        return bool(found)
    wanted = groups["value"]
    wanted = wanted[1:-1] if wanted[:1] in ("'", '"') else wanted
    same = any(_shown(value) == wanted for value in found)
    return same if groups["operator"] == "==" else not same
