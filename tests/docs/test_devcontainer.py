"""The development container runs the lab and forwards the page."""

from __future__ import annotations

import json
import re
from pathlib import Path

from lab.net.detect import advice
from tests.support.repository import ROOT

CONTAINER = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())


def test_it_sets_up_and_runs_the_lab() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    for command in (CONTAINER["updateContentCommand"], CONTAINER["postAttachCommand"]):
        make, target = command.split()
        assert make == "make"
        assert target in targets
    assert CONTAINER["postAttachCommand"] == "make up"


def test_the_page_is_forwarded_and_the_labs_own_ports_are_not() -> None:
    assert CONTAINER["forwardPorts"] == [8080]
    assert CONTAINER["portsAttributes"].keys() == {"8080"}
    assert CONTAINER["otherPortsAttributes"] == {"onAutoForward": "ignore"}


def test_pods_may_have_networks_of_their_own(tmp_path: Path) -> None:
    """With the flags that the lab names in a container without them."""
    (tmp_path / ".dockerenv").touch()
    helps = advice("user namespace: Operation not permitted", tmp_path)
    assert helps.split() == ["docker", "run", *CONTAINER["runArgs"]]


def test_the_command_is_on_the_path() -> None:
    assert CONTAINER["remoteEnv"]["PATH"].startswith("${containerWorkspaceFolder}/.venv/bin:")


def test_the_readme_has_the_button() -> None:
    readme = (ROOT / "README.md").read_text()
    assert '<a href="../../codespaces/new">' in readme
