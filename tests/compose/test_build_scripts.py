"""The scripts that build the images, with a stand-in for the engine that writes down its calls."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.repository import ROOT

DOCKER = """#!/bin/sh
echo "REGISTRY=$REGISTRY TAG=$TAG REVISION=$REVISION SOURCE=$SOURCE $*" >> "$CALLS"
case "$*" in "buildx inspect") echo "Driver: docker-container" ;; esac
"""


def images(
    folder: Path, *arguments: str, **environment: str
) -> tuple[subprocess.CompletedProcess[str], str]:
    """Runs scripts/images.sh; returns its result, and the call that would have built."""
    (folder / "docker").write_text(DOCKER)
    (folder / "docker").chmod(0o755)
    calls = folder / "calls"
    calls.touch()
    clean = {k: v for k, v in os.environ.items() if k not in ("REGISTRY", "TAG", "PLATFORMS")}
    changed = {"PATH": f"{folder}:{os.environ['PATH']}", "CALLS": str(calls)}
    result = subprocess.run(
        [ROOT / "scripts/images.sh", *arguments],
        env=clean | changed | environment,
        capture_output=True,
        text=True,
    )
    return result, "\n".join(line for line in calls.read_text().splitlines() if " bake" in line)


def test_the_names_are_local_unless_a_registry_is_given(tmp_path: Path) -> None:
    result, call = images(tmp_path)
    assert result.returncode == 0, result.stderr
    assert "REGISTRY=localhost/guestbook TAG=v1 " in call
    assert "--load" in call
    assert "--push" not in call


@pytest.mark.parametrize("setting", [{"PUSH": "1"}, {"PLATFORMS": "linux/amd64,linux/arm64"}])
def test_the_local_names_are_not_pushed(tmp_path: Path, setting: dict[str, str]) -> None:
    result, call = images(tmp_path, **setting)
    assert result.returncode == 1
    assert "need REGISTRY=" in result.stderr
    assert call == ""


def test_what_is_pushed_has_a_bill_of_materials_of_a_pinned_program(tmp_path: Path) -> None:
    result, call = images(tmp_path, REGISTRY="registry.example.com/guestbook", PUSH="1")
    assert result.returncode == 0, result.stderr
    assert "--sbom=generator=docker/buildkit-syft-scanner:" in call
    assert "@sha256:" in call
    assert "--provenance=mode=max" in call


def test_make_compose_says_the_address_and_labels_the_images(tmp_path: Path) -> None:
    (tmp_path / "docker").write_text(DOCKER)
    (tmp_path / "docker").chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "CALLS": str(tmp_path / "calls"),
        "GUESTBOOK_PORT": "8099",
        "SOURCE": "https://example.com/guestbook",
    }
    said = subprocess.run(
        ["make", "compose"],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "http://localhost:8099" in said
    (call,) = (tmp_path / "calls").read_text().splitlines()
    assert re.search(
        r" REVISION=([0-9a-f]{40}(-dirty)?|unknown) SOURCE=https://example.com/guestbook ", call
    )
    assert call.endswith(" compose up")


def _info(folder: Path, remote: str | None, **environment: str) -> list[str]:
    """Makes a repository of one commit; returns its REVISION and SOURCE."""
    git = ["git", "-C", str(folder), "-c", "user.name=n", "-c", "user.email=e@example.com"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    if remote is not None:
        subprocess.run([*git, "remote", "add", "origin", remote], check=True)
    (folder / "file").write_text("one")
    subprocess.run([*git, "add", "file"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "One"], check=True)
    return _read(folder, **environment)


def _read(folder: Path, **environment: str) -> list[str]:
    """Returns the REVISION and SOURCE that scripts/build-info.sh finds in a folder."""
    script = (
        f'set -euo pipefail; . "{ROOT}/scripts/build-info.sh"; env | grep -E "^(REVISION|SOURCE)="'
    )
    clean = {k: v for k, v in os.environ.items() if k not in ("REVISION", "SOURCE")}
    result = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=clean | environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    found = dict(line.split("=", 1) for line in result.stdout.splitlines())
    return [found["REVISION"], found["SOURCE"]]


@pytest.mark.parametrize(
    ("remote", "source"),
    [
        ("git@github.com:owner/name.git", "https://github.com/owner/name"),
        ("ssh://git@github.com/owner/name", "https://github.com/owner/name"),
        ("https://github.com/owner/name.git", "https://github.com/owner/name"),
        ("https://someone:secret@github.com/owner/name", "https://github.com/owner/name"),
        ("/home/someone/name", "unknown"),
        (None, "unknown"),
    ],
)
def test_the_source_is_an_address_to_open(tmp_path: Path, remote: str | None, source: str) -> None:
    assert _info(tmp_path, remote)[1] == source


def test_the_revision_says_when_files_differ_from_it(tmp_path: Path) -> None:
    revision = _info(tmp_path, None)[0]
    assert len(revision) == 40
    (tmp_path / "file").write_text("two")
    assert _read(tmp_path) == [f"{revision}-dirty", "unknown"]
    assert _read(tmp_path, REVISION="mine", SOURCE="https://example.com") == [
        "mine",
        "https://example.com",
    ]


def test_without_a_repository_both_are_unknown(tmp_path: Path) -> None:
    assert _read(tmp_path) == ["unknown", "unknown"]
