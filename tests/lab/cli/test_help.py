"""The command without a lab: help, and errors for arguments that make no sense."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from lab.cli import app as application
from lab.cli import main
from tests.support.lab import COMMAND


def _paths(command: object, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command that does something."""
    groups = getattr(command, "commands", None)
    if groups is None:
        yield words
        return
    for name, inner in groups.items():
        if not inner.hidden:
            yield from _paths(inner, (*words, name))


EVERY = sorted(_paths(typer.main.get_command(application.app)))


def test_the_verbs_are_kubectls_and_the_labs_own() -> None:
    verbs = {words[0] for words in EVERY}
    assert verbs >= {
        *("up", "down", "status", "apply", "delete", "get", "describe", "logs", "exec", "run"),
        *(
            "patch",
            "set",
            "replace",
            "label",
            "annotate",
            "port-forward",
            "token",
            "proxy-config",
            "graph",
            "route",
        ),
        "metrics",
        *("rollout", "scale", "wait", "create", "kube-inject", "exercise", "install"),
    }


def test_a_command_is_in_the_file_of_its_name() -> None:
    together = {"install": "apply", "annotate": "label"}
    for name, command in application.COMMANDS.items():
        assert command.__module__ == f"lab.cli.{re.sub('[ -]', '_', together.get(name, name))}"


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_help_teaches_with_an_example(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"Usage: guestbook {' '.join(words)}" in text
    assert "guestbook " + " ".join(words) in text.split("Example")[1]


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_help_reads_well_in_eighty_columns(words: tuple[str, ...]) -> None:
    """Lines of a paragraph are kept as they are: a longer one would leave a ragged rest."""
    command: Any = typer.main.get_command(application.app)
    for name in words:
        command = command.commands[name]
    for paragraph in command.help.split("\n\n"):
        lines = paragraph.splitlines()
        if len(lines) > 1 and not lines[0].startswith("Example"):
            assert [line for line in lines if len(line) > 78] == []


@pytest.mark.parametrize("words", [(), ("rollout",), ("create",)])
def test_a_group_without_a_command_prints_its_help(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words]) == 1
    printed = capsys.readouterr()
    assert "Commands" in printed.out
    assert printed.err == ""


@pytest.mark.parametrize(
    ("words", "reason", "see"),
    [
        ("frobnicate", "No such command 'frobnicate'", "guestbook --help"),
        ("rollout pause deploy/ui", "No such command 'pause'", "guestbook rollout --help"),
        ("get --frobnicate", "No such option: --frobnicate", "guestbook get --help"),
        ("up there", "unexpected extra argument", "guestbook up --help"),
        ("up --port many", "'--port'", "guestbook up --help"),
        ("up --port 65536", "'--port'", "guestbook up --help"),
        ("scale deploy/ui", "Missing option '--replicas'", "guestbook scale --help"),
        ("logs ui --tail=x", "'--tail'", "guestbook logs --help"),
    ],
)
def test_wrong_words_are_named_with_where_to_look(
    words: str, reason: str, see: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words.split()) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("Error: ")
    assert reason in first
    assert second == f"See: {see}"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("get", "say what to get"),
        ("describe", "say what to describe"),
        ("logs", "say which pod"),
        ("delete", "say what to delete"),
        ("delete pod", "no name: use -l or --all"),
        ("label pod", "at least one label update is required"),
        ("apply", "must specify one of -f and -k"),
        ("apply -f nothing.yaml", "nothing.yaml: no such file"),
        ("apply -k nothing", "nothing: no kustomization.yaml in this folder"),
        ("kube-inject -f nothing.yaml", "nothing.yaml: no such file"),
        ("wait pod/a --for=delete --timeout=soon", "invalid duration 'soon'"),
        ("port-forward pod/a x:80", "not a port: 'x'"),
        ("port-forward pod/a 80:65536", "not a port: '65536'"),
        ("port-forward cm/a 80", 'can\'t forward to a "cm"'),
        ("status", "no lab is running"),
        ("down", "no lab is running"),
        ("get pods", "no lab is running"),
        ("exec a -- true", "no lab is running"),
        ("run a --image=redis", "no lab is running"),
        ("scale deploy/a --replicas=1", "no lab is running"),
        ("rollout status deploy/a", "no lab is running"),
        ("graph", "no lab is running"),
        ("proxy-config routes a", "no lab is running"),
    ],
)
def test_what_can_not_be_done_is_one_line(
    words: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--state", str(tmp_path / "none"), *words.split()]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith("Error: ")
    assert reason in line


def test_a_state_folder_that_can_not_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.touch()
    assert main(["--state", str(file), "up"]) == 1
    assert capsys.readouterr().err == f"Error: {file}: File exists\n"


def test_input_that_is_no_text(tmp_path: Path) -> None:
    for locale in ("C", "C.UTF-8"):
        done = subprocess.run(
            [*COMMAND, "--state", str(tmp_path), "apply", "-f", "-"],
            input=b"a: \xff\xfe",
            capture_output=True,
            env=os.environ | {"LC_ALL": locale},
            check=False,
        )
        assert (done.returncode, done.stderr) == (1, b"Error: -: not UTF-8 text\n")


def test_a_defect_is_told_in_short_unless_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("here")

    monkeypatch.setattr("lab.cli.client.Client.call", fail)
    assert main(["--state", str(tmp_path), "get", "pods"]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first == "Error: ZeroDivisionError('here')"
    assert application.TRACE in second
    monkeypatch.setenv(application.TRACE, "1")
    with pytest.raises(ZeroDivisionError):
        main(["--state", str(tmp_path), "get", "pods"])
