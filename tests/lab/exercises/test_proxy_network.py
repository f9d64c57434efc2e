"""Every exercise in a lab whose pods share one network."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.exercises import load
from lab.exercises.runner import Runner
from lab.exercises.target import LabTarget
from tests.support.exercises import shows_what_it_says
from tests.support.lab import Lab, left_behind, running
from tests.support.repository import LESSONS


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("proxy") / "state"
    with running(folder, "--network", "proxy") as started:
        yield started
    assert left_behind(folder) == []


@pytest.mark.timeout(420)
@pytest.mark.parametrize("lesson", LESSONS, ids=[lesson.name for lesson in LESSONS])
def test_the_exercise_shows_the_same(
    runner: Runner, target: LabTarget, lesson: load.Lesson
) -> None:
    shows_what_it_says(runner, target, lesson)
