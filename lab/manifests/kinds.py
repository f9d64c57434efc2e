"""The kinds the lab knows, and the names by which people call them."""

from __future__ import annotations

import functools
import importlib
import importlib.util

from lab.manifests.resource import Kind

_MODULES = (
    "core",
    "apps",
    "inert",
    "networking",
    "security",
    "telemetry",
    "envoy_filter",
    "install",
)


@functools.cache
def kinds() -> tuple[Kind, ...]:
    """All supported kinds, in the order `get all` and errors list them."""
    found: list[Kind] = []
    for module in _MODULES:
        name = f"lab.manifests.{module}"
        if importlib.util.find_spec(name) is not None:
            found.extend(importlib.import_module(name).KINDS)
    return tuple(found)


@functools.cache
def names() -> dict[str, Kind]:
    """Every spelling of a kind on the command line: plural, singular, short, with its group."""
    table: dict[str, Kind] = {}
    for kind in kinds():
        for name in (kind.plural, kind.kind.lower(), *kind.short_names):
            table.setdefault(name, kind)
            if kind.group:
                table.setdefault(f"{name}.{kind.group}", kind)
                for version in kind.versions:
                    table.setdefault(f"{name}.{version}.{kind.group}", kind)
    return table


def find(name: str) -> Kind | None:
    """The kind called `po`, `pods`, `Pod`, `virtualservices.networking.istio.io`, ..."""
    return names().get(name.lower())


def of(api_version: str, kind: str) -> Kind | str:
    """The kind of a document, or the reason why there is none."""
    group, _, version = api_version.rpartition("/")
    same_name = [item for item in kinds() if item.kind == kind]
    for item in same_name:
        if item.group == group:
            if version in item.versions:
                return item
            known = ", ".join(f"{group}/{name}".lstrip("/") for name in item.versions)
            return f"{kind} exists as {known}, not {api_version}"
    if same_name:
        group = same_name[0].group
        known = ", ".join(f"{group}/{name}".lstrip("/") for name in same_name[0].versions)
        return f"{kind} exists as {known}, not {api_version}"
    return f"the lab has no {kind} ({api_version}); `guestbook api-resources` lists what it has"
