"""Differences from istiod that are on purpose, each with its reason."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass
from typing import Any

from tests.istiod.normal import Resources


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A part of the configuration that is not compared.

    `where` is `TYPE.FIELD`, a field of each resource of a type; `**.FIELD`, a field anywhere; or
    `**.LIST[NAME]`, the items called so of a list anywhere.
    """

    where: str
    reason: str


LEFT_OUT: tuple[LeftOut, ...] = (
    LeftOut("**.http_filters[istio.alpn]", "Only Istio's build of Envoy has it."),
    LeftOut("**.http_filters[istio.stats]", "Only Istio's build of Envoy has it."),
    LeftOut("**.http_filters[istio.metadata_exchange]", "Only Istio's build of Envoy has it."),
    LeftOut("**.filters[istio.stats]", "Only Istio's build of Envoy has it."),
    LeftOut("**.filters[istio.metadata_exchange]", "Only Istio's build of Envoy has it."),
    LeftOut(
        "**.http_filters[envoy.filters.http.peer_metadata]", "Only Istio's build of Envoy has it."
    ),
    LeftOut("**.filters[envoy.filters.network.peer_metadata]", "Only Istio's build has it."),
    LeftOut("clusters.metadata", "It names the services for Istio's telemetry filters."),
    LeftOut("**.filter_metadata.istio", "It names the workload for Istio's telemetry filters."),
    LeftOut("**.config_source", "A cluster's proxy asks istiod for routes, the lab's reads files."),
    LeftOut("**.eds_config", "A cluster's proxy asks istiod for endpoints, the lab's reads files."),
    LeftOut("**.runtime_key", "Istio writes a character by mistake; nobody reads it."),
    LeftOut("**.filters[envoy.filters.network.mongo_proxy]", "It counts; it changes nothing."),
    LeftOut(
        "**.sds_config", "A cluster's proxy asks the agent for certificates, the lab's reads files."
    ),
)


def without(resources: Resources, used: set[str], entries: Set[str] | None = None) -> Resources:
    """Returns the resources without the parts that are left out, and notes the entries used."""
    wheres = {entry.where for entry in LEFT_OUT} if entries is None else entries
    tops = {tuple(where.split(".", 1)): where for where in wheres if not where.startswith("**")}
    deep = {where.removeprefix("**."): where for where in wheres if where.startswith("**")}
    result: Resources = {}
    for kind, items in resources.items():
        result[kind] = {}
        for name, item in items.items():
            found = {}
            for key, value in item.items():
                if (kind, key) in tops:
                    used.add(tops[kind, key])
                else:
                    found[key] = value
            result[kind][name] = _without(found, deep, used)
    return result


def _without(value: Any, deep: dict[str, str], used: set[str]) -> Any:
    if isinstance(value, list):
        return [_without(item, deep, used) for item in value]
    if not isinstance(value, dict):
        return value
    result = {}
    for key, item in value.items():
        if key in deep:
            used.add(deep[key])
        elif (parent := f"{key}.istio") in deep and isinstance(item, dict) and "istio" in item:
            used.add(deep[parent])
            if rest := {name: one for name, one in item.items() if name != "istio"}:
                result[key] = _without(rest, deep, used)
        elif isinstance(item, list):
            kept = [_without(one, deep, used) for one in _kept(key, item, deep, used)]
            if kept or not item:
                result[key] = kept
        elif (own := _without(item, deep, used)) != {} or item == {}:
            result[key] = own
    return result


def _kept(key: str, items: list[Any], deep: dict[str, str], used: set[str]) -> Iterator[Any]:
    for item in items:
        where = deep.get(f"{key}[{item['name']}]") if _named(item) else None
        if where is None:
            yield item
        else:
            used.add(where)


def _named(item: Any) -> bool:
    return isinstance(item, dict) and isinstance(item.get("name"), str)
