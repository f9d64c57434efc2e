"""ProxyConfig: a proxy's own `defaultConfig`, with the pod's annotation and the mesh's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lab import names
from lab.kinds import selection
from lab.kinds.mesh_config import annotation
from lab.model import Pod, Snapshot
from lab.resources.resource import Resource


def merged(snapshot: Snapshot, pod: Pod) -> dict[str, Any]:
    """Returns the mesh configuration as it is for one pod.

    A ProxyConfig that selects the pod comes before its annotation, then that of its namespace, of
    the root namespace, and the mesh's `defaultConfig`. A field replaces another as a whole, as in
    istiod: `tracing` with a sampling alone has no other of the mesh's settings. Only
    `proxyMetadata` is merged, and most of `proxyHeaders`.
    """
    default: dict[str, Any] = {"proxyMetadata": {}, **(snapshot.mesh.get("defaultConfig") or {})}
    for layer in _layers(snapshot, pod):
        variables = {**default["proxyMetadata"], **layer.get("proxyMetadata", {})}
        own = layer.get("proxyHeaders")
        headers = {}
        if own is not None:
            headers["proxyHeaders"] = _headers(default.get("proxyHeaders"), own)
        default = {**default, **layer, "proxyMetadata": variables, **headers}
    return {**snapshot.mesh, "defaultConfig": default}


_MERGED = ("forwardedClientCert", "requestId", "attemptCount", "server", "envoyDebugHeaders")


def _headers(mesh: dict[str, Any] | None, own: dict[str, Any]) -> dict[str, Any]:
    """Returns a proxy's own headers with those of the mesh that istiod keeps."""
    return {**{name: value for name, value in (mesh or {}).items() if name in _MERGED}, **own}


def _layers(snapshot: Snapshot, pod: Pod) -> Iterator[dict[str, Any]]:
    """Yields the parts of `defaultConfig`, the strongest last; of each level the oldest."""
    found = snapshot.of("ProxyConfig")
    for namespace in dict.fromkeys((snapshot.root_namespace, pod.namespace)):
        wide = (one for one in found if one.namespace == namespace and one.spec.selector is None)
        yield from map(_layer, list(wide)[:1])
    if own := annotation.proxy_config(pod.annotations):
        yield own
    selecting = (
        one
        for one in found
        if one.namespace == pod.namespace
        and selection.labels(one)
        and names.selects(selection.labels(one), pod.labels)
    )
    yield from map(_layer, list(selecting)[:1])


def _layer(resource: Resource) -> dict[str, Any]:
    variables = resource.spec.environment_variables
    return {"proxyMetadata": variables} if variables else {}
