"""Log lines: a line an event, text or JSON, with the trace and the request either way."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import httpx
import pytest

from tests.support.service import READY, Service, StartService, environment
from tests.support.wire import exchange, request

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


INVISIBLE = {
    "\n": r"\n",
    "\r": r"\r",
    "\t": r"\t",
    "\0": r"\x00",
    "\x1b": r"\x1b",
    "\x7f": r"\x7f",
    "\x9b": r"\x9b",
    "\u00ad": r"\xad",
    "\u061c": r"\u061c",
    "\u200b": r"\u200b",
    "\u200f": r"\u200f",
    "\u2028": r"\u2028",
    "\u202e": r"\u202e",
    "\u2066": r"\u2066",
    "\ufeff": r"\ufeff",
    "\U000e0041": r"\U000e0041",
}
"""Characters that move the cursor, reorder the line or cannot be seen, as the text log has them."""


@pytest.fixture(scope="module")
def text_log(start_shared_service: StartService) -> Service:
    return start_shared_service(SAMPLE)


@pytest.fixture(scope="module")
def json_log(start_shared_service: StartService) -> Service:
    return start_shared_service(SAMPLE, LOG_FORMAT="json")


def test_text_shows_invisible_characters_as_escapes(start_service: StartService) -> None:
    service = start_service("message")
    for number, (character, escape) in enumerate(INVISIBLE.items()):
        httpx.get(f"{service.url}/hello/{number}-{quote(character)}Zoë").raise_for_status()
        line = service.wait_for_line(f"processed message for {number}-")
        assert line.endswith(f" for {number}-{escape}Zoë")


def test_json_shows_invisible_characters_as_escapes(start_service: StartService) -> None:
    service = start_service("message", LOG_FORMAT="json")
    for number, character in enumerate(INVISIBLE):
        httpx.get(f"{service.url}/hello/{number}-{quote(character)}Zoë").raise_for_status()
        line = service.wait_for_line(f"processed message for {number}-")
        assert line.isprintable()
        assert "Zoë" in line
        assert json.loads(line)["message"].endswith(f" for {number}-{character}Zoë")


def test_the_reason_of_a_crash_cannot_move_the_cursor(text_log: Service) -> None:
    reason = "\x1b[31mred \u202eback\u2069"
    httpx.get(f"{text_log.url}/crash", params={"reason": reason})
    line = text_log.wait_for_line("RuntimeError: ")
    assert line == r"RuntimeError: \x1b[31mred \u202eback\u2069"


def test_a_target_that_is_not_percent_encoded_is_escaped(
    text_log: Service, json_log: Service
) -> None:
    for service in (text_log, json_log):
        before = len(service.lines)
        assert exchange(service.url, request("GET", "/raw/\u202e\x9b")).status in (400, 404)
        httpx.get(f"{service.url}/after")
        service.wait_for_line("/after")
        assert all(line.isprintable() for line in service.lines[before:])


FORGED = [
    b"a trace_id=forged",
    b"a\ttrace_id=forged",
    b"forged\xe2\x80\xae",
    b"forged\xff",
    b'forged"},{"level":"ERROR',
    b"forged;",
    b"forged" + b"x" * 123,
    b"forged" + b"x" * 50_000,
]


@pytest.mark.parametrize("value", FORGED, ids=range(len(FORGED)))
def test_a_request_id_that_is_none_is_replaced(
    text_log: Service, json_log: Service, value: bytes
) -> None:
    seen = []
    for service in (text_log, json_log):
        before = len(service.lines)
        answer = exchange(service.url, request("GET", "/nowhere", b"x-request-id: " + value))
        request_id = answer.json()["request_id"]
        assert re.fullmatch("[0-9a-f-]{36}", request_id)
        seen.append(request_id)
        service.wait_for_line(request_id)
        written = "\n".join(service.lines[before:])
        assert "forged" not in written
        assert len(written) < 1000
    assert seen[0] != seen[1]


@pytest.mark.parametrize(
    "value", ["r", "A-Z.a_z:0/9+=@", "x" * 128, "1ca98b3e-7ab2-9a3c-b2a4-0d8e0ad8a6f3"]
)
def test_a_request_id_is_kept(text_log: Service, value: str) -> None:
    answer = httpx.get(f"{text_log.url}/nowhere", headers={"x-request-id": value})
    assert answer.json()["request_id"] == value
    assert text_log.wait_for_line(f"request_id={value}").endswith(f"request_id={value}")


def test_two_request_ids_are_none(text_log: Service) -> None:
    headers = (b"x-request-id: one", b"x-request-id: two")
    request_id = exchange(text_log.url, request("GET", "/nowhere", *headers)).json()["request_id"]
    assert re.fullmatch("[0-9a-f-]{36}", request_id)


@pytest.mark.parametrize(
    "header",
    [
        b"traceparent: 00-forged trace-b7ad6b7169203331-01",
        b"traceparent: 00-" + TRACE.encode() + b"0-b7ad6b7169203331-01",
        b"traceparent: 00-" + TRACE[:-1].encode() + b"-b7ad6b7169203331-01",
        b"traceparent: 00-" + b"a" * 40_000 + b"-b7ad6b7169203331-01",
        b"traceparent: " + TRACE.encode(),
        b"b3: 0",
        b"b3: \xe2\x80\xae-b7ad6b7169203331-1",
        b"b3: request_id=forged-b7ad6b7169203331-1",
        b"x-b3-traceid: " + TRACE.encode() + b" request_id=forged",
        b"x-b3-traceid: " + b"0" * 17,
    ],
    ids=range(10),
)
def test_a_trace_id_that_is_none_is_not_logged(
    text_log: Service, json_log: Service, header: bytes
) -> None:
    for service in (text_log, json_log):
        answer = exchange(service.url, request("GET", "/nowhere", header))
        line = service.wait_for_line(answer.json()["request_id"])
        if service is json_log:
            assert json.loads(line).get("trace_id") is None
        else:
            assert "trace_id" not in line


def test_a_trace_id_of_64_bits_is_logged(text_log: Service) -> None:
    headers = {"x-b3-traceid": "463ac35c9f6413ad", "x-b3-spanid": "a2fb4a1d1a96d312"}
    request_id = httpx.get(f"{text_log.url}/nowhere", headers=headers).json()["request_id"]
    assert " trace_id=463ac35c9f6413ad " in text_log.wait_for_line(request_id)


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
