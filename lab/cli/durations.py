"""Durations and times as kubectl takes them."""

from __future__ import annotations

from datetime import datetime

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
    except (ValueError, OverflowError):
        raise FailureError(f"invalid duration {text!r}: write for example 30s or 2m") from None


def moment(text: str) -> datetime:
    """Returns a time such as 2026-08-30T06:00:00Z. Raises FailureError, also without a zone."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise FailureError(f"invalid time {text!r}: write for example 2026-08-30T06:00:00Z")
    return found
