"""The management port: readiness tells the truth, liveness never asks a dependency."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import pytest

from tests.support.service import Service, StartService
from tests.support.wait import wait
from tests.support.wire import exchange, request

SAMPLE = "tests.services.common.sample"


@pytest.fixture
def service(start_service: StartService, tmp_path: Path) -> Service:
    return start_service(SAMPLE, DOWN_FILE=tmp_path / "down", HANG_FILE=tmp_path / "hang")


def get(service: Service, path: str) -> tuple[int, object]:
    answer = exchange(service.management, request("GET", f"/actuator/health{path}"))
    return answer.status, answer.json()


def test_up(service: Service) -> None:
    up = {"status": "UP", "components": {"dependency": {"status": "UP"}}}
    assert get(service, "") == (200, up)
    assert get(service, "/readiness") == (200, up)
    assert get(service, "/liveness") == (200, {"status": "UP"})


@pytest.mark.parametrize(
    ("file", "error"),
    [
        ("down", "ConnectionRefusedError: refused by the test"),
        ("hang", "no answer within 0.8 s"),
    ],
)
def test_a_dependency_goes_and_comes_back(
    service: Service, tmp_path: Path, file: str, error: str
) -> None:
    assert get(service, "/readiness")[0] == 200
    (tmp_path / file).touch()
    wait(lambda: get(service, "/readiness")[0] == 503, "readiness to say no", 5)
    down = {"status": "DOWN", "components": {"dependency": {"status": "DOWN", "error": error}}}
    assert get(service, "") == (503, down)
    assert get(service, "/liveness") == (200, {"status": "UP"})
    (tmp_path / file).unlink()
    wait(lambda: get(service, "/readiness")[0] == 200, "readiness to recover", 5)


@pytest.mark.parametrize("path", ["", "/readiness"])
def test_the_first_probe_after_a_hang_says_up(service: Service, tmp_path: Path, path: str) -> None:
    """Kubernetes takes a pod out after two failures in a row: a hang must count once."""
    (tmp_path / "hang").touch()
    wait(lambda: get(service, path)[0] == 503, "readiness to say no", 5)
    service.wait_for_line("the probe was cancelled")
    (tmp_path / "hang").unlink()
    time.sleep(1.2)  # An outcome is reused for a second; an earlier one says nothing.
    assert get(service, path)[0] == 200


def test_each_probe_of_a_hang_says_that_there_is_no_answer(
    service: Service, tmp_path: Path
) -> None:
    (tmp_path / "hang").touch()
    wait(lambda: get(service, "/readiness")[0] == 503, "readiness to say no", 5)
    service.wait_for_line("the probe was cancelled")
    time.sleep(1.2)  # As above.
    status, body = get(service, "/readiness")
    assert status == 503
    assert "no answer within 0.8 s" in str(body)


def test_a_hanging_dependency_does_not_hold_up_a_probe(service: Service, tmp_path: Path) -> None:
    (tmp_path / "hang").touch()
    wait(lambda: get(service, "/readiness")[0] == 503, "readiness to say no", 5)
    started = time.monotonic()
    for _ in range(20):
        get(service, "/readiness")
    assert time.monotonic() - started < 10  # One of a second is awaited in each second, not each.


def test_the_application_port_has_no_management(service: Service) -> None:
    assert httpx.get(f"{service.url}/actuator/health").status_code == 404
    assert httpx.get(f"{service.url}/metrics").status_code == 404


def test_unknown_management_paths_name_the_known_ones(service: Service) -> None:
    answer = httpx.get(f"{service.management}/")
    assert answer.status_code == 404
    assert "/actuator/health/readiness" in answer.json()["detail"]


def test_head(service: Service) -> None:
    assert httpx.head(f"{service.management}/actuator/health/readiness").status_code == 200
