"""Habits of those who know kubectl and istioctl."""

from __future__ import annotations

import pytest

from lab.cli import main
from tests.support.lab import Lab


@pytest.mark.parametrize(
    ("words", "usage"),
    [
        ("help", "guestbook [OPTIONS] COMMAND"),
        ("help get", "guestbook get "),
        ("help create namespace", "guestbook create namespace "),
        ("help x describe", "guestbook x describe "),
        ("help rollout", "guestbook rollout "),
    ],
)
def test_help_is_a_verb(words: str, usage: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--state", "none", *words.split()]) == 0
    assert f"Usage: {usage}" in capsys.readouterr().out


def test_a_program_without_a_verb_prints_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    """`kubectl` of the lab gives the state folder, so that there are words."""
    assert main(["--state", "none"]) == 1
    printed = capsys.readouterr()
    assert "Commands" in printed.out
    assert printed.err == ""


@pytest.mark.parametrize("alias", ["dash", "d"])
def test_a_dashboard_by_its_short_names(alias: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([alias, "kiali"]) == 1
    assert "instead: guestbook graph" in capsys.readouterr().err


def test_nothing_found_anywhere_is_said_as_kubectl_says_it(lab: Lab) -> None:
    assert lab.run("get", "sidecars", "-A").err == "No resources found\n"


def test_rollouts_of_all_of_a_kind(lab: Lab) -> None:
    one = "deployment.apps/message-service"
    assert lab.ok("rollout", "restart", "deployment") == f"{one} restarted\n"
    done = lab.ok("rollout", "status", "deploy", "-l", "!none")
    assert done.endswith('deployment "message-service" successfully rolled out\n')
    assert lab.ok("rollout", "history", "deploy").startswith(one)
    nothing = lab.run("rollout", "restart", "deploy", "-l", "app=none")
    assert (nothing.status, nothing.out) == (0, "")
    assert nothing.err == "No resources found in default namespace.\n"
