"""Run an exercise with a manifest changed on purpose, and judge whether it failed as it must."""

from __future__ import annotations

import tempfile
from pathlib import Path

from lab.exercises import mutate
from lab.exercises.format import CounterProof
from lab.exercises.load import Lesson
from lab.exercises.runner import Change, Result, Runner
from lab.exercises.target import Target


def obstacle(lesson: Lesson, proof: CounterProof, target: Target) -> str | None:
    """Why a counter-proof can't be run here; None when it can."""
    if target.name not in proof.targets:
        return f"only on {' and '.join(proof.targets)}"
    step = next(s for s in lesson.exercise.steps if s.step.startswith(proof.fails))
    return target.lacks(step.needs) if step.needs else None


def run_changed(runner: Runner, lesson: Lesson, proof: CounterProof) -> Result:
    """Run an exercise with one manifest changed."""
    with tempfile.TemporaryDirectory(prefix="guestbook-") as folder:
        files = mutate.overlay(lesson, proof, Path(folder))
        return runner.run(lesson, Change(files, proof.fails))


def shortcoming(result: Result, proof: CounterProof) -> str | None:
    """Why a changed run proves nothing; None when the right step failed by what was seen.

    A command that fails is no proof: then nobody has looked.
    """
    failed = result.failed
    if failed is None and result.problems:
        return "; ".join(result.problems)
    if failed is None:
        return f"the step {proof.fails!r} had to fail, but every step passed"
    if not failed.step.startswith(proof.fails):
        return f"the step {proof.fails!r} had to fail, but it failed at {failed.step!r}"
    if failed.error:
        return f"the step {proof.fails!r} could not be done: {failed.differences[0].seen}"
    return "; ".join(result.problems) or None
