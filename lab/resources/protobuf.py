"""Envoy's API as protobuf messages: to check, to normalise and to merge parts of a configuration.

The messages come from the xds-protos package, which is large: a message's module is imported when
the message is first named.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

from google.protobuf import descriptor_pool, json_format, message, message_factory

from lab import durations

Json = dict[str, Any]

_OLD = re.compile(r"^envoy\..*\.v[12](alpha\d*)?\.")


class UnknownTypeError(Exception):
    """Raised for a `@type` that Envoy's v3 API doesn't have."""


class InvalidError(Exception):
    """Raised for a value that does not fit its message."""


@functools.cache
def message_type(name: str) -> type[message.Message]:
    """Returns the message called `envoy.config.cluster.v3.Cluster`. Raises UnknownTypeError."""
    if _OLD.search(name):
        raise UnknownTypeError(name)  # Envoy reads v3 alone; the package still has the old ones.
    pool = descriptor_pool.Default()
    for module in _modules(name.rpartition(".")[0]):
        importlib.import_module(module)
    try:
        return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))
    except KeyError:
        raise UnknownTypeError(name) from None


def _modules(package: str) -> Iterator[str]:
    try:
        found = importlib.import_module(package)
    except (ImportError, ValueError):
        return
    for module in pkgutil.iter_modules(getattr(found, "__path__", ())):
        if module.name.endswith("_pb2"):
            yield f"{package}.{module.name}"


def types_in(value: object) -> Iterator[str]:
    """Yields every `@type` in a JSON value, without its prefix."""
    if isinstance(value, dict):
        if isinstance(value.get("@type"), str):
            yield value["@type"].rpartition("/")[2]
        for item in value.values():
            yield from types_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from types_in(item)


def parse(name: str, value: Json, *, strict: bool = False) -> message.Message:
    """Parses a JSON value (snake_case or camelCase); `strict` refuses unknown fields.

    Raises UnknownTypeError for a `@type` that doesn't exist, InvalidError for anything else.
    """
    for inner in types_in(value):
        message_type(inner)
    parsed = message_type(name)()
    try:
        plain = _with_durations(parsed.DESCRIPTOR, value)
        json_format.ParseDict(plain, parsed, ignore_unknown_fields=not strict)
    except (json_format.ParseError, TypeError, ValueError) as error:
        unknown = _UNKNOWN_FIELD.search(str(error))
        reason = f'unknown field "{unknown[2]}" in {unknown[1]}' if unknown else str(error)
        raise InvalidError(reason) from error
    return parsed


_UNKNOWN_FIELD = re.compile('Message type "(.+?)" has no field named "(.+?)"')


def without_config(parsed: message.Message) -> list[str]:
    """Returns the names of extensions that have no `typed_config`, inner ones first."""
    names = {field.json_name: field for field in parsed.DESCRIPTOR.fields}
    found = [
        name
        for field, value in parsed.ListFields()
        if field.message_type is not None and not field.is_repeated
        for name in without_config(value)
    ]
    given = {field.json_name for field, _ in parsed.ListFields()}
    if "typedConfig" in names and not given & {"typedConfig", "configDiscovery"}:
        found.append(str(getattr(parsed, "name", "")))
    return found


_DURATION = "google.protobuf.Duration"
_ANY = "google.protobuf.Any"


def _with_durations(kind: Any, value: Any) -> Any:
    """Returns a message's value with Go's durations (`500ms`) as protobuf's: istiod takes both."""
    if kind.full_name == _DURATION and isinstance(value, str):
        with contextlib.suppress(ValueError):
            return f"{durations.parse(value).total_seconds():.9f}s"
        return value
    if not isinstance(value, dict):
        return value
    if kind.full_name == _ANY and isinstance(value.get("@type"), str):
        kind = message_type(value["@type"].rpartition("/")[2]).DESCRIPTOR
    fields = {name: field for field in kind.fields for name in (field.name, field.json_name)}
    result = {}
    for key, item in sorted(value.items()):
        inner = fields[key].message_type if key in fields else None
        if inner is None:
            result[key] = item
        elif inner.GetOptions().map_entry:
            result[key] = _map_with_durations(inner, item)
        elif isinstance(item, list):
            result[key] = [_with_durations(inner, one) for one in item]
        else:
            result[key] = _with_durations(inner, item)
    return result


