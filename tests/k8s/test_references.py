"""Whatever a manifest names exists and fits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.k8s.manifests import COMPONENTS, K8S, KUSTOMIZATIONS, Manifest, kustomize, with_component
from tests.k8s.references import problems

Break = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize("folder", KUSTOMIZATIONS)
def test_kustomizations_have_no_loose_end(folder: str) -> None:
    assert problems(kustomize(K8S / folder)) == []


@pytest.mark.parametrize("component", COMPONENTS)
def test_components_have_no_loose_end(component: str, tmp_path: Path) -> None:
    assert problems(with_component(component, tmp_path)) == []


def _container(manifest: Manifest) -> dict[str, Any]:
    container: dict[str, Any] = manifest["spec"]["template"]["spec"]["containers"][0]
    return container


@pytest.mark.parametrize(
    ("name", "break_it", "expected"),
    [
        ("Service ui", lambda m: m["spec"]["selector"].update(app="uj"), "selects no pod"),
        (
            "Service ui",
            lambda m: m["spec"]["ports"][0].update(targetPort=81),
            "no container port 81",
        ),
        (
            "Deployment ui",
            lambda m: m["spec"]["selector"]["matchLabels"].update(version="2.0"),
            "selects 0 pod templates",
        ),
        (
            "Deployment ui",
            lambda m: m["spec"]["template"]["spec"].update(serviceAccountName="default"),
            "no ServiceAccount default",
        ),
        (
            "Deployment ui",
            lambda m: _container(m)["readinessProbe"]["httpGet"].update(port=9001),
            "readinessProbe asks port 9001",
        ),
        ("Deployment ui", lambda m: _container(m).pop("startupProbe"), "no startupProbe"),
        (
            "Deployment ui",
            lambda m: m["spec"]["template"]["metadata"]["annotations"].update(
                {"prometheus.io/port": "9100"}
            ),
            "prometheus.io/port 9100",
        ),
        (
            "Deployment guestbook-service",
            lambda m: m["spec"]["template"]["spec"]["volumes"][0]["secret"]["items"][0].update(
                key="pass"
            ),
            "no Secret mysql-credentials with key pass",
        ),
        (
            "Deployment guestbook-service",
            lambda m: _container(m)["env"][3].update(value="/run/credentials/pass"),
            "no file /run/credentials/pass",
        ),
        ("StatefulSet mysql", lambda m: m["spec"].update(serviceName="db"), "no Service db"),
        (
            "StatefulSet mysql",
            lambda m: _container(m)["volumeMounts"][0].update(name="dat"),
            "no volume dat",
        ),
        (
            "PodDisruptionBudget ui",
            lambda m: m["spec"]["selector"]["matchLabels"].update(app="uj"),
            "selects no pod",
        ),
        (
            "HorizontalPodAutoscaler ui",
            lambda m: m["spec"]["scaleTargetRef"].update(name="uj"),
            "no Deployment uj",
        ),
    ],
)
def test_a_loose_end_is_found(name: str, break_it: Break, expected: str) -> None:
    manifests = kustomize(K8S / "overlays/gke")
    kind, _, wanted = name.partition(" ")
    for manifest in manifests:
        if manifest["kind"] == kind and manifest["metadata"]["name"] == wanted:
            break_it(manifest)
    assert any(expected in problem for problem in problems(manifests))
