"""Answers of `guestbook route` to questions whose answers by istiod are known.

Each file of `cases/` says in its head what it shows, the command, and after the exit status a part
of the output.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from lab.cli import main
from tests.support.repository import MESH

CASES = sorted((Path(__file__).parent / "cases").glob("*.yaml"))


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_route_answers_as_istiod_configures(case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, command, expected = case.read_text().splitlines()[:3]
    status, text = expected.removeprefix("# ").split(" ", 1)
    files = [word for path in (*MESH, case) for word in ("-f", str(path))]
    assert main([*shlex.split(command.removeprefix("# ")), *files]) == int(status)
    assert text in capsys.readouterr().out
