"""MeshConfig: the settings of the whole mesh, from the files that `istioctl install` takes."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from lab.kinds.mesh_config.checks import ExtensionProvider, FileAccessLogProvider, MeshConfig
from lab.model import Snapshot
from lab.resources.resource import Origin, Path, Resource

_PROFILES: dict[str, dict[str, Any]] = {
    "demo": {
        "accessLogFile": "/dev/stdout",
        "defaultConfig": {"tracing": {"sampling": 100.0}},
    },
}
"""The settings of istioctl's profiles, as far as the lab has them."""


def defaults(mesh: Mapping[str, Any]) -> MeshConfig:
    """Returns the user's mesh configuration with Istio's defaults for the rest.

    Raises pydantic.ValidationError on a field the lab doesn't know (`apply` has checked before).
    """
    return MeshConfig.model_validate(dict(mesh))


def origin(snapshot: Snapshot, field: str) -> Origin:
    """Returns the place of a field of the mesh configuration in the last file that sets it."""
    path: Path = ("spec", "meshConfig", field)
    for operator in reversed(snapshot.of("IstioOperator")):
        if path in operator.source.lines:
            return Origin(operator.source, path, operator)
    return Origin()


def provider(config: MeshConfig, name: str) -> ExtensionProvider | None:
    """Returns a provider by its name; `envoy`, the file access log, is built in."""
    for candidate in config.extension_providers:
        if candidate.name == name:
            return candidate
    if name == "envoy":
        return ExtensionProvider(
            name="envoy", envoyFileAccessLog=FileAccessLogProvider(path="/dev/stdout")
        )
    return None


def installed(operators: Iterable[Resource]) -> dict[str, Any]:
    """Returns the `meshConfig` that `istioctl install -f FIRST -f SECOND` would install.

    The profile's settings come first, then each file's: maps merge, lists replace.
    """
    operators = tuple(operators)
    merged: dict[str, Any] = {}
    for operator in operators:
        profile = operator.raw.get("spec", {}).get("profile")
        merged = _merge(merged, _PROFILES.get(profile, {}))
    for operator in operators:
        spec = operator.raw.get("spec", {})
        sampling = spec.get("values", {}).get("pilot", {}).get("traceSampling")
        if sampling is not None:
            merged = _merge(merged, {"defaultConfig": {"tracing": {"sampling": sampling}}})
        merged = _merge(merged, spec.get("meshConfig") or {})
    return merged


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(copy.deepcopy(dict(base)))
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = _merge(merged[key], value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged
