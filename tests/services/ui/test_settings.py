"""Settings of the ui that are not allowed stop it with one line."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("UI_BACKGROUND", "red; } * { display: none", "a CSS colour name such as goldenrod"),
        ("UI_BACKGROUND", "#12345", "#rgb or #rrggbb"),
        ("MESSAGE_HOST", "message-service", "an http:// or https:// URL"),
        ("GUESTBOOK_HOST", "ftp://guestbook-service", "an http:// or https:// URL"),
        ("REDIS_PORT", "redis", "a whole number from 0 to 65535"),
        ("BACKEND_TIMEOUT", "0", "a number above 0 to 300"),
    ],
)
def test_a_bad_value_stops_the_ui(name: str, value: str, allowed: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "services.ui"],
        env={"PATH": os.environ["PATH"], name: value},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert ended.returncode == 2
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"error: {name}={value!r} is not allowed; expected")
    assert allowed in line
