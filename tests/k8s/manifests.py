"""Reads the manifests as a cluster would get them."""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.repository import ROOT

K8S = ROOT / "k8s"
BASE = K8S / "base"
KUSTOMIZATIONS = (
    "base",
    "overlays/kind",
    "overlays/gke",
    "overlays/registry",
    "overlays/hardened",
)
COMPONENTS = ("autoscaling", "network-policies", "pod-security", "redis-password")

Manifest = dict[str, Any]


def load(path: Path) -> list[Manifest]:
    """The documents of one file."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def kustomize(folder: Path) -> list[Manifest]:
    """Returns the objects that `kubectl apply -k FOLDER` would send."""
    return list(yaml.safe_load_all(_built(folder)))


@functools.cache
def _built(folder: Path) -> str:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed (https://kubernetes.io/docs/tasks/tools/)")
    result = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def with_component(component: str, folder: Path) -> list[Manifest]:
    """The base with one of the components, as an overlay of FOLDER that a user would write."""
    overlay = folder / component
    overlay.mkdir()
    (overlay / "kustomization.yaml").write_text(
        yaml.safe_dump(
            {
                "apiVersion": "kustomize.config.k8s.io/v1beta1",
                "kind": "Kustomization",
                "resources": [str(_relative(BASE, overlay))],
                "components": [str(_relative(K8S / "components" / component, overlay))],
            }
        )
    )
    return kustomize(overlay)


def _relative(target: Path, start: Path) -> Path:
    ups = len(start.resolve().parts) - 1
    return Path(*[".."] * ups, *target.resolve().parts[1:])


def pods(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Each workload's name and its pod template."""
    for manifest in manifests:
        if manifest["kind"] in ("Deployment", "StatefulSet"):
            yield manifest["metadata"]["name"], manifest["spec"]["template"]
