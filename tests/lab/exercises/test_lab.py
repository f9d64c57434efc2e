"""Every exercise in a real lab, and every counter-proof: what is broken on purpose must fail."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from lab.exercises import load
from lab.exercises.counterproof import obstacle, run_changed, shortcoming
from lab.exercises.format import CounterProof
from lab.exercises.result import Result
from lab.exercises.runner import Runner
from lab.exercises.target import LabTarget
from tests.support.exercises import shows_what_it_says, told
from tests.support.lab import COMMAND, Lab, behaves, picture
from tests.support.repository import LESSONS, ROOT
from tests.support.wait import wait

PROOFS = [
    pytest.param(lesson, proof, id=f"{lesson.name}-{re.sub(r'[^a-z0-9]+', '-', proof.because)}")
    for lesson in LESSONS
    for proof in lesson.exercise.counterproof
]


@pytest.mark.timeout(420)
@pytest.mark.parametrize("lesson", LESSONS, ids=[lesson.name for lesson in LESSONS])
def test_the_exercise_shows_what_it_says(
    runner: Runner, target: LabTarget, lesson: load.Lesson
) -> None:
    shows_what_it_says(runner, target, lesson)


@pytest.mark.timeout(420)
@pytest.mark.parametrize(("lesson", "proof"), PROOFS)
def test_the_exercise_fails_when_it_should(
    runner: Runner, target: LabTarget, lesson: load.Lesson, proof: CounterProof
) -> None:
    if reason := obstacle(lesson, proof, target):
        pytest.skip(reason)
    result = run_changed(runner, lesson, proof)
    assert shortcoming(result, proof) is None, told(result)


def test_what_went_wrong_beside_the_steps_is_said() -> None:
    """A run with a problem outside its steps isn't reported as passed."""
    lesson, proof = next((lesson, p) for lesson in LESSONS for p in lesson.exercise.counterproof)
    went = Result(lesson.name, 0, [], ["the guestbook does not answer"])
    assert shortcoming(went, proof) == "the guestbook does not answer"


def test_without_a_lab_nothing_is_run_and_it_is_said_once(tmp_path: Path) -> None:
    said = subprocess.run(
        [*COMMAND, "--state", str(tmp_path), "exercise", "run", "--all"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert said.returncode == 2
    assert said.stdout == ""
    (line,) = said.stderr.splitlines()
    assert line == (
        f"no lab is running in {tmp_path}; start one with: guestbook --state {tmp_path} up "
        "(in another terminal), or use --target kubectl"
    )


@pytest.mark.timeout(420)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_the_lab_as_it_was(
    lab: Lab, tmp_path: Path, number: signal.Signals
) -> None:
    """Stopped while a pod misbehaves and a rule of the exercise is in place."""
    before = picture(lab)
    transcript = tmp_path / "transcript"
    with transcript.open("w") as output:
        process = subprocess.Popen(
            [*COMMAND, "--state", str(lab.folder), "exercise", "run", "05-retries"],
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
    try:
        wait(lambda: " 5/7 " in transcript.read_text(), seconds=120)
        process.send_signal(number)
        assert process.wait(120) == 130, transcript.read_text()
    finally:
        process.kill()
        process.wait()
    assert "interrupted; everything is as it was before" in transcript.read_text()
    assert picture(lab) == before
    assert behaves(lab)
