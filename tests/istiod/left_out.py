"""Differences from istiod that are on purpose, each with its reason."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lab.kinds.request_authentication.becomes import REJECT_ALL_KEYS
from tests.istiod.normal import Resources

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A part of the configuration that is not compared.

    `where` is the type of a resource (or `*`) and the end of a path in it: fields, and in brackets
    the name of an item of a list.
    """

    where: str
    reason: str
    values: tuple[str, ...] = ()
    """The values that are left out; all when there are none."""

    @property
    def steps(self) -> Path:
        """Returns the type and the end of the path."""
        return tuple(re.findall(r"\[[^]]*\]|[^.\[\]\s]+", self.where))


_STOCK = "Only Istio's build of Envoy has this filter."
_TELEMETRY = "Only Istio's telemetry filters read it."
_SOURCE = "istiod is asked for it over the network; the lab writes it to a file."

LEFT_OUT: tuple[LeftOut, ...] = (
    LeftOut("listeners http_filters[istio.alpn]", _STOCK),
    LeftOut("listeners http_filters[istio.stats]", _STOCK),
    LeftOut("listeners http_filters[istio.metadata_exchange]", _STOCK),
    LeftOut("listeners filters[istio.stats]", _STOCK),
    LeftOut("listeners filters[istio.metadata_exchange]", _STOCK),
    LeftOut("clusters filters[istio.metadata_exchange]", _STOCK),
    LeftOut("clusters metadata.filter_metadata.istio", _TELEMETRY),
    LeftOut("endpoints metadata.filter_metadata.istio", _TELEMETRY),
    LeftOut("listeners filters[envoy.filters.network.mongo_proxy]", "It only counts."),
    LeftOut("clusters aggression.runtime_key", "istiod writes one character; nobody reads it."),
    LeftOut(
        "listeners local_jwks.inline_string",
        "Envoy refuses a key set without keys, which istiod sends all the same.",
        values=('{"keys":[]}', REJECT_ALL_KEYS),
    ),
    LeftOut(
        "listeners provider.typed_config.service_name", "The proxy tells istiod, when it runs."
    ),
    LeftOut("* sds_config", _SOURCE),
    LeftOut("clusters eds_cluster_config.eds_config", _SOURCE),
    LeftOut("listeners rds.config_source", _SOURCE),
)


def without(resources: Resources, used: set[str]) -> Resources:
    """Returns the resources without the parts that are left out, and notes the entries used."""
    return {
        kind: {name: _without(item, (kind,), used) or {} for name, item in items.items()}
        for kind, items in resources.items()
    }


def _by_last_step() -> Mapping[str, list[tuple[Path, LeftOut]]]:
    found: dict[str, list[tuple[Path, LeftOut]]] = {}
    for entry in LEFT_OUT:
        found.setdefault(entry.steps[-1], []).append((entry.steps, entry))
    return found


_ENTRIES = _by_last_step()
_NOTHING = object()
"""A part of which nothing is left."""


def _without(value: Any, path: Path, used: set[str]) -> Any:
    """Returns a value without its parts that are left out, or None when nothing else is in it."""
    if not isinstance(value, dict | list) or not value:
        return value
    if isinstance(value, dict):
        parts = [(key, _part(item, (*path, key), used)) for key, item in value.items()]
        kept: Any = {key: item for key, item in parts if item is not _NOTHING}
    else:
        parts = [("", _part(item, (*path, _step(item)), used)) for item in value]
        kept = [item for _, item in parts if item is not _NOTHING]
    return kept or None


def _part(item: Any, path: Path, used: set[str]) -> Any:
    for steps, entry in _ENTRIES.get(path[-1], ()):
        here = steps[0] in ("*", path[0]) and path[-len(steps) + 1 :] == steps[1:]
        if here and (not entry.values or item in entry.values):
            used.add(entry.where)
            return _NOTHING
    found = _without(item, path, used)
    return _NOTHING if found is None else found


def _step(item: Any) -> str:
    return f"[{item['name']}]" if isinstance(item, dict) and "name" in item else "[]"
