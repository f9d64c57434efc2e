"""The GKE guide: pasted as a whole, without an account and with an editing learner."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.repository import ROOT

PAGES = ("docs/gke.md", "docs/codelab.md", "istio/install/README.md")
BLOCKS: list[str] = re.findall(
    r"^```sh\n(.*?)^```", (ROOT / "docs/gke.md").read_text(), re.M | re.S
)
COMMANDS = [
    command
    for block in BLOCKS
    for command in block.replace("\\\n", " ").splitlines()
    if re.search(r"\bgcloud\b", command)
]
REGISTRY = "europe-west1-docker.pkg.dev/my-project/guestbook"


def block(part: str) -> str:
    (found,) = [text for text in BLOCKS if part in text]
    return found


def line(part: str) -> str:
    (found,) = [text for b in BLOCKS for text in b.splitlines() if part in text]
    return found


def shell(script: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs what is pasted, with a `gcloud` that has no project and nothing else of this machine."""
    tools = folder / "bin"
    tools.mkdir(exist_ok=True)
    (tools / "gcloud").write_text(
        '#!/bin/sh\ncase "$*" in *"get-value project"*) ;; *list*) echo mine; echo yours ;; esac\n'
    )
    (tools / "gcloud").chmod(0o755)
    return subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env={"PATH": f"{tools}:/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        check=True,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_no_gcloud_command_asks(command: str) -> None:
    """A question would take the next line of a pasted block for its answer."""
    reads = re.search(r"gcloud (config get-value|projects list|compute \S+ list)", command)
    assert reads or "--quiet" in command
    assert command.count("gcloud") == 1 or reads


@pytest.mark.parametrize("text", BLOCKS)
def test_every_block_is_whole(text: str) -> None:
    subprocess.run(["bash", "-nc", text], check=True)


def test_without_a_project_the_names_say_how_to_choose_one(tmp_path: Path) -> None:
    (tmp_path / "istio/install").mkdir(parents=True)
    shutil.copy(ROOT / "istio/install/versions.env", tmp_path / "istio/install")
    said = shell(block("export PROJECT_ID"), tmp_path).stdout
    assert "gcloud config set project mine\n" in said
    assert "gcloud config set project yours\n" in said


def test_the_clean_up_keeps_a_learners_edits(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "istio", tmp_path / "istio")
    edited = tmp_path / "istio/07-traffic-shifting/ui-v2.yaml"
    mine = edited.read_text().replace("goldenrod", "plum") + "# my own note\n"
    edited.write_text(mine)
    shell(line("image: localhost/guestbook/#image: $ENV"), tmp_path, REGISTRY=REGISTRY)
    assert f"image: {REGISTRY}/ui:v2" in edited.read_text()
    assert not [
        path for path in tmp_path.glob("istio/*/*.yaml") if "localhost/" in path.read_text()
    ]

    shell(line("image: \\Q$ENV{REGISTRY}"), tmp_path, REGISTRY=REGISTRY)
    assert edited.read_text() == mine
    for path in sorted(ROOT.glob("istio/*/*.yaml")):
        copy = tmp_path / path.relative_to(ROOT)
        assert copy == edited or copy.read_text() == path.read_text()
    # Whoever cleans up in a new terminal, without the names, changes nothing.
    shell(line("image: \\Q$ENV{REGISTRY}"), tmp_path)
    assert edited.read_text() == mine


def test_file_by_file_takes_every_image_from_the_registry(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "k8s/base", tmp_path / "k8s/base")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/kubectl").write_text('#!/bin/sh\n[ "$*" = "apply -f -" ] && cat\n')
    (tmp_path / "bin/kubectl").chmod(0o755)
    applied = shell(block("for name in mysql-stateful"), tmp_path, REGISTRY=REGISTRY).stdout
    images = set(re.findall(r"image: (\S+)/\w+:v1$", applied, re.M))
    assert images == {REGISTRY}
    names = set(re.findall(r"^kind: (\w+)$", applied, re.M))
    assert {"Deployment", "Service", "StatefulSet", "ServiceAccount"} <= names


def test_no_block_leaves_the_folder() -> None:
    """The next one is pasted into the same terminal."""
    moves = [line for text in BLOCKS for line in text.splitlines() if re.search(r"\bcd\b", line)]
    assert moves == [line("git clone")]


def test_the_clean_up_takes_no_folder_back() -> None:
    restored = re.findall(r"^git checkout (.*)$", "".join(BLOCKS), re.M)
    assert restored == ["k8s/overlays/gke/registry.env"]


def test_there_is_one_guide() -> None:
    for page in PAGES[1:]:
        assert "gcloud" not in (ROOT / page).read_text()
        assert "gke.md" in (ROOT / page).read_text()
