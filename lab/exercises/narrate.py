"""The transcript of a run: the very commands, what was seen, what was expected."""

from __future__ import annotations

from rich.console import Console
from rich.status import Status
from rich.text import Text

from lab.exercises.load import Lesson
from lab.exercises.result import Result, StepResult


class Transcript:
    """Writes a transcript; on a terminal with colours and a spinner."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status: Status | None = None
        self._last_note = ""

    def begin(self, lesson: Lesson, target: str) -> None:
        self._line(f"{lesson.name}: {lesson.exercise.title} ({target})", "bold")
        self._busy("preparing")

    def step(self, number: int, of: int, title: str) -> None:
        self._line(f"  {number}/{of} {title}", "bold cyan")
        self._busy(title)

    def command(self, line: str) -> None:
        self._line(f"      $ {line}", "dim")

    def note(self, text: str) -> None:
        if text != self._last_note:
            self._line(f"      {text}", "yellow")
        self._last_note = text

    def seen(self, text: str) -> None:
        self._line(f"      ✓ {text}", "green")

    def ended(self, result: StepResult) -> None:
        self._quiet()
        if result.outcome == "skipped":
            self._line(f"      skipped: {result.reason}", "yellow")
        for difference in result.differences:
            self._line(f"      ✗ expected {difference.expected}", "red")
            self._line(f"        seen     {difference.seen}", "red")
        if result.logs:
            self._line("        the proxies' last lines:", "red")
            for line in result.logs:
                self._line(f"          {line}", "dim")

    def end(self, result: Result) -> None:
        self._quiet()
        for problem in result.problems:
            self._line(f"      ✗ {problem}", "red")
        word, style = ("passed", "bold green") if result.passed else ("FAILED", "bold red")
        self._line(f"  {result.name} {word} in {result.seconds:.1f} s", style)
        self._line("")

    def _line(self, text: str, style: str = "") -> None:
        self._console.print(Text(text, style=style), soft_wrap=True)

    def _busy(self, text: str) -> None:
        self._quiet()
        if self._console.is_terminal:
            self._status = self._console.status(Text(f"  {text} …", style="dim"))
            self._status.start()

    def _quiet(self) -> None:
        if self._status:
            self._status.stop()
            self._status = None
