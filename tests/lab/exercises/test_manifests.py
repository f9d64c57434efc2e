"""Every manifest of istio/ is what Istio and Kubernetes accept, strictly."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from lab import versions as lab_versions
from lab.cli.up import MESH_BASELINE
from lab.exercises import load
from tests.support.fields import ENTRIES
from tests.support.repository import ISTIO, LESSONS, ROOT

SUFFIXES = (".yaml", ".yml", ".json")
"""Suffixes of the files that kubectl reads in a folder; it reads no folder below it."""


def manifests() -> list[tuple[str, dict[str, Any]]]:
    found = []
    for path in sorted(ISTIO.rglob("*.yaml")):
        if path.match(load.FILE) or "helm" in path.parts:
            continue
        name = str(path.relative_to(ISTIO))
        found += [(name, document) for document in yaml.safe_load_all(path.read_text())]
    return found


DOCUMENTS = manifests()
OF_ISTIO = [
    (f, d)
    for f, d in DOCUMENTS
    if "istio.io/" in d["apiVersion"] and "install" not in d["apiVersion"]
]
OTHERS = [(f, d) for f, d in DOCUMENTS if "istio.io/" not in d["apiVersion"]]


def of_today(kind: str, field: str) -> list[tuple[str, dict[str, Any]]]:
    """Returns the resources of a kind with a field in their spec; not those of the codelab."""
    return [
        (file, document)
        for file, document in OF_ISTIO
        if document["kind"] == kind and field in document["spec"] and "-2020" not in file
    ]


def strict(schema: Any) -> Any:
    """The schema with unknown fields refused, as `kubectl --validate=strict` does."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    done = {key: strict(value) for key, value in schema.items()}
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields")
    if "properties" in schema and schema.get("type") == "object" and not open_ended:
        done.setdefault("additionalProperties", False)
    return done


def errors(document: dict[str, Any]) -> list[str]:
    entry = ENTRIES[document["kind"]]
    group, _, version = document["apiVersion"].partition("/")
    assert group == entry["group"]
    assert version in entry["versions"]
    schema = entry["schema"]
    body = {key: value for key, value in document.items() if key == "spec"}
    spec = {"type": "object", "properties": {"spec": schema["properties"]["spec"]}}
    validator = jsonschema.Draft202012Validator(strict(spec))
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(body)]


def name(value: object) -> str:
    return value if isinstance(value, str) else ""


@pytest.mark.parametrize(("file", "document"), OF_ISTIO, ids=name)
def test_istio_accepts_it(file: str, document: dict[str, Any]) -> None:
    assert errors(document) == []


def test_the_check_would_find_an_unknown_field() -> None:
    _, route = next(item for item in OF_ISTIO if item[1]["kind"] == "VirtualService")
    spec = {**route["spec"], "htpp": []}
    assert any("htpp" in error for error in errors({**route, "spec": spec}))


@pytest.mark.parametrize(("file", "document"), OF_ISTIO, ids=name)
def test_it_is_written_in_the_api_of_today_and_says_its_namespace(
    file: str, document: dict[str, Any]
) -> None:
    newest = "v1alpha3" if document["kind"] == "EnvoyFilter" else "v1"
    assert document["apiVersion"].rpartition("/")[2] == newest
    assert document["metadata"]["namespace"] in ("default", "istio-system")


@pytest.mark.parametrize(("file", "document"), OTHERS, ids=name)
def test_kubernetes_accepts_it(file: str, document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, "1.34", strict=True)


@pytest.mark.parametrize(("file", "document"), of_today("AuthorizationPolicy", "rules"), ids=name)
def test_no_rule_is_open_by_a_slip(file: str, document: dict[str, Any]) -> None:
    """An ALLOW rule with only `to` opens a port to everybody: fine for the ui, nowhere else."""
    for rule in document["spec"]["rules"]:
        assert "from" in rule or document["metadata"]["name"] == "ui-viewer"


RETRIES = [
    (file, route["retries"])
    for file, document in of_today("VirtualService", "http")
    for route in document["spec"]["http"]
    if "retries" in route
]


@pytest.mark.parametrize(("file", "retries"), RETRIES, ids=name)
def test_retries_say_what_is_retried(file: str, retries: dict[str, Any]) -> None:
    assert "retryOn" in retries


