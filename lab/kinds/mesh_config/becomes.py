"""MeshConfig: the settings of the whole mesh, from the files that `istioctl install` takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from lab.kinds.mesh_config.checks import ExtensionProvider, FileAccessLogProvider, MeshConfig
from lab.kinds.services import EXPORT_TO
from lab.model import Json, Snapshot
from lab.resources.document import without_nulls
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


_EXPORTS = {
    "VirtualService": "defaultVirtualServiceExportTo",
    "DestinationRule": "defaultDestinationRuleExportTo",
    "ServiceEntry": "defaultServiceExportTo",
}


def with_exports(snapshot: Snapshot) -> Snapshot:
    """Returns a snapshot in which what has no `exportTo` has the mesh's for its kind."""
    config = dict(snapshot.config)
    for kind, field in _EXPORTS.items():
        if default := snapshot.mesh.get(field):
            config[kind] = tuple(_exported(item, default) for item in snapshot.of(kind))
    services = snapshot.services
    if default := snapshot.mesh.get(_EXPORTS["ServiceEntry"]):
        own = {EXPORT_TO: ",".join(default)}
        services = tuple(replace(one, annotations={**own, **one.annotations}) for one in services)
    return replace(snapshot, config=config, services=services)


def _exported(resource: Resource, default: list[str]) -> Resource:
    if resource.spec.export_to:
        return resource
    spec = resource.spec.model_copy(update={"export_to": default})
    return replace(resource, body=resource.body.model_copy(update={"spec": spec}))


def normalization(mesh: MeshConfig) -> Json:
    """Returns the fields of an HTTP connection manager about paths."""
    rules = mesh.path_normalization.normalization
    result: Json = {
        "normalize_path": rules != "NONE",
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
    }
    if rules in ("MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES"):
        result["merge_slashes"] = True
    if rules == "DECODE_AND_MERGE_SLASHES":
        result["path_with_escaped_slashes_action"] = "UNESCAPE_AND_FORWARD"
    return result


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

    The settings of the last profile come first, then each file's: maps merge, lists replace.
    """
    specs = [without_nulls(operator.raw).get("spec", {}) for operator in operators]
    profiles = [spec["profile"] for spec in specs if "profile" in spec]
    merged: dict[str, Any] = _merge({}, _PROFILES.get(profiles[-1], {})) if profiles else {}
    for spec in specs:
        sampling = spec.get("values", {}).get("pilot", {}).get("traceSampling")
        if sampling is not None:
            merged = _merge(merged, {"defaultConfig": {"tracing": {"sampling": sampling}}})
        merged = _merge(merged, spec.get("meshConfig", {}))
    return merged


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    both = [key for key in over if isinstance(over[key], dict) and isinstance(base.get(key), dict)]
    return {**base, **over, **{key: _merge(base[key], over[key]) for key in both}}
