"""Differences of two JSON values, as a change that can be applied, and as paths with two values.

A change has the form of a JSON merge patch: an object holds the fields that differ, null stands
for a field that is gone. In a list, `[2]` changes the item at that place of the old list, `[2]-`
takes it away, and `[2]+` puts items before it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

_MISSING = object()

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """A place with two values; None stands for nothing there."""

    path: Path
    istiod: Any
    lab: Any


def differences(istiod: Any, lab: Any, path: Path = ()) -> Iterator[Difference]:
    """Yields the smallest parts in which two values differ."""
    if istiod == lab:
        return
    if isinstance(istiod, dict) and isinstance(lab, dict):
        for key in sorted(istiod.keys() | lab.keys()):
            yield from differences(istiod.get(key), lab.get(key), (*path, key))
    elif isinstance(istiod, list) and isinstance(lab, list):
        for old, new in _aligned(istiod, lab):
            yield from _of_runs([istiod[n] for n in old], [lab[n] for n in new], old.start, path)
    else:
        yield Difference(path, istiod, lab)


def _of_runs(istiod: list[Any], lab: list[Any], start: int, path: Path) -> Iterator[Difference]:
    """Yields the differences of items that are alike, or of which one side has none."""
    steps = [[_step(item, start + n) for n, item in enumerate(items)] for items in (istiod, lab)]
    if len(istiod) == len(lab) and (steps[0] == steps[1] or not any(map(_name, istiod + lab))):
        for step, one, other in zip(steps[0], istiod, lab, strict=True):
            yield from differences(one, other, (*path, step))
        return
    for step, item in zip(steps[0], istiod, strict=True):
        yield Difference((*path, step), item, None)
    for step, item in zip(steps[1], lab, strict=True):
        yield Difference((*path, step), None, item)


def _step(item: Any, place: int) -> str:
    return f"[{_name(item) or place}]"


def _name(item: Any) -> str:
    """Returns the name by which a person finds an item of a list; empty when it has none."""
    if not isinstance(item, dict):
        return ""
    match = item.get("filter_chain_match")
    if match is None:
        return str(item.get("name", ""))
    shown = ", ".join(f"{key} {json.dumps(value)}" for key, value in match.items())
    return f"{item.get('name', '')} {shown}".strip()


def change(before: Any, after: Any) -> Any:
    """Returns the change that leads from one value to a different one."""
    if isinstance(before, dict) and isinstance(after, dict):
        found = {
            key: change(before[key], value) if key in before else value
            for key, value in after.items()
            if before.get(key, _MISSING) != value
        }
        return found | {key: None for key in before if key not in after}
    if isinstance(before, list) and isinstance(after, list):
        edits = _edits(before, after)
        return edits if len(json.dumps(edits)) < len(json.dumps(after)) else after
    return after


def _edits(before: list[Any], after: list[Any]) -> dict[str, Any]:
    edits: dict[str, Any] = {}
    for old, new in _aligned(before, after):
        if len(old) == len(new):
            for place, item in zip(old, new, strict=True):
                if before[place] != after[item]:
                    edits[f"[{place}]"] = change(before[place], after[item])
            continue
        edits |= {f"[{place}]-": None for place in old}
        if new:
            edits[f"[{old.start}]+"] = [after[item] for item in new]
    return edits


def _aligned(before: list[Any], after: list[Any]) -> Iterator[tuple[range, range]]:
    """Yields runs of places in two lists that belong together, by the identity of their items."""
    old, new = [identity(item) for item in before], [identity(item) for item in after]
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    for _, a, b, c, d in matcher.get_opcodes():
        yield range(a, b), range(c, d)


def identity(item: Any) -> str:
    """Returns the name of an item of a list, or the whole item where nothing names it."""
    if isinstance(item, dict):
        named = next((k for k in ("filter_chain_match", "name", "key") if k in item), None)
        if named is not None:
            return json.dumps(item[named], sort_keys=True)
        if set(item) & {"endpoint", "lb_endpoints", "header", "match"}:
            return "|".join(sorted(item))
    return json.dumps(item, sort_keys=True)


def changed(before: Any, edit: Any) -> Any:
    """Returns a value with a change applied."""
    if isinstance(before, list) and isinstance(edit, dict) and any(k[:1] == "[" for k in edit):
        return _edited(before, edit)
    if not isinstance(before, dict) or not isinstance(edit, dict):
        return edit
    kept = {key: value for key, value in before.items() if key not in edit}
    new = {
        key: changed(before[key], value) if key in before else value
        for key, value in edit.items()
        if value is not None
    }
    return kept | new


def _edited(before: list[Any], edits: dict[str, Any]) -> list[Any]:
    result: list[Any] = []
    for place in range(len(before) + 1):
        result += edits.get(f"[{place}]+", [])
        if place < len(before) and f"[{place}]-" not in edits:
            key = f"[{place}]"
            result.append(changed(before[place], edits[key]) if key in edits else before[place])
    return result
