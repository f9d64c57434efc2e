"""Settings: typed, documented, and refused in one line when they are wrong."""

from __future__ import annotations

import socket
import subprocess
import sys

import httpx
import pytest

from services.common.settings import CommonSettings, load
from services.message.settings import Settings
from tests.services.common import sample
from tests.support.service import StartService, environment

SERVICE_LINKS = {
    "REDIS_SERVICE_HOST": "10.96.0.7",
    "REDIS_SERVICE_PORT": "6379",
    "REDIS_SERVICE_PORT_TCP_REDIS": "6379",
    "REDIS_PORT": "tcp://10.96.0.7:6379",
    "REDIS_PORT_6379_TCP": "tcp://10.96.0.7:6379",
    "REDIS_PORT_6379_TCP_PORT": "6379",
    "MYSQL_PORT": "tcp://10.96.0.8:3306",
    "UI_PORT": "tcp://10.96.0.9:80",
    "MANAGEMENT_PORT": "tcp://10.96.0.10:9000",
    "PORT": "tcp://10.96.0.11:80",
}


def refusal(module: str, **settings: object) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", module],
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=30,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("PORT", "http", "PORT='http' is not allowed; expected a whole number from 0 to 65535"),
        ("PORT", "65536", "PORT='65536' is not allowed; expected a whole number from 0 to 65535"),
        ("LOG_FORMAT", "xml", "LOG_FORMAT='xml' is not allowed; expected text or json"),
        (
            "SHUTDOWN_GRACE",
            "soon",
            "SHUTDOWN_GRACE='soon' is not allowed; expected a number from 0 to 3600",
        ),
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "collector:4317",
            "OTEL_EXPORTER_OTLP_ENDPOINT='collector:4317' is not allowed; "
            "expected an http:// or https:// URL",
        ),
        (
            "GREETING",
            "x" * 1001,
            f"GREETING='{'x' * 99}… is not allowed; expected text of 1 to 1000 characters",
        ),
    ],
)
def test_a_bad_value_stops_the_service_with_one_line(name: str, value: str, line: str) -> None:
    assert refusal("services.message", **{name: value}) == (2, "", f"error: {line}\n")


def test_a_password_in_a_url_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        load(CommonSettings, {"ZIPKIN_ENDPOINT": "ftp://user:hunter2@zipkin"})
    assert exit_info.value.code == 2
    error = capsys.readouterr().err
    assert "ftp://***@zipkin" in error
    assert "hunter2" not in error


def test_equal_ports_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        load(CommonSettings, {"PORT": "9000"})
    assert capsys.readouterr().err == (
        "error: PORT and MANAGEMENT_PORT are both 9000; they must differ\n"
    )


def test_a_port_in_use_is_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, output, error = refusal("services.message", PORT=port)
    assert (status, output) == (1, "")
    assert error == (
        f"error: PORT={port} cannot be used on HOST=127.0.0.1: Address already in use\n"
    )


def test_kubernetes_service_links_are_not_settings(start_service: StartService) -> None:
    settings = load(sample.Settings, SERVICE_LINKS)
    assert (settings.port, settings.management_port, settings.redis_port) == (8080, 9000, 6379)

    links = {name: value for name, value in SERVICE_LINKS.items() if name != "PORT"}
    links.pop("MANAGEMENT_PORT")
    service = start_service("tests.services.common.sample", **links)
    assert httpx.get(f"{service.url}/settings").json()["redis_port"] == 6379


def test_an_empty_variable_counts_as_not_set() -> None:
    settings = load(Settings, {"PORT": "", "GREETING": "", "ZIPKIN_ENDPOINT": ""})
    assert settings == Settings()


def test_names_are_case_insensitive_and_unknown_ones_ignored() -> None:
    settings = load(Settings, {"demo_version": "2.0", "Something_Else": "1"})
    assert settings.demo_version == "2.0"
