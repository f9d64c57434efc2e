"""Beyond the codelab: slow and flaky pods, on demand."""

from __future__ import annotations

import time

import httpx
import pytest

from tests.support.service import Service, StartService
from tests.support.wait import wait


@pytest.fixture(scope="module")
def message(start_shared_service: StartService) -> Service:
    return start_shared_service("message", HOSTNAME="pod")


def test_status(message: Service) -> None:
    answer = httpx.get(f"{message.url}/misbehave?status=429")
    assert answer.text == "Next request to /hello/{name} will return a 429\n"
    refusal = httpx.get(f"{message.url}/hello/x")
    assert (refusal.status_code, refusal.json()) == (429, {"misbehavior": "pod"})


def test_a_slow_pod_still_greets(message: Service) -> None:
    httpx.get(f"{message.url}/misbehave?status=200&delay=0.5")
    started = time.monotonic()
    answer = httpx.get(f"{message.url}/hello/x")
    assert time.monotonic() - started >= 0.5
    assert answer.status_code == 200
    assert answer.json()["hostname"] == "pod"


def test_percent_is_a_share_of_the_requests(message: Service) -> None:
    text = httpx.get(f"{message.url}/misbehave?percent=30").text
    assert text == "Next request to /hello/{name} will return a 503 in 30% of cases\n"
    with httpx.Client(base_url=message.url) as client:
        refused = sum(client.get("/hello/x").status_code == 503 for _ in range(1000))
    assert 220 < refused < 380  # More than five standard deviations on either side.


def test_for_ends_the_misbehaviour(message: Service) -> None:
    httpx.get(f"{message.url}/misbehave?for=0.7")
    started = time.monotonic()
    assert httpx.get(f"{message.url}/hello/x").status_code == 503
    wait(lambda: httpx.get(f"{message.url}/hello/x").status_code == 200, "good behaviour", 10)
    assert time.monotonic() - started >= 0.6
    message.wait_for_line("'misbehave' has been set to 'false'")


def test_parameters_do_not_outlive_the_next_call(message: Service) -> None:
    httpx.get(f"{message.url}/misbehave?status=500&percent=1&delay=3&for=60")
    httpx.get(f"{message.url}/misbehave")
    assert [httpx.get(f"{message.url}/hello/x").status_code for _ in range(10)] == [503] * 10


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("status=302", "status: it must be 200 or from 400 to 599"),
        ("status=abc", "status: Input should be a valid integer"),
        ("status=600", "status: it must be"),
        ("percent=0", "percent: Input should be greater than 0"),
        ("percent=101", "percent: Input should be less than or equal to 100"),
        ("percent=nan", "percent: "),
        ("delay=-1", "delay: Input should be greater than or equal to 0"),
        ("delay=inf", "delay: "),
        ("for=0", "for: Input should be greater than 0"),
        ("precent=50", "precent: Extra inputs are not permitted"),
        ("status=500&status=404", "twice"),
        ("status=500&status=500", "twice"),
        ("percent=50&status=500&percent=50", "twice"),
    ],
)
def test_a_bad_parameter_changes_nothing(message: Service, query: str, reason: str) -> None:
    httpx.get(f"{message.url}/behave")
    answer = httpx.get(f"{message.url}/misbehave?{query}")
    assert answer.status_code == 400
    assert reason in answer.json()["detail"]
    assert httpx.get(f"{message.url}/hello/x").status_code == 200


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PROPFIND"])
@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
def test_parameters_in_a_body_are_refused(message: Service, method: str, chunked: bool) -> None:
    httpx.get(f"{message.url}/behave")
    body = b"status=500"
    headers = {"content-type": "application/x-www-form-urlencoded"}
    answer = httpx.request(
        method,
        f"{message.url}/misbehave",
        content=iter([body]) if chunked else body,
        headers=headers,
    )
    assert answer.status_code == 400
    assert "body" in answer.json()["detail"]
    assert "/misbehave?status=500" in answer.json()["detail"]
    assert httpx.get(f"{message.url}/hello/x").status_code == 200


def test_an_empty_body_is_none(message: Service) -> None:
    answer = httpx.post(f"{message.url}/misbehave", content=b"", headers={"content-length": "0"})
    assert answer.status_code == 200
