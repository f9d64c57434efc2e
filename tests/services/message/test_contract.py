"""The message service over HTTP, as the codelab's users and its ui see it."""

from __future__ import annotations

from urllib.parse import quote

import httpx
import pytest

from tests.support.collector import attributes, collector
from tests.support.metrics import samples
from tests.support.service import Service, StartService


@pytest.fixture
def message(start_service: StartService) -> Service:
    return start_service("message", HOSTNAME="message-service-545c84c666-nqfx6")


def test_hello_answers_the_codelab_s_bytes(message: Service) -> None:
    answer = httpx.get(f"{message.url}/hello/test")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json;charset=UTF-8"
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
        assert answer.headers["content-type"] == "application/json;charset=UTF-8"

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
        "x/",
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
    slash = httpx.get(f"{shared.url}/hello/{quote(name, safe='')}/")
    assert (slash.status_code, slash.json()) == (200, answer.json())


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
        ("/hello//", 404, ""),
        ("/hello/x//", 404, ""),
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
    assert answer.json()["request_id"]


@pytest.mark.parametrize(("path", "status"), [("/misbehave/", 503), ("/behave/", 200)])
def test_the_switches_may_end_with_a_slash(shared: Service, path: str, status: int) -> None:
    assert httpx.get(shared.url + path).status_code == 200
    assert httpx.get(f"{shared.url}/hello/x").status_code == status


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


def test_requests_are_counted_by_the_template_of_their_route(start_service: StartService) -> None:
    message = start_service("message")
    for path in ("/hello/a", "/hello/b/", "/hello/%2F", "/misbehave", "/misbehave/", "/hello/c"):
        httpx.get(message.url + path)
    httpx.head(f"{message.url}/hello/a")
    httpx.request("PROPFIND", f"{message.url}/behave")
    httpx.post(f"{message.url}/hello/a")
    httpx.get(f"{message.url}/hello/%FF")
    httpx.get(f"{message.url}/hello/" + "x" * 1001)
    httpx.get(f"{message.url}/misbehave?status=1")
    httpx.get(f"{message.url}/nowhere")
    assert samples(message, "http_requests_total") == {
        ("GET", "/hello/{name}", "200"): 3.0,
        ("GET", "/misbehave", "200"): 2.0,
        ("GET", "/hello/{name}", "503"): 1.0,
        ("HEAD", "/hello/{name}", "503"): 1.0,
        ("other", "/behave", "200"): 1.0,
        ("POST", "/hello/{name}", "405"): 1.0,
        ("GET", "/hello/{name}", "400"): 1.0,
        ("GET", "/hello/{name}", "414"): 1.0,
        ("GET", "/misbehave", "400"): 1.0,
        ("GET", "unmatched", "404"): 1.0,
    }


def test_each_greeting_is_a_server_span(start_service: StartService) -> None:
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    with collector() as made:
        message = start_service("message", OTEL_EXPORTER_OTLP_ENDPOINT=made.url)
        headers = {"traceparent": f"00-{trace}-{parent}-01"}
        for path in ("/hello/Ann", "/misbehave", "/hello/Ann"):
            httpx.get(message.url + path, headers=headers)
        message.stop()
    spans = {
        (span["name"], str(attributes(span)["http.response.status_code"])): span
        for span in made.otlp
    }
    assert spans.keys() == {
        ("GET /hello/{name}", "200"),
        ("GET /misbehave", "200"),
        ("GET /hello/{name}", "503"),
    }
    for (_, status), span in spans.items():
        found = attributes(span)
        assert (span["traceId"], span["parentSpanId"], span["kind"]) == (trace, parent, 2)
        assert span["resource"]["service.name"] == "message-service"
        assert found["http.request.method"] == "GET"
        assert found["url.scheme"] == "http"
        assert span["name"] == f"GET {found['http.route']}"
        assert found.get("error.type") == ("503" if status == "503" else None)
        assert span.get("status", {}).get("code", 0) == (2 if status == "503" else 0)
    assert attributes(spans["GET /hello/{name}", "200"])["url.path"] == "/hello/Ann"
