"""kubectl's JSONPath, as far as people use it: fields, indexes, `[*]`, filters and `range`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from lab.cli.client import FailureError

_CODE = re.compile(r"\{([^{}]*)\}")
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


_Node = str | tuple[str, "list[_Node] | None"]
"""Text, or a path with the body of its `range`, if it has one."""


def evaluate(template: str, value: Any) -> str:
    """Returns the text of a template for a value. Raises FailureError for a bad template."""
    if "{" not in template:
        template = "{" + template + "}"
    if re.search(r"[{}]", _CODE.sub("", template)):
        raise FailureError(f"error parsing jsonpath {template}, unclosed action")
    parts = enumerate(_CODE.split(template))
    return _text(_nodes(parts, template, inside=False), value, value)


def _nodes(parts: Iterator[tuple[int, str]], template: str, *, inside: bool) -> list[_Node]:
    """Returns the nodes up to the end of the template, or of the range that they are inside of."""
    nodes: list[_Node] = []
    for index, part in parts:
        code = part.strip()
        if index % 2 == 0:
            nodes.append(part)
        elif code == "end" and inside:
            return nodes
        elif code == "end":
            raise FailureError(f"jsonpath: {{end}} without {{range}} in {template}")
        elif code.startswith("range "):
            nodes.append((code[6:].strip(), _nodes(parts, template, inside=True)))
        elif len(code) > 1 and code[0] == code[-1] and code[0] in "\"'":
            text = code[1:-1].replace("\\n", "\n").replace("\\t", "\t").replace('\\"', '"')
            nodes.append(text)
        else:
            nodes.append((code, None))
    if inside:
        raise FailureError("jsonpath: {range} without {end}")
    return nodes


def _text(nodes: list[_Node], root: Any, here: Any) -> str:
    out = []
    for node in nodes:
        if isinstance(node, str):
            out.append(node)
            continue
        path, body = node
        found = list(_find(path, root, here))
        if body is None:
            out.append(" ".join(map(_shown, found)))
        else:
            out += [_text(body, root, item) for item in found]
    return "".join(out)


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
