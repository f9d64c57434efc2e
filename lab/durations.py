"""Durations in Go's notation: `1h30m`, `5s`, `250ms`."""

from __future__ import annotations

import re
from datetime import timedelta

_NANOSECONDS = {"h": 3600e9, "m": 60e9, "s": 1e9, "ms": 1e6, "us": 1e3, "µs": 1e3, "ns": 1.0}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(h|ms|us|µs|ns|m|s)")


def parse(text: str) -> timedelta:
    """Returns a duration, to the microsecond; `0` needs no unit. Raises ValueError."""
    return timedelta(microseconds=nanoseconds(text) / 1000)


def nanoseconds(text: str) -> int:
    """Returns a duration in nanoseconds. Raises ValueError."""
    unsigned = text.lstrip("+-")
    parts = _PART.findall(unsigned)
    if (unsigned != "0" and "".join(n + unit for n, unit in parts) != unsigned) or not unsigned:
        raise ValueError(f'"{text}" is not a duration; write for example "5s", "100ms" or "1h30m"')
    total = round(sum(float(number) * _NANOSECONDS[unit] for number, unit in parts))
    return -total if text.startswith("-") else total
