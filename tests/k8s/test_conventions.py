"""Habits that the exercises, or the person on call, rely on."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.common.settings import CommonSettings
from services.guestbook.settings import Settings as GuestbookSettings
from services.message.settings import Settings as MessageSettings
from services.ui.settings import Settings as UiSettings
from tests.k8s.manifests import BASE, K8S, KUSTOMIZATIONS, kustomize, load, pods
from tests.support.repository import ROOT

SERVICES: dict[str, type[CommonSettings]] = {
    "ui": UiSettings,
    "message-service": MessageSettings,
    "guestbook-service": GuestbookSettings,
}
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
BASE_PODS = {
    manifest["metadata"]["name"]: manifest["spec"]["template"]
    for path in BASE.glob("*.yaml")
    for manifest in load(path)
    if manifest["kind"] in ("Deployment", "StatefulSet")
}


def container(name: str) -> dict[str, Any]:
    found: dict[str, Any] = BASE_PODS[name]["spec"]["containers"][0]
    return found


@pytest.mark.parametrize("folder", KUSTOMIZATIONS)
def test_images_are_pinned_and_not_pulled_again(folder: str) -> None:
    for name, pod in pods(kustomize(K8S / folder)):
        for image in (c["image"] for c in pod["spec"]["containers"]):
            assert re.search(r":(?!latest$)[\w.-]+$", image), f"{name}: {image}"
        assert {c["imagePullPolicy"] for c in pod["spec"]["containers"]} == {"IfNotPresent"}


@pytest.mark.parametrize("name", BASE_PODS)
def test_version_labels_are_text(name: str) -> None:
    assert isinstance(BASE_PODS[name]["metadata"]["labels"]["version"], str)


@pytest.mark.parametrize("path", sorted(K8S.rglob("*.yaml")), ids=lambda p: str(p.relative_to(K8S)))
def test_versions_are_quoted_where_they_are_written(path: Path) -> None:
    """`version: 1.0` is a number, which the API server refuses for a label."""
    assert re.findall(r"^\s*version: [^\"\n]*$", path.read_text(), re.M) == []


@pytest.mark.parametrize("name", BASE_PODS)
def test_the_container_is_called_like_its_app(name: str) -> None:
    """The exercises say `kubectl logs POD -c message-service`."""
    assert container(name)["name"] == BASE_PODS[name]["metadata"]["labels"]["app"] == name


@pytest.mark.parametrize("folder", KUSTOMIZATIONS)
@pytest.mark.parametrize("name", SERVICES)
def test_variables_are_settings_of_the_service(name: str, folder: str) -> None:
    """A misspelt variable would be ignored by the service, in silence."""
    fields = {field.upper() for field in SERVICES[name].model_fields}
    (found,) = dict(pods(kustomize(K8S / folder)))[name]["spec"]["containers"]
    assert {variable["name"] for variable in found["env"]} <= fields
    assert set(COMPOSE["services"][name]["environment"]) <= fields


@pytest.mark.parametrize("name", BASE_PODS)
def test_compose_and_kubernetes_agree(name: str) -> None:
    compose = COMPOSE["services"][name]
    manifest = container(name)
    assert re.sub(r"^\$\{\w+:-(.*)\}$", r"\1", compose["image"]) == manifest["image"]
    if name == "ui":  # Prints the address, and then runs what the image would have run.
        assert compose["command"][-1].splitlines()[-1] == "exec python -m services.ui"
        assert "args" not in manifest
    else:
        assert list(compose.get("command", [])) == [
            *(["redis-server"] if name == "redis" else []),
            *[arg for arg in manifest.get("args", []) if arg != "redis-server"],
        ]
    # The same values, but for the port, which a Kubernetes Service translates.
    variables = {v["name"]: v.get("value") for v in manifest.get("env", [])}
    for variable, value in compose.get("environment", {}).items():
        if variable in variables and "${" not in value:
            assert value.removesuffix(":8080") == variables[variable]
    assert variables.keys() - {"SHUTDOWN_GRACE"} <= compose.get("environment", {}).keys()


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_those_the_service_opens(name: str) -> None:
    defaults = SERVICES[name].model_fields
    ports = {port["name"]: port["containerPort"] for port in container(name)["ports"]}
    assert ports == {
        "http": defaults["port"].default,
        "metrics": defaults["management_port"].default,
    }
    health = (ROOT / "services/Dockerfile").read_text()
    assert f"http://127.0.0.1:{ports['metrics']}/actuator/health/readiness" in health
    assert f"EXPOSE {ports['http']} {ports['metrics']}" in health


@pytest.mark.parametrize("name", SERVICES)
def test_a_pod_has_time_to_stop(name: str) -> None:
    """preStop and the service's own grace fit into the grace period (docs/upgrades.md)."""
    spec = BASE_PODS[name]["spec"]
    pre_stop = container(name)["lifecycle"]["preStop"]["sleep"]["seconds"]
    grace = int({v["name"]: v.get("value") for v in container(name)["env"]}["SHUTDOWN_GRACE"])
    readiness = container(name)["readinessProbe"]
    assert pre_stop + grace + 5 <= spec["terminationGracePeriodSeconds"]
    assert SERVICES[name].model_fields["shutdown_drain"].default < grace
    assert readiness["timeoutSeconds"] < readiness["periodSeconds"]


