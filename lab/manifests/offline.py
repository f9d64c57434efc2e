"""Manifests without a cluster: nothing runs, and of pods names, images and ports count."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from lab.resources.document import Document

_WORKLOADS = ("Pod", "Deployment", "StatefulSet")
_ROUTING = re.compile(r"v1|(apps|(gateway\.)?networking\.k8s\.io|.*\.istio\.io)/.*")
"""The versions of kinds that a route may depend on; another is passed over."""
_POD = ("containers", "initContainers", "serviceAccountName", "serviceAccount", "hostname")
_CONTAINER = ("name", "image", "ports", "restartPolicy")


def reduced_documents(found: Iterable[Document]) -> Iterator[Document]:
    """Yields the documents that count without a cluster, without what concerns running pods."""
    for document in found:
        value = _reduced(document.value)
        if value is not None:
            yield replace(document, value=value)


def _reduced(manifest: Any) -> Any:
    """Returns a manifest without what concerns running pods; None for one that routes nothing."""
    if not isinstance(manifest, dict):
        return manifest
    version = manifest.get("apiVersion")
    if isinstance(version, str) and not _ROUTING.fullmatch(version):
        return None
    spec = manifest.get("spec")
    if manifest.get("kind") not in _WORKLOADS or not isinstance(spec, dict):
        return manifest
    if manifest["kind"] == "Pod":
        return {**manifest, "spec": _pod(spec)}
    template = spec.get("template")
    if not isinstance(template, dict):
        return manifest
    template = {**template, "spec": _pod(template.get("spec"))}
    return {**manifest, "spec": {**spec, "template": template}}


def _pod(spec: Any) -> Any:
    if not isinstance(spec, dict):
        return spec
    kept = {name: spec[name] for name in _POD if name in spec} | _user(spec)
    for name in ("containers", "initContainers"):
        if isinstance(kept.get(name), list):
            # The sidecar is an init container once `kube-inject` has put it there.
            found = (one for one in kept[name] if name == "containers" or _is_sidecar(one))
            kept[name] = [_container(container) for container in found]
    return kept


def _container(container: Any) -> Any:
    if not isinstance(container, dict):
        return container
    kept = container if _is_sidecar(container) else {**container, "restartPolicy": None}
    return {name: kept[name] for name in _CONTAINER if kept.get(name) is not None} | _user(kept)


def _user(spec: dict[str, Any]) -> dict[str, Any]:
    """Returns the user that the sidecar's must differ from."""
    context = spec.get("securityContext")
    if isinstance(context, dict) and "runAsUser" in context:
        return {"securityContext": {"runAsUser": context["runAsUser"]}}
    return {}


def _is_sidecar(container: Any) -> bool:
    return isinstance(container, dict) and container.get("name") == "istio-proxy"
