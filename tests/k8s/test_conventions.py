"""Habits that the exercises, or the person on call, rely on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.common.settings import CommonSettings
from services.guestbook.settings import Settings as GuestbookSettings
from services.message.settings import Settings as MessageSettings
from services.ui.settings import Settings as UiSettings
from tests.k8s.manifests import BASE, K8S, KUSTOMIZATIONS, ROOT, kustomize, load, pods

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


@pytest.mark.parametrize("name", SERVICES)
def test_variables_are_settings_of_the_service(name: str) -> None:
    """A misspelt variable would be ignored by the service, in silence."""
    fields = {field.upper() for field in SERVICES[name].model_fields}
    assert {variable["name"] for variable in container(name)["env"]} <= fields
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
    # Passwords come from a Secret there and from a file here; the rest has the same value, but for
    # the port, which a Kubernetes Service translates.
    variables = {v["name"]: v.get("value") for v in manifest.get("env", [])}
    for variable, value in compose.get("environment", {}).items():
        if variable.endswith("_PASSWORD_FILE"):
            assert variable.removesuffix("_FILE") in variables
        elif variable in variables and "${" not in value:
            assert value.removesuffix(":8080") == variables[variable]
    ours = {"SHUTDOWN_GRACE", "MYSQL_PASSWORD", "MYSQL_ROOT_PASSWORD"}
    assert variables.keys() - ours <= compose.get("environment", {}).keys()


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
    for service in COMPOSE["services"].values():
        for variable, value in service.get("environment", {}).items():
            if "PASSWORD" in variable:
                assert value.startswith("/run/credentials/")


def test_the_gke_overlay_takes_the_registry_from_one_variable() -> None:
    registry = "europe-west1-docker.pkg.dev/PROJECT_ID/guestbook"
    assert f"REGISTRY={registry}" in (K8S / "overlays/gke/registry.env").read_text().splitlines()
    images = {
        name: pod["spec"]["containers"][0]["image"]
        for name, pod in pods(kustomize(K8S / "overlays/gke"))
    }
    assert images == {
        "ui": f"{registry}/ui:v1",
        "message-service": f"{registry}/message:v1",
        "guestbook-service": f"{registry}/guestbook:v1",
        "mysql": BASE_PODS["mysql"]["spec"]["containers"][0]["image"],
        "redis": BASE_PODS["redis"]["spec"]["containers"][0]["image"],
    }