APPLIED = [
    str(path.relative_to(ISTIO))
    for lesson in LESSONS
    for path in sorted(lesson.folder.iterdir())
    if path.suffix in SUFFIXES
]


@pytest.mark.parametrize("file", APPLIED)
def test_kubectl_can_apply_the_folder_of_a_lesson(file: str) -> None:
    """`kubectl apply -f istio/03-fault-abort/` meets nothing but objects of a cluster."""
    assert file in {checked for checked, _ in OF_ISTIO + OTHERS}
    for document in yaml.safe_load_all((ISTIO / file).read_text()):
        assert {"apiVersion", "kind", "metadata"} <= document.keys()


def test_labels_are_strings() -> None:
    """`version: 1.0` without quotes is a number, which Kubernetes refuses."""
    parts = [
        part.get("metadata", {})
        for _, document in DOCUMENTS
        for part in (document, document.get("spec", {}).get("template", {}))
    ]
    labels = [part["labels"] for part in parts if part.get("labels")]
    assert {type(value) for each in labels for value in each.values()} == {str}


def test_the_version_of_istio_is_written_once() -> None:
    versions = (ISTIO / "install/versions.env").read_text()
    (version,) = re.findall(r"^ISTIO_VERSION=([\d.]+)$", versions, re.M)
    (tested,) = re.findall(r'^ISTIO_TESTED="([\d. ]+)"$', versions, re.M)
    assert version.rpartition(".")[0] in tested.split()
    any_patch = re.compile(re.escape(version.rpartition(".")[0]) + r"\.\d")
    lab = [*(ROOT / "lab").rglob("*.py"), *(ROOT / "lab").rglob("*.yaml")]
    others = [p for p in ISTIO.glob("install/**/*") if p.is_file() and p.name != "versions.env"]
    assert others
    for path in [*others, ISTIO / "README.md", *lab]:
        assert not any_patch.search(path.read_text()), path
    assert lab_versions.istio() == version
    schema = json.loads((ROOT / "lab/resources/istio.json").read_text())["istio"]
    assert schema.rpartition(".")[0] == version.rpartition(".")[0]


def test_helm_and_istioctl_install_the_same() -> None:
    install = yaml.safe_load((ISTIO / "install/istio.yaml").read_text())["spec"]
    helm = yaml.safe_load((ISTIO / "install/helm/istiod.yaml").read_text())
    assert helm["profile"] == install["profile"]
    assert helm["global"]["hub"] == install["hub"] == "docker.io/istio"
    assert helm["meshConfig"] == install["meshConfig"]
    assert helm["env"] == install["values"]["pilot"]["env"]
    kind = yaml.safe_load((ISTIO / "install/kind.yaml").read_text())["spec"]["values"]
    gateway = kind["gateways"]["istio-ingressgateway"]
    service = yaml.safe_load((ISTIO / "install/helm/gateway-kind.yaml").read_text())["service"]
    assert service["type"] == gateway["type"] == "NodePort"
    ports = [{p["name"]: p["nodePort"] for p in which["ports"]} for which in (service, gateway)]
    assert ports[0] == ports[1]


def test_no_secret_is_in_a_manifest() -> None:
    texts = {path: path.read_text() for path in ISTIO.rglob("*") if path.is_file()}
    assert texts
    assert [path for path, text in texts.items() if "kind: Secret" in text] == []
    assert [path for path, text in texts.items() if "PRIVATE KEY-----" in text] == []


APPLYING = [
    *ISTIO.glob("*/README.md"),
    *ISTIO.rglob("*.sh"),
    *ISTIO.glob("*/check/exercise.yaml"),
    *(ROOT / "docs").glob("*.md"),
    *(file for file in (ROOT / "scripts").iterdir() if file.is_file()),
]


def test_tracing_comes_and_goes_with_its_collector() -> None:
    """Without Zipkin istiod warns at every change: `could not find cluster` of the provider."""
    lines = [line for path in APPLYING for line in path.read_text().splitlines()]
    changes = [line for line in lines if re.search(r"(apply|delete)\b.*telemetry\.yaml", line)]
    assert len(changes) >= 5
    assert [line for line in changes if "zipkin.yaml" not in line] == []
    assert not any("telemetry.yaml" in file for file in MESH_BASELINE)
