"""Results of a run: steps, and what was expected and seen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from lab.exercises.check import Difference

Outcome = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class StepResult:
    """The result of one step."""

    step: str
    outcome: Outcome
    seconds: float
    differences: list[Difference] = field(default_factory=list)
    reason: str = ""
    """Why it was skipped."""
    logs: list[str] = field(default_factory=list)
    error: bool = False
    """It failed because a command did, before anything could be looked at."""


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one exercise."""

    name: str
    seconds: float
    steps: list[StepResult]
    problems: list[str] = field(default_factory=list)
    """Failures outside the steps: before them, or while putting things back."""

    @property
    def failed(self) -> StepResult | None:
        return next((step for step in self.steps if step.outcome == "failed"), None)

    @property
    def passed(self) -> bool:
        return self.failed is None and not self.problems
