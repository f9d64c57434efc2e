"""Durations as kubectl takes them."""

from __future__ import annotations

from lab.cli.client import FailureError


def seconds(text: str) -> float:
    """Returns the seconds of 30s, 2m, 1h or a plain number. Raises FailureError."""
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    try:
        if text[-1:] in units:
            return float(text[:-1]) * units[text[-1]]
        return float(text)
    except ValueError:
        raise FailureError(f"invalid duration {text!r}: write for example 30s or 2m") from None
