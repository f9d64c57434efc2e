"""Settings of the ui that are not allowed stop it with one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("UI_BACKGROUND", "red; } * { display: none", "a CSS colour name such as goldenrod"),
        ("UI_BACKGROUND", "#12345", "#rgb or #rrggbb"),
        ("MESSAGE_HOST", "message-service", "an http:// or https:// URL"),
        ("GUESTBOOK_HOST", "ftp://guestbook-service", "an http:// or https:// URL"),
        ("REDIS_PORT", "redis", "a whole number from 0 to 65535"),
        ("REDIS_TLS", "perhaps", "true or false"),
        ("BACKEND_TIMEOUT", "0", "a number above 0 to 300"),
    ],
)
def test_a_bad_value_stops_the_ui(name: str, value: str, allowed: str) -> None:
    line = refusal(name, value)
    assert line.startswith(f"error: {name}={value!r} is not allowed; expected")
    assert allowed in line


@pytest.mark.parametrize(
    "url",
    [
        "http://:secret@redis:6379",
        "redis://:secret@redis:port",
        "redis://:secret@redis:70000",
        "rediss://:secret@redis?ssl_unknown=1",
        "unix://:secret@/socket",
    ],
)
def test_a_bad_url_of_redis_is_named_without_its_secret(url: str) -> None:
    line = refusal("REDIS_URL", url)
    assert line.startswith("error: REDIS_URL=")
    assert "redis://" in line.partition("expected")[2]
    assert "secret" not in line


def test_a_password_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    line = refusal("REDIS_PASSWORD_FILE", str(missing))
    assert line.startswith(f"error: REDIS_PASSWORD_FILE={str(missing)!r} is not allowed; expected")


def refusal(name: str, value: str) -> str:
    """Returns the one line with which the ui ends that was given this setting."""
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
    return line
