"""Patches of objects: JSON merge patch (RFC 7396), JSON patch (RFC 6902), strategic merge patch.

None of them changes the object it is given. They are as lenient as the API server, more than the
RFC: `replace` adds a member that is missing, and an index below 0 counts from the end.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]

_KEYS = {
    **dict.fromkeys(("containers", "initContainers", "volumes", "env", "imagePullSecrets"), "name"),
    "ports": "containerPort",
    "volumeMounts": "mountPath",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
}
_OTHER_KEYS = {
    "Service": {"ports": "port"},
    "ServiceAccount": {"secrets": "name", "imagePullSecrets": ""},
    "EndpointSlice": {"ports": ""},
}
"""The lists that a strategic merge patch merges, and the field that tells their items apart.

They are those with a `patchMergeKey` in Kubernetes' API; any other list is replaced.
"""


class PatchError(ValueError):
    """A patch that can't be applied; the message says why, in the API server's words."""


def patched(type_: str, kind: str, target: Json, patch: Any) -> Json:
    """Returns an object of a kind after a patch of type strategic, merge or json.

    Raises PatchError.
    """
    if type_ == "json":
        return _operations(target, patch)
    if not isinstance(patch, dict):
        raise PatchError("error decoding patch: it is an object with the fields that change")
    if type_ == "merge":
        merged: Json = _merge(target, patch)
        return merged
    return _strategic(target, patch, {**_KEYS, **_OTHER_KEYS.get(kind, {})})


def _strategic(target: Json, patch: Json, keys: Mapping[str, str]) -> Json:
    if "$patch" in patch:
        if patch["$patch"] not in ("delete", "replace"):
            raise PatchError(f"unknown patch type: {patch['$patch']}")
        kept = patch if patch["$patch"] == "replace" else {}
        return {key: value for key, value in kept.items() if key != "$patch"}
    result = dict(target)
    if (retained := patch.get("$retainKeys")) is not None:
        given = [key for key, value in patch.items() if value is not None and key[:1] != "$"]
        if not isinstance(retained, list) or not all(key in retained for key in given):
            raise PatchError("invalid patch format of retainKeys")
        result = {key: value for key, value in target.items() if key in retained}
    for key, value in patch.items():
        old = result.get(key)
        if key.startswith("$deleteFromPrimitiveList/"):
            raise PatchError(f"the lab does not know the directive {key}: give the whole list")
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(old, dict):
            result[key] = _strategic(old, value, keys)
        elif isinstance(value, list) and isinstance(old, list) and keys.get(key):
            result[key] = _strategic_list(old, value, keys[key], keys)
        elif not key.startswith("$"):
            result[key] = _plain(value)
    return result


def _plain(value: Any) -> Any:
    """Returns a new value without directives and without fields that are null."""
    if isinstance(value, dict):
        kept = {key: one for key, one in value.items() if one is not None and key[:1] != "$"}
        return {key: _plain(one) for key, one in kept.items() if not _directive(one)}
    return (
        [_plain(one) for one in value if not _directive(one)] if isinstance(value, list) else value
    )


def _directive(value: Any) -> Any:
    return value.get("$patch") if isinstance(value, dict) else None


def _strategic_list(
    target: list[Any], patch: list[Any], key: str, keys: Mapping[str, str]
) -> list[Any]:
    """Merges lists of objects by a field; the order is the patch's, then the target's."""
    merged = list(target)
    for item in patch:
        if not isinstance(item, dict) or (key not in item and _directive(item) != "replace"):
            shown = json.dumps(item, ensure_ascii=False)
            raise PatchError(f"map: {shown} does not contain declared merge key: {key}")
        if _directive(item) == "delete":
            merged = [one for one in merged if one.get(key) != item[key]]
    wanted = [item for item in patch if not _directive(item)]
    if any(_directive(item) == "replace" for item in patch):
        return [_plain(item) for item in wanted]
    order = [one.get(key) for one in merged]
    for item in wanted:
        places = [index for index, one in enumerate(merged) if one.get(key) == item[key]]
        if places:
            merged[places[0]] = _strategic(merged[places[0]], item, keys)
        else:
            merged.append(_plain(item))
    named = [item[key] for item in wanted]
    ours = sorted(
        (one for one in merged if one.get(key) in named), key=lambda one: named.index(one[key])
    )
    theirs = [one for one in merged if one.get(key) not in named]
    result: list[Any] = []
    while ours and theirs:
        mine = ours[0][key]
        before = mine in order and order.index(theirs[0].get(key)) < order.index(mine)
        result.append((theirs if before else ours).pop(0))
    return [*result, *ours, *theirs]


def _merge(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merge(result.get(key), value)
    return result


def _operations(target: Json, patch: Any) -> Json:
    if not isinstance(patch, list) or not all(isinstance(one, dict) for one in patch):
        raise PatchError("error decoding patch: it is a list of operations with op and path")
    result = copy.deepcopy(target)
    for step in patch:
        _operate(result, step)
    return result


def _operate(document: Json, step: Json) -> None:
    kind, path, value = step.get("op"), step.get("path"), step.get("value")
    if kind in ("move", "copy"):
        value = copy.deepcopy(_value(*_place(document, step.get("from"), kind)))
    if kind in ("move", "remove"):
        holder, key = _place(document, step.get("from") if kind == "move" else path, kind)
        if isinstance(holder, dict) and key not in holder:
            reason = f"Unable to remove nonexistent key: {key}: missing value"
            raise PatchError(f"error in {kind} for path: '{path}': {reason}")
        del holder[key]
    if kind in ("add", "move", "copy"):
        holder, key = _place(document, path, kind, new=True)
        if isinstance(holder, list):
            holder.insert(key, value)
        else:
            holder[key] = value
    elif kind == "replace":
        holder, key = _place(document, path, kind)
        holder[key] = value
    elif kind == "test":
        found = _value(*_place(document, path, kind))
        if json.dumps(found, sort_keys=True) != json.dumps(value, sort_keys=True):
            raise PatchError(f"testing value {path} failed: test failed")
    elif kind != "remove":
        raise PatchError(f"Unexpected kind: {kind}")


def _place(document: Json, path: Any, kind: str, *, new: bool = False) -> tuple[Any, Any]:
    """Returns the object or list that holds the place of a JSON pointer, and its key or index.

    With `new` the index may be that after the last item, which is also called `-`.
    """
    _, *steps = str(path).split("/")
    steps = [step.replace("~1", "/").replace("~0", "~") for step in steps]
    holder: Any = document if steps else None
    for step in steps[:-1]:
        key = _index(holder, step, f"error in {kind} for path: '{path}': ")
        holder = _value(holder, key) if isinstance(holder, dict | list) else None
    if not isinstance(holder, dict | list):
        missing = f'doc is missing path: "{path}": missing value'
        raise PatchError(f"{kind} operation does not apply: {missing}")
    return holder, _index(holder, steps[-1], f"error in {kind} for path: '{path}': ", new=new)


def _index(holder: Any, step: str, failed: str, *, new: bool = False) -> Any:
    """Returns a step of a pointer as the index that it is in a list."""
    if not isinstance(holder, list):
        return step
    size = len(holder) + new
    try:
        index = len(holder) if new and step == "-" else int(step)
    except ValueError:
        raise PatchError(f"{failed}value was not a proper array index: '{step}'") from None
    if not -size <= index < size:
        raise PatchError(f"{failed}Unable to access invalid index: {step}")
    return index + size if index < 0 else index


def _value(holder: Any, key: Any) -> Any:
    return holder.get(key) if isinstance(holder, dict) else holder[key]
