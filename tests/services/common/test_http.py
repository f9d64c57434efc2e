"""Requests to any service: metrics, HEAD, errors, size limits."""

from __future__ import annotations

import re

import httpx
import pytest

from tests.support.metrics import samples
from tests.support.service import Service, StartService
from tests.support.wait import wait
from tests.support.wire import Connection, request

SAMPLE = "tests.services.common.sample"


@pytest.fixture
def service(start_service: StartService) -> Service:
    return start_service(SAMPLE)


@pytest.fixture(scope="module")
def shared(start_shared_service: StartService) -> Service:
    return start_shared_service(SAMPLE)


def test_requests_are_counted_by_method_route_and_status(service: Service) -> None:
    for item in range(5):
        httpx.get(f"{service.url}/items/{item}")
    httpx.head(f"{service.url}/items/1")
    httpx.get(f"{service.url}/items/x")
    httpx.delete(f"{service.url}/items/1")
    httpx.get(f"{service.url}/crash")
    expected = {
        ("GET", "/items/{item}", "200"): 5.0,
        ("HEAD", "/items/{item}", "200"): 1.0,
        ("GET", "/items/{item}", "400"): 1.0,
        ("DELETE", "/items/{item}", "405"): 1.0,
        ("GET", "/crash", "500"): 1.0,
    }
    assert samples(service, "http_requests_total") == expected
    assert samples(service, "http_request_duration_seconds_count") == expected


def test_durations_are_in_seconds(service: Service) -> None:
    httpx.get(f"{service.url}/slow/0.5")
    ((_, seconds),) = samples(service, "http_request_duration_seconds_sum").items()
    assert 0.5 <= seconds < 5


def test_a_client_cannot_make_new_series(service: Service) -> None:
    with httpx.Client(base_url=service.url) as client:
        for number in range(50):
            client.get(f"/nowhere/{number}?q={number}")
            client.request("PROPFIND", f"/nowhere/{number}")
            client.request("PURGE", f"/nowhere/{number}")
    assert samples(service, "http_requests_total") == {
        ("GET", "unmatched", "404"): 50.0,
        ("other", "unmatched", "404"): 100.0,
    }


def test_build_info(start_service: StartService) -> None:
    service = start_service(SAMPLE, DEMO_VERSION="2.0", HOSTNAME="pod")
    metrics = httpx.get(f"{service.management}/metrics")
    assert metrics.headers["content-type"].startswith("text/plain; version=")
    assert re.search(
        r'^build_info{hostname="pod",service="sample",version="2.0"} 1.0$', metrics.text, re.M
    )
    info = httpx.get(f"{service.management}/actuator/info").json()
    assert (info["service"], info["version"], info["hostname"]) == ("sample", "2.0", "pod")