def test_no_secret_is_in_the_repository() -> None:
    for folder in KUSTOMIZATIONS:
        assert [m for m in kustomize(K8S / folder) if m["kind"] == "Secret"] == []
    passwords = [
        value
        for service in COMPOSE["services"].values()
        for variable, value in service.get("environment", {}).items()
        if "PASSWORD" in variable
    ]
    assert passwords
    assert all(value.startswith("/run/credentials/") for value in passwords)


def test_the_gke_overlay_takes_the_registry_from_one_variable() -> None:
    registry = "europe-west1-docker.pkg.dev/PROJECT_ID/guestbook"
    assert f"REGISTRY={registry}" in (K8S / "overlays/gke/registry.env").read_text().splitlines()
    assert images(K8S / "overlays/gke") == {
        "ui": f"{registry}/ui:v1",
        "message-service": f"{registry}/message:v1",
        "guestbook-service": f"{registry}/guestbook:v1",
    }


@pytest.mark.parametrize("registry", ["ghcr.io/somebody/guestbook", "localhost:5000", "r:1/a/b"])
def test_the_registry_overlay_takes_registry_and_tag_from_two_lines(
    tmp_path: Path, registry: str
) -> None:
    copy = tmp_path / "k8s"
    shutil.copytree(K8S, copy)
    file = copy / "overlays/registry/kustomization.yaml"
    text, lines = re.subn(
        r"- (REGISTRY|TAG)=.*",
        lambda found: f"- {found[1]}={registry if found[1] == 'REGISTRY' else '1.2.0'}",
        file.read_text(),
    )
    assert lines == 2
    file.write_text(text)
    assert images(copy / "overlays/registry") == {
        "ui": f"{registry}/ui:1.2.0",
        "message-service": f"{registry}/message:1.2.0",
        "guestbook-service": f"{registry}/guestbook:1.2.0",
    }


def images(folder: Path) -> dict[str, str]:
    """The images of our own services; the two servers keep theirs."""
    found = {name: pod["spec"]["containers"][0]["image"] for name, pod in pods(kustomize(folder))}
    assert found.pop("mysql").startswith("mysql:")
    assert found.pop("redis").startswith("redis:")
    return found


# --- what keeps a service going while nodes and pods come and go ----------------------------------


@pytest.mark.parametrize("folder", KUSTOMIZATIONS)
def test_a_rollout_spreads_the_pods_of_its_own_revision(folder: str) -> None:
    """Counting the old pods too puts both new ones on the node that a drain left empty."""
    found = {name: pod["spec"] for name, pod in pods(kustomize(K8S / folder)) if name in SERVICES}
    assert found.keys() == SERVICES.keys()
    for spec in found.values():
        spread = spec["topologySpreadConstraints"]
        assert spread
        assert all(c["matchLabelKeys"] == ["pod-template-hash"] for c in spread)


@pytest.mark.parametrize("folder", KUSTOMIZATIONS)
def test_a_drain_may_take_a_pod_that_never_gets_ready_and_no_second_version(folder: str) -> None:
    manifests = kustomize(K8S / folder)
    budgets = [m for m in manifests if m["kind"] == "PodDisruptionBudget"]
    assert {m["metadata"]["name"] for m in budgets} == set(SERVICES)
    selectors = {
        m["metadata"]["name"]: m["spec"]["selector"] for m in manifests if m["kind"] == "Deployment"
    }
    for budget in budgets:
        assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
        # The Deployment's selector: ui-v2 of the lessons has another version.
        assert budget["spec"]["selector"] == selectors[budget["metadata"]["name"]]


def test_the_pod_of_mysql_has_a_name_of_its_own() -> None:
    """A headless Service is what makes mysql-0.mysql resolve."""
    found = {
        m["metadata"]["name"]: m
        for path in BASE.glob("*.yaml")
        for m in load(path)
        if m["kind"] == "Service"
    }
    assert found["mysql"]["spec"]["clusterIP"] == "None"


@pytest.mark.parametrize("folder", KUSTOMIZATIONS)
def test_every_resource_has_a_request_and_a_limit(folder: str) -> None:
    wanted = {"cpu", "memory", "ephemeral-storage"}
    for name, pod in pods(kustomize(K8S / folder)):
        for item in pod["spec"]["containers"]:
            assert set(item["resources"]["requests"]) == wanted, name
            assert set(item["resources"]["limits"]) == wanted, name
        for volume in pod["spec"].get("volumes", []):
            assert "sizeLimit" in volume.get("emptyDir", {"sizeLimit": ""}), volume["name"]
