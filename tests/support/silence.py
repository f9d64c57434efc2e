"""A transcript that prints nothing."""

from __future__ import annotations

from rich.console import Console

from lab.exercises.narrate import Transcript


class Silence(Transcript):
    """Prints nothing; tests override what they listen to."""

    def __init__(self) -> None:
        super().__init__(Console(quiet=True))