@pytest.mark.parametrize("path", ["/items/1", "/stream", "/nowhere", "/crash"])
def test_head_is_get_without_the_body(service: Service, path: str) -> None:
    with httpx.Client(base_url=service.url) as client:  # One connection: a body would be found.
        get = client.get(path)
        head = client.head(path)
        assert (head.status_code, head.content) == (get.status_code, b"")
        assert head.headers["content-type"] == get.headers["content-type"]
        assert client.get(path).status_code == get.status_code


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "reason"),
    [
        ("GET", "/nowhere", b"", 404, "GET /nowhere: not found"),
        ("GET", "/items/x", b"", 400, "item: Input should be a valid integer"),
        ("POST", "/items/1", b"{", 400, "the body is not valid JSON"),
        ("POST", "/items/1", b'{"a": "b"}', 400, "a: Input should be a valid integer"),
        ("POST", "/items/1", b"", 400, "the body must be a JSON object"),
        ("POST", "/items/1", b'{"a": ' + b"1" * 2000 + b"}", 413, "over 1000 bytes"),
        ("PUT", "/items/1", b"", 405, "PUT /items/1: method not allowed"),
    ],
)
def test_an_error_says_what_is_wrong(
    service: Service, method: str, path: str, body: bytes, status: int, reason: str
) -> None:
    headers = {"content-type": "application/json"} if body else {}
    answer = httpx.request(method, service.url + path, content=body, headers=headers)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status
    assert reason.lower() in answer.json()["detail"].lower()
    if status == 405:
        assert answer.headers["allow"] == "GET, HEAD, POST"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/nowhere", b"", 404),
        ("GET", "/items/x", b"", 400),
        ("POST", "/items/1", b"{", 400),
        ("POST", "/items/1", b" " * 2000, 413),
        ("PUT", "/items/1", b"", 405),
        ("GET", "/crash", b"", 500),
    ],
)
def test_an_error_names_its_request_as_the_log_does(
    shared: Service, method: str, path: str, body: bytes, status: int
) -> None:
    json_body = {"content-type": "application/json"} if body else {}
    given = httpx.request(
        method, shared.url + path, content=body, headers={**json_body, "x-request-id": "r-1"}
    )
    made = httpx.request(method, shared.url + path, content=body, headers=json_body)
    assert given.status_code == made.status_code == status
    assert given.json()["request_id"] == "r-1"
    request_id = made.json()["request_id"]
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", request_id)
    line = shared.wait_for_line(f"request_id={request_id}")
    assert f"{method} {path}" in line


def test_a_body_of_unknown_length_is_limited_too(service: Service) -> None:
    def chunks() -> object:
        for _ in range(100):
            yield b" " * 100

    headers = {"content-type": "application/json"}
    answer = httpx.post(f"{service.url}/items/1", content=chunks(), headers=headers)  # type: ignore[arg-type]
    assert answer.status_code == 413


def test_a_body_of_the_limit_is_read(shared: Service) -> None:
    padding = " " * (1000 - len('{"a": 1}'))
    headers = {"content-type": "application/json"}
    answer = httpx.post(f"{shared.url}/items/1", content='{"a": 1}' + padding, headers=headers)
    assert answer.json() == {"item": 1, "a": 1}
    over = httpx.post(f"{shared.url}/items/1", content='{"a": 1} ' + padding, headers=headers)
    assert over.status_code == 413


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_a_final_slash_changes_nothing(service: Service, method: str) -> None:
    body = {"json": {"a": 1}} if method == "POST" else {}
    for path in ("/items/1", "/items/1/"):
        answer = httpx.request(method, f"{service.url}{path}?q=1", **body)  # type: ignore[arg-type]
        assert answer.status_code == 200
    assert samples(service, "http_requests_total") == {(method, "/items/{item}", "200"): 2.0}


def test_a_final_slash_makes_no_redirect(shared: Service) -> None:
    """Its address would be built from a Host header that anybody may send."""
    for path in ("/nowhere/", "/items/", "/"):
        assert httpx.get(shared.url + path).status_code == 404


@pytest.mark.parametrize("length", [b"Content-Length: 500", b"Transfer-Encoding: chunked"])
def test_a_client_that_leaves_in_mid_body_is_no_failure_of_the_service(
    service: Service, length: bytes
) -> None:
    head = request("POST", "/items/1", b"Content-Type: application/json", length)
    with Connection(service.url) as connection:
        connection.send(head + b"6\r\n")
    service.wait_for_line("POST /items/1 499")
    assert samples(service, "http_requests_total") == {("POST", "/items/{item}", "499"): 1.0}
    assert httpx.get(f"{service.url}/items/1").status_code == 200
    service.stop()
    assert "ERROR" not in service.text
    assert "Traceback" not in service.text


def test_a_client_that_leaves_before_its_answer_is_no_failure_of_the_service(
    service: Service,
) -> None:
    with Connection(service.url) as connection:
        connection.send(request("GET", "/slow/0.5"))
        service.wait_for_line("sleeping")
    service.wait_for_line("GET /slow/0.5")
    wait(lambda: samples(service, "http_requests_total"), "the request to be counted")
    service.stop()
    assert "ERROR" not in service.text
    assert "Traceback" not in service.text
