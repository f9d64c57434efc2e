"""Durations as kubectl takes them."""

from __future__ import annotations

from lab import durations
from lab.cli.client import FailureError


def seconds(text: str) -> float:
    """Returns the seconds of 30s, 2m, 1h30m or a plain number. Raises FailureError."""
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return durations.parse(text).total_seconds()
    except ValueError:
        raise FailureError(f"invalid duration {text!r}: write for example 30s or 2m") from None
