"""One normal form for Envoy's resources, as istiod and as the lab write them.

It removes only spelling: protobuf's JSON has several forms of a name, a number or a duration,
leaves default values out or not, and some lists are sets to Envoy. Fields that the protobuf types
don't know stay as they are.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf import duration_pb2

from lab.resources.protobuf import UnknownTypeError, message_type

Json = dict[str, Any]
Resources = dict[str, dict[str, Json]]
"""Resources by type (`listeners`, `routes`, `clusters`, `endpoints`) and name."""

TYPES: Mapping[str, str] = {
    "listeners": "envoy.config.listener.v3.Listener",
    "routes": "envoy.config.route.v3.RouteConfiguration",
    "clusters": "envoy.config.cluster.v3.Cluster",
    "endpoints": "envoy.config.endpoint.v3.ClusterLoadAssignment",
}

SETS: frozenset[tuple[str, str]] = frozenset(
    (f"envoy.config.{message}", field)
    for message, field in (
        ("route.v3.RouteConfiguration", "virtual_hosts"),
        ("route.v3.VirtualHost", "domains"),
        ("route.v3.RouteMatch", "query_parameters"),
        ("listener.v3.Listener", "filter_chains"),
        ("listener.v3.FilterChainMatch", "server_names"),
        ("listener.v3.FilterChainMatch", "application_protocols"),
        ("listener.v3.FilterChainMatch", "prefix_ranges"),
        ("endpoint.v3.ClusterLoadAssignment", "endpoints"),
        ("endpoint.v3.LocalityLbEndpoints", "lb_endpoints"),
    )
) | {
    (
        "envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext",
        "match_typed_subject_alt_names",
    )
}
"""Lists that Envoy reads as sets, by their message and field."""

_WRAPPERS = frozenset(
    f"google.protobuf.{name}Value"
    for name in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
)
_LONG = frozenset(("google.protobuf.Int64Value", "google.protobuf.UInt64Value"))


def normal(resources: Mapping[str, Iterable[Json]]) -> Resources:
    """Returns the resources of a proxy, in lists by type, in the normal form."""
    result: Resources = {}
    for kind in TYPES:
        found = [_cached(kind, json.dumps(item)) for item in resources.get(kind, ())]
        result[kind] = dict(sorted((name_of(item), item) for item in found))
        if len(result[kind]) < len(found):
            raise ValueError(f"two {kind} of one name")
    return result


def name_of(resource: Json) -> str:
    return str(resource.get("name") or resource.get("cluster_name"))


@functools.lru_cache(maxsize=20_000)
def _cached(kind: str, text: str) -> Json:
    found: Json = _message(message_type(TYPES[kind]).DESCRIPTOR, json.loads(text))
    return found


def _message(kind: Any, value: Any) -> Any:
    name = kind.full_name
    if name == "google.protobuf.Any":
        return _any(value)
    if name == "google.protobuf.Duration":
        return _duration(value)
    if name in _WRAPPERS:
        return int(value) if name in _LONG else value
    if name.startswith("google.protobuf.") or not isinstance(value, dict):
        return value
    fields = {spelling: f for f in kind.fields for spelling in (f.name, f.json_name)}
    result = {}
    for key, item in value.items():
        if key not in fields:
            result[key] = item
        elif item is not None and not _default(fields[key], item):
            result[fields[key].name] = _field(fields[key], item)
    return dict(sorted(result.items()))


def _any(value: Json) -> Json:
    rest = {key: item for key, item in value.items() if key != "@type"}
    try:
        kind = message_type(str(value.get("@type", "")).rpartition("/")[2])
    except UnknownTypeError:
        return value
    return {"@type": value["@type"], **_message(kind.DESCRIPTOR, rest)}


def _duration(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    parsed = duration_pb2.Duration()
    parsed.FromJsonString(value)
    return parsed.ToJsonString()


def _default(field: Any, value: Any) -> bool:
    """Returns whether protobuf has no difference between this value and none."""
    if field.has_presence:
        return False
    if isinstance(value, dict | list):
        return not value
    return bool(_scalar(field, value) == _zero(field))


def _zero(field: Any) -> Any:
    if field.enum_type is not None:
        return field.enum_type.values_by_number[0].name
    return field.default_value


def _field(field: Any, value: Any) -> Any:
    inner = field.message_type
    if inner is not None and inner.GetOptions().map_entry:
        of = inner.fields_by_name["value"]
        return {key: _one(of, item) for key, item in sorted(value.items())}
    if field.is_repeated:
        found = [_one(field, item) for item in value]
        if (field.containing_type.full_name, field.name) in SETS:
            found.sort(key=lambda item: json.dumps(item, sort_keys=True))
        return found
    return _one(field, value)


def _one(field: Any, value: Any) -> Any:
    if field.message_type is None:
        return _scalar(field, value)
    return _message(field.message_type, value)


def _scalar(field: Any, value: Any) -> Any:
    if field.enum_type is not None and isinstance(value, int):
        return field.enum_type.values_by_number[value].name
    if field.cpp_type in (field.CPPTYPE_INT64, field.CPPTYPE_UINT64):
        return int(value)
    return value
