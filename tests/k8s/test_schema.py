"""Every manifest is what the API server of each supported Kubernetes would take."""

from __future__ import annotations

from pathlib import Path

import kubernetes_validate
import pytest

from tests.k8s.manifests import (
    BASE,
    COMPONENTS,
    K8S,
    KUSTOMIZATIONS,
    kustomize,
    load,
    with_component,
)

NEWEST = kubernetes_validate.latest_version()
VERSIONS = [f"1.{minor}" for minor in range(32, int(NEWEST.split(".")[1]) + 1)]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("folder", KUSTOMIZATIONS)
def test_kustomizations_are_valid(folder: str, version: str) -> None:
    for manifest in kustomize(K8S / folder):
        kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("component", COMPONENTS)
def test_components_are_valid(component: str, version: str, tmp_path: Path) -> None:
    for manifest in with_component(component, tmp_path):
        kubernetes_validate.validate(manifest, version, strict=True)


KUSTOMIZATION = BASE / "kustomization.yaml"
FILES = sorted(path for path in BASE.glob("*.yaml") if path != KUSTOMIZATION)


def test_the_base_lists_each_file() -> None:
    assert sorted(load(KUSTOMIZATION)[0]["resources"]) == [path.name for path in FILES]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_each_file_can_be_applied_by_itself(path: Path) -> None:
    for manifest in load(path):
        kubernetes_validate.validate(manifest, NEWEST, strict=True)


def test_an_unknown_field_fails() -> None:
    manifest = load(BASE / "ui-deployment.yaml")[1]
    manifest["spec"]["template"]["spec"]["containers"][0]["imagePullPolizy"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError, match="imagePullPolizy"):
        kubernetes_validate.validate(manifest, NEWEST, strict=True)
