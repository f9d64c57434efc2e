"""Runs of exercises, judged."""

from __future__ import annotations

from lab.exercises import load
from lab.exercises.result import Result
from lab.exercises.runner import Runner
from lab.exercises.target import LabTarget


def shows_what_it_says(runner: Runner, target: LabTarget, lesson: load.Lesson) -> None:
    """Runs an exercise, which must pass, without a skipped step that could be run."""
    result = runner.run(lesson)
    assert result.passed, told(result)
    skipped = {step.step for step in result.steps if step.outcome == "skipped"}
    elsewhere = {
        step.step
        for step in lesson.exercise.steps
        if "lab" not in step.targets or (step.needs and target.lacks(step.needs))
    }
    assert skipped == elsewhere


def told(result: Result) -> str:
    """Returns the problems and differences of a run, for the report of a test."""
    lines = list(result.problems)
    for step in result.steps:
        lines += [f"{step.step}: expected {d.expected}, seen {d.seen}" for d in step.differences]
        lines += step.logs
    return "\n".join(lines) or "every step passed"
