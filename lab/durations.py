"""Durations in Go's notation: `1h30m`, `5s`, `250ms`."""

from __future__ import annotations

import re
from datetime import timedelta

_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(h|ms|us|µs|ns|m|s)")


def parse(text: str) -> timedelta:
    """Returns a duration; `0` needs no unit. Raises ValueError."""
    unsigned = text.lstrip("+-")
    parts = _PART.findall(unsigned)
    if (unsigned != "0" and "".join(n + unit for n, unit in parts) != unsigned) or not unsigned:
        raise ValueError(f'"{text}" is not a duration; write for example "5s", "100ms" or "1h30m"')
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    return timedelta(seconds=-seconds if text.startswith("-") else seconds)
