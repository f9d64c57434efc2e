"""Waiting until something has happened."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait(condition: Callable[[], T | None], what: str = "", seconds: float = 20) -> T:
    """Returns the first true value of `condition`; fails when there is none in time."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:g} s for {what or condition}")
        time.sleep(0.02)
    return value