def _map_with_durations(entry: Any, value: Any) -> Any:
    kind = entry.fields_by_name["value"].message_type
    if kind is None or not isinstance(value, dict):
        return value
    return {key: _with_durations(kind, item) for key, item in value.items()}


def to_json(parsed: message.Message) -> Json:
    # Through text: MessageToDict has ordered dictionaries, which are not equal in another order.
    text = json_format.MessageToJson(parsed, preserving_proto_field_name=True, indent=None)
    return dict(json.loads(text))


def to_camel_json(name: str, value: Json) -> Json:
    """Returns a message's value as Go's protojson prints it: fields in camelCase, maps sorted.

    Keys of maps and of structs stay as they are. Raises as `parse` does.
    """
    parsed = parse(name, value)
    text = json_format.MessageToJson(parsed, indent=None, ensure_ascii=False)
    return dict(_with_sorted_maps(parsed.DESCRIPTOR, json.loads(text)))


def _with_sorted_maps(kind: Any, value: Any) -> Any:
    """Returns a message's JSON with its maps by key: protobuf has them in no order."""
    if isinstance(value, list):
        return [_with_sorted_maps(kind, item) for item in value]
    if kind is None or not isinstance(value, dict):
        return value
    if kind.file.name == "google/protobuf/struct.proto":
        return json.loads(json.dumps(value, sort_keys=True))
    if kind.full_name == _ANY:
        kind = message_type(value["@type"].rpartition("/")[2]).DESCRIPTOR
    if kind.GetOptions().map_entry:
        inner = kind.fields_by_name["value"].message_type
        return {key: _with_sorted_maps(inner, item) for key, item in sorted(value.items())}
    kinds = {field.json_name: field.message_type for field in kind.fields}
    return {key: _with_sorted_maps(kinds.get(key), item) for key, item in value.items()}


def normalize(name: str, value: Json) -> Json:
    """Returns a value in the spelling the lab writes (snake_case, no unknown fields)."""
    return to_json(parse(name, value))


def merge(name: str, target: Json, patch: Json, *, replace_lists: bool = False) -> Json:
    """Merges two values of one message as istiod does.

    Fields that the patch sets win, messages merge, lists grow or are replaced, a map's keys and
    durations are replaced. A zero value counts as not set.
    """
    merged = parse(name, target, strict=True)
    _merge(merged, parse(name, patch), replace_lists=replace_lists)
    return to_json(merged)


def merge_any(target: Json, patch: Json) -> Json:
    """Merges two `typed_config`; of two types the target stays, as in istiod."""
    if target.get("@type") != patch.get("@type"):
        return target
    kind = target["@type"]
    bare = [{key: item for key, item in one.items() if key != "@type"} for one in (target, patch)]
    return {"@type": kind, **merge(kind.rpartition("/")[2], *bare)}


def _merge(target: message.Message, patch: message.Message, *, replace_lists: bool) -> None:
    for field, value in patch.ListFields():
        into = getattr(target, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            is_message = field.message_type.fields_by_name["value"].message_type is not None
            for key in value:
                if is_message:
                    into[key].CopyFrom(value[key])
                else:
                    into[key] = value[key]
        elif field.is_repeated:
            if replace_lists:
                del into[:]
            into.extend(value)
        elif field.message_type is None:
            setattr(target, field.name, value)
        elif field.message_type.full_name == "google.protobuf.Duration":
            into.CopyFrom(value)
        else:
            into.SetInParent()
            _merge(into, value, replace_lists=replace_lists)
