"""One lab, with the whole guestbook in it, for the exercises that are run for real."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from rich.console import Console

from lab.cli import main
from lab.exercises.narrate import Transcript
from lab.exercises.runner import Runner
from lab.exercises.target import LabTarget
from tests.support.lab import Lab, behaves, left_behind, picture, running
from tests.support.repository import ISTIO, LESSONS
from tests.support.wait import wait


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab as `guestbook up` starts it; it must leave no process."""
    folder = tmp_path_factory.mktemp("exercises") / "state"
    with running(folder) as started:
        yield started
    assert left_behind(folder) == []


@pytest.fixture
def target(lab: Lab) -> LabTarget:
    return LabTarget(main, lab.folder)


@pytest.fixture
def runner(lab: Lab, target: LabTarget) -> Iterator[Runner]:
    """A runner with a transcript; whatever a test does with it, the lab is left as found."""
    before = picture(lab)
    transcript = Transcript(Console(highlight=False, soft_wrap=True))
    yield Runner(target, transcript, istio=ISTIO, lessons=LESSONS, state=lab.folder)
    assert picture(lab) == before
    wait(lambda: behaves(lab), "the pods of message-service behave", 30)
