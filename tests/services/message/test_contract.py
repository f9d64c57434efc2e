"""The message service over HTTP, as the codelab's users and its ui see it."""

from __future__ import annotations

from urllib.parse import quote

import httpx
import pytest

from tests.services.conftest import StartService
from tests.services.process import Service


@pytest.fixture
def message(start_service: StartService) -> Service:
    return start_service("message", HOSTNAME="message-service-545c84c666-nqfx6")


def test_hello_answers_the_codelab_s_bytes(message: Service) -> None:
    answer = httpx.get(f"{message.url}/hello/test")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.text == (
        '{"greeting":"Hello test from message-service-545c84c666-nqfx6 with 1.0",'
        '"version":"1.0","hostname":"message-service-545c84c666-nqfx6"}'
    )
    assert message.wait_for_line("Version 1.0") == "Version 1.0 processed message for test"


def test_misbehaving_is_sticky_until_behave(message: Service) -> None:
    switch = httpx.get(f"{message.url}/misbehave")
    assert (switch.status_code, switch.text) == (
        200,
        "Next request to /hello/{name} will return a 503\n",
    )
    assert switch.headers["content-type"].startswith("text/plain")
    for _ in range(3):
        answer = httpx.get(f"{message.url}/hello/Test")
        assert answer.status_code == 503
        assert answer.text == '{"misbehavior":"message-service-545c84c666-nqfx6"}'

    switch = httpx.get(f"{message.url}/behave")
    assert (switch.status_code, switch.text) == (
        200,
        "Next request to /hello/{name} will return 200\n",
    )
    assert httpx.get(f"{message.url}/hello/Test").status_code == 200

    message.wait_for_line("GET /hello/Test 200")
    assert [line for line in message.lines if "HTTP" not in line and " /" not in line][1:] == [
        "'misbehave' has been set to 'true'",
        *["Version 1.0 processed message for Test", "misbehaving!"] * 3,
        "'misbehave' has been set to 'false'",
        "Version 1.0 processed message for Test",
    ]


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"]
)
def test_any_method_turns_the_switches(message: Service, method: str) -> None:
    for path, status in (("/misbehave", 503), ("/behave", 200)):
        assert httpx.request(method, message.url + path).status_code == 200
        assert httpx.get(f"{message.url}/hello/x").status_code == status


def test_each_process_misbehaves_alone(start_service: StartService) -> None:
    sick, well = start_service("message"), start_service("message")
    httpx.get(f"{sick.url}/misbehave")
    assert httpx.get(f"{sick.url}/hello/x").status_code == 503
    assert httpx.get(f"{well.url}/hello/x").status_code == 200


def test_version_host_name_and_greeting_come_from_the_environment(
    start_service: StartService,
) -> None:
    message = start_service(
        "message",
        DEMO_VERSION="2.0",
        HOSTNAME="pod-$version",
        GREETING="$name, ${version} greets you from $hostname for $5 ($unknown)",
    )
    answer = httpx.get(f"{message.url}/hello/{quote('$hostname $$ ${version}')}").json()
    assert answer == {
        "greeting": "$hostname $$ ${version}, 2.0 greets you from pod-$version for $5 ($unknown)",
        "version": "2.0",
        "hostname": "pod-$version",
    }
    message.wait_for_line("Version 2.0 processed message for $hostname $$ ${version}")


@pytest.fixture(scope="module")
def shared(start_shared_service: StartService) -> Service:
    return start_shared_service("message", HOSTNAME="pod")


@pytest.mark.parametrize(
    "name",
    [
        "Ada Lovelace",
        "a/b",
        "/",
        "...",
        "a?b#c&d=e",
        "100%25",
        "Zoë 👩‍👩‍👧‍👦 שלום é",
        "two\nlines\r\n",
        "nul\0",
        "\u2028",
        '"quoted" <b>\'',
        "x" * 1000,
        "😀" * 1000,
    ],
)
def test_any_utf8_name_is_greeted(shared: Service, name: str) -> None:
    answer = httpx.get(f"{shared.url}/hello/{quote(name, safe='')}")
    assert answer.status_code == 200
    assert answer.json()["greeting"] == f"Hello {name} from pod with 1.0"


@pytest.mark.parametrize(
    ("path", "status", "reason"),
    [
        ("/hello/" + "x" * 10_000, 414, "over 1000 characters"),
        ("/hello/" + quote("😀" * 2_500), 414, "over 1000 characters"),
        ("/hello/" + "x" * 1_001, 414, "over 1000 characters"),
        ("/hello/%FF%FE", 400, "not UTF-8"),
        ("/hello/%ED%A0%80", 400, "not UTF-8"),
        ("/hello/a/b", 404, "%2F"),
        ("/hello/", 404, "not found"),
        ("/hello", 404, "not found"),
        ("/", 404, "not found"),
    ],
)
def test_other_names_get_a_reason(shared: Service, path: str, status: int, reason: str) -> None:
    answer = httpx.get(shared.url + path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status
    assert reason in answer.json()["detail"]


def test_hello_takes_get_and_head_only(shared: Service) -> None:
    answer = httpx.post(f"{shared.url}/hello/x")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD"
    head = httpx.head(f"{shared.url}/hello/x")
    get = httpx.get(f"{shared.url}/hello/x")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == get.headers["content-length"]
    assert head.headers["content-type"] == get.headers["content-type"]


def test_a_name_cannot_forge_a_log_line(shared: Service) -> None:
    name = "\nVersion 9.9 processed message for forged\x1b[31m"
    httpx.get(f"{shared.url}/hello/{quote(name)}")
    line = shared.wait_for_line("forged")
    assert line == (
        r"Version 1.0 processed message for \nVersion 9.9 processed message for forged\x1b[31m"
    )
