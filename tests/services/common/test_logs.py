"""Log lines: a line an event, text or JSON, with the trace and the request either way."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.services.conftest import StartService
from tests.services.process import READY, environment

TRACE = "0af7651916cd43dd8448eb211c80319c"
SAMPLE = "tests.services.common.sample"


@pytest.mark.parametrize(
    "headers",
    [
        {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"},
        {"b3": f"{TRACE}-b7ad6b7169203331-1"},
        {"x-b3-traceid": TRACE, "x-b3-spanid": "b7ad6b7169203331"},
    ],
    ids=["w3c", "b3", "x-b3"],
)
def test_text(start_service: StartService, headers: dict[str, str]) -> None:
    service = start_service("message")
    httpx.get(f"{service.url}/hello/Test?a=b", headers={**headers, "x-request-id": "r-1"})
    line = service.wait_for_line("GET /hello")
    assert line.startswith("GET /hello/Test?a=b 200 ")
    assert line.endswith(f"ms trace_id={TRACE} request_id=r-1")
    assert service.lines[-2] == "Version 1.0 processed message for Test"


def test_json(start_service: StartService) -> None:
    service = start_service("message", LOG_FORMAT="json")
    headers = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01", "x-request-id": "r-1"}
    httpx.get(f"{service.url}/misbehave")
    httpx.get(f'{service.url}/hello/"Zoë"%0A', headers=headers)
    service.wait_for_line("/hello")
    events = [json.loads(line) for line in service.lines]
    greeted, misbehaving, access = events[-3:]
    assert greeted["message"] == 'Version 1.0 processed message for "Zoë"\n'
    assert misbehaving["message"] == "misbehaving!"
    assert (access["method"], access["path"], access["status"]) == (
        "GET",
        "/hello/%22Zo%C3%AB%22%0A",
        503,
    )
    assert access["duration_ms"] > 0
    for event in events[-3:]:
        assert (event["trace_id"], event["request_id"]) == (TRACE, "r-1")
        assert event["level"] == "INFO"
        assert event["timestamp"]


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_crash_is_in_the_log_and_not_in_the_answer(
    start_service: StartService, log_format: str
) -> None:
    service = start_service(SAMPLE, LOG_FORMAT=log_format)
    answer = httpx.get(f"{service.url}/crash", headers={"x-request-id": "r-2"})
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"] == "the service failed; see its log"
    service.wait_for_line("RuntimeError: the secret reason")
    service.stop()
    assert "GET /crash 500" in service.text
    failure = next(line for line in service.lines if "ERROR" in line)
    assert "r-2" in failure
    if log_format == "json":
        assert [json.loads(line)["level"] for line in service.lines].count("ERROR") == 1
        assert "the secret reason" in json.loads(failure)["exc_info"]


def test_no_line_of_many_visitors_is_lost(start_service: StartService) -> None:
    """Those of a turn of the event loop are one write; the last ones come with the end."""
    service = start_service("message")

    def visit(visitor: int) -> None:
        with httpx.Client() as client:
            for number in range(25):
                client.get(f"{service.url}/hello/{visitor}-{number}").raise_for_status()

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(visit, range(16)))
    assert service.stop() == 0
    for visitor in range(16):
        for number in range(25):
            name = f"{visitor}-{number}"
            greeted = f"Version 1.0 processed message for {name}"
            assert service.lines.count(greeted) == 1
            (access,) = (line for line in service.lines if f" /hello/{name} " in line)
            assert service.lines.index(greeted) < service.lines.index(access)
    assert service.lines[-1] == "Stopped"


def test_when_nobody_reads_the_log_requests_are_answered_all_the_same() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "services.message"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        found = READY.search(process.stdout.readline())
        assert found
        process.stdout.close()
        try:
            for _ in range(3):
                httpx.get(f"{found[1]}/hello/Test").raise_for_status()
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert process.stderr.read() == ""
