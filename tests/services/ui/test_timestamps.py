"""Times of messages as back ends of all kinds write them."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.services.ui.backend import Guestbook
from tests.support.page import read
from tests.support.ui import Ui

NOON = "31 Jan 2026, 12:00 UTC"


@pytest.mark.parametrize(
    "timestamp",
    [
        "2026-01-31T12:00:00.000+00:00",
        "2026-01-31T12:00:00.000+0000",
        "2026-01-31T12:00:00.123456789Z",
        "2026-01-31T14:00:00+02:00",
        "2026-01-31T12:00:00",
        "2026-01-31T12:00:00.5",
        "2026-01-31 12:00:00",
        1769860800000,
    ],
)
def test_a_time_is_shown_in_utc(ui: Ui, stored: Guestbook, timestamp: Any) -> None:
    stored.add("Ada", "timed", timestamp)
    page = read(httpx.get(ui.url, trust_env=False))
    assert page.messages == [("Ada", "timed")]
    assert page.times == [NOON]


@pytest.mark.parametrize(
    "timestamp",
    [
        None,
        "",
        "nonsense",
        "2026-02-30T12:00:00Z",
        "2026-01-31T25:00:00Z",
        "10000-01-01T00:00:00Z",
        "0001-01-01T00:00:00",
        "0001-01-01T00:00:00Z",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59.999Z",
        "9999-12-31T23:59:59.999999",
        "9999-12-31T23:59:59-12:00",
        0,
        -(10**18),
        10**30,
        1.5e300,
        True,
        [],
        {"epochSecond": 1769860800},
        "9" * 5000,
    ],
    ids=lambda timestamp: repr(timestamp)[:40],
)
def test_a_message_is_shown_whatever_its_time(ui: Ui, stored: Guestbook, timestamp: Any) -> None:
    stored.add("Ada", "before")
    stored.add("Grace", "untimed", timestamp)
    answer = httpx.get(ui.url, trust_env=False)
    assert answer.status_code == 200
    page = read(answer)
    assert page.messages == [("Grace", "untimed"), ("Ada", "before")]
    assert page.times[-1] == NOON
