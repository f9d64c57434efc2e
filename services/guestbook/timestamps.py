"""Timestamps as Jackson writes and reads them: UTC, to the millisecond."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_FORM = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:T([0-9]{2}:[0-9]{2})(?:(:[0-9]{2})(?:\.([0-9]{1,9}))?)?"
    r"(Z|[+-][0-9]{2}(?::?[0-9]{2})?)?)?"
)
_EPOCH = datetime(1970, 1, 1)
FIRST = datetime(1000, 1, 1)
"""The earliest MySQL's DATETIME holds; the latest is the end of the year 9999."""

EXPECTED = "a timestamp such as 2026-01-31T12:00:00.000+0000, from the year 1000 to 9999"


def now() -> datetime:
    """The current time in UTC, without a zone, cut to the millisecond."""
    return _cut(datetime.now(UTC).replace(tzinfo=None))


def parse(value: object) -> datetime:
    """Read a timestamp: ISO 8601 (no offset means UTC) or milliseconds since 1970.

    Answers UTC without a zone, as the database keeps it; raises ValueError with the reason.
    """
    try:
        moment = _read(value)
    except (ValueError, OverflowError):
        raise ValueError(f"not {EXPECTED}") from None
    if moment < FIRST:
        raise ValueError(f"not {EXPECTED}")
    return moment


def render(moment: datetime | None) -> str | None:
    """`2026-01-31T12:00:00.000+00:00`, from UTC without a zone."""
    return None if moment is None else moment.isoformat(timespec="milliseconds") + "+00:00"


def _read(value: object) -> datetime:
    if isinstance(value, int) and not isinstance(value, bool):
        return _EPOCH + timedelta(milliseconds=value)
    match = _FORM.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError
    day, minutes, seconds, fraction, zone = match.groups()
    milliseconds = ((fraction or "") + "000")[:3]
    text = f"{day}T{minutes or '00:00'}{seconds or ':00'}.{milliseconds}{zone or 'Z'}"
    return datetime.fromisoformat(text).astimezone(UTC).replace(tzinfo=None)


def _cut(moment: datetime) -> datetime:
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
