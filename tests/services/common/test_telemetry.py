"""Traces stay whole in both modes: relayed untouched, or continued by exported spans."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import httpx
import pytest

from tests.support.collector import Collector, attributes, collector
from tests.support.service import Service, StartService
from tests.support.wait import wait
from tests.support.wire import exchange, request

SAMPLE = "tests.services.common.sample"
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
W3C = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
B3_SINGLE = {"b3": f"{TRACE}-{SPAN}-1"}
B3_MULTIPLE = {"x-b3-traceid": TRACE, "x-b3-spanid": SPAN, "x-b3-sampled": "1"}


@pytest.fixture(scope="module")
def relaying(start_shared_service: StartService) -> Service:
    return start_shared_service(SAMPLE)


@pytest.mark.parametrize("path", ["/outgoing", "/outgoing/thread"])
def test_without_an_exporter_headers_are_relayed_untouched(relaying: Service, path: str) -> None:
    incoming = {
        **W3C,
        "tracestate": "vendor=a b,other=1",
        **B3_SINGLE,
        **B3_MULTIPLE,
        "x-b3-parentspanid": "05e3ac9a4f6e3b90",
        "x-b3-flags": "0",
        "x-request-id": "1ca98b3e-7ab2-9a3c-b2a4-0d8e0ad8a6f3",
    }
    others = {"cookie": "SESSION=secret", "authorization": "Bearer secret"}
    assert httpx.get(relaying.url + path, headers={**incoming, **others}).json() == incoming


def test_without_an_exporter_no_trace_is_made_up(relaying: Service) -> None:
    outgoing = httpx.get(f"{relaying.url}/outgoing").json()
    assert outgoing.keys() == {"x-request-id"}
    again = httpx.get(f"{relaying.url}/outgoing").json()
    assert outgoing["x-request-id"] != again["x-request-id"]


TRACE_HEADERS = (
    b"traceparent",
    b"tracestate",
    b"b3",
    b"x-b3-traceid",
    b"x-b3-spanid",
    b"x-b3-parentspanid",
    b"x-b3-sampled",
    b"x-b3-flags",
)

NOT_ASCII = [b"v=\xc3\xa9", b"v=\xff", b"v=\xe2\x80\xae", b"a\tb"]


@pytest.mark.parametrize("value", NOT_ASCII, ids=range(len(NOT_ASCII)))
@pytest.mark.parametrize("name", TRACE_HEADERS, ids=bytes.decode)
def test_a_trace_header_that_is_not_printable_ascii_is_dropped(
    relaying: Service, name: bytes, value: bytes
) -> None:
    others = [each + b": 1-2" for each in TRACE_HEADERS if each != name]
    answer = exchange(relaying.url, request("GET", "/outgoing", name + b": " + value, *others))
    assert answer.status == 200
    expected = {each.decode(): "1-2" for each in TRACE_HEADERS if each != name}
    assert {key: text for key, text in answer.json().items() if key != "x-request-id"} == expected


@pytest.mark.parametrize(
    ("values", "relayed"),
    [
        ([b"a" * 1000], "a" * 1000),
        ([b"a" * 1001], None),
        ([b"a" * 60_000], None),
        ([b"a=1", b"b=2"], "a=1,b=2"),
        ([b"a" * 600, b"b" * 600], None),
        ([b"a=1", b"b=\xc3\xa9"], None),
        ([b"a=\xc3\xa9", b"b=2"], None),
    ],
    ids=["1000", "1001", "60000", "two", "two that are too long", "bad second", "bad first"],
)
def test_a_trace_header_is_relayed_whole_or_not_at_all(
    relaying: Service, values: list[bytes], relayed: str | None
) -> None:
    headers = [b"tracestate: " + value for value in values]
    answer = exchange(relaying.url, request("GET", "/outgoing", *headers))
    assert answer.status == 200
    assert answer.json().get("tracestate") == relayed


def test_without_an_exporter_the_sdk_is_not_loaded(relaying: Service) -> None:
    mapped = httpx.get(f"{relaying.url}/modules").json()
    assert [name for name in mapped if name.startswith("opentelemetry.sdk")] == []


@pytest.fixture
def collected() -> Iterator[Collector]:
    with collector() as made:
        yield made


@pytest.mark.parametrize("incoming", [W3C, B3_SINGLE, B3_MULTIPLE], ids=["w3c", "b3", "x-b3"])
def test_otlp_spans_continue_the_trace(
    start_service: StartService, collected: Collector, incoming: dict[str, str]
) -> None:
    service = start_service(
        SAMPLE, OTEL_EXPORTER_OTLP_ENDPOINT=collected.url + "/", DEMO_VERSION="7", HOSTNAME="pod"
    )
    outgoing = httpx.get(
        f"{service.url}/outgoing", headers={**incoming, "x-request-id": "kept"}
    ).json()
    service.stop()  # The end exports the remaining spans.

    server, client = sorted(collected.otlp, key=lambda span: span["name"], reverse=True)[:2]
    server, client = (server, client) if client["name"] == "GET elsewhere" else (client, server)
    assert (server["name"], client["name"]) == ("GET /outgoing", "GET elsewhere")
    assert server["traceId"] == client["traceId"] == TRACE
    assert server["parentSpanId"] == SPAN
    assert client["parentSpanId"] == server["spanId"]
    assert attributes(server)["http.route"] == "/outgoing"
    assert attributes(client)["http.request.method"] == "GET"
    assert server["resource"]["service.name"] == "sample"
    assert server["resource"]["service.version"] == "7"
    assert len(collected.otlp) == 2

    assert outgoing == {
        "x-request-id": "kept",
        "traceparent": f"00-{TRACE}-{client['spanId']}-01",
        "x-b3-traceid": TRACE,
        "x-b3-spanid": client["spanId"],
        "x-b3-sampled": "1",
    }


def test_an_unsampled_trace_stays_unsampled(
    start_service: StartService, collected: Collector
) -> None:
    service = start_service(SAMPLE, OTEL_EXPORTER_OTLP_ENDPOINT=collected.url)
    headers = {"traceparent": f"00-{TRACE}-{SPAN}-00"}
    outgoing = httpx.get(f"{service.url}/outgoing", headers=headers).json()
    service.stop()
    assert outgoing["traceparent"].startswith(f"00-{TRACE}-")
    assert outgoing["traceparent"].endswith("-00")
    assert outgoing["x-b3-sampled"] == "0"
    assert collected.otlp == []


def test_with_an_exporter_bad_trace_headers_do_no_harm(
    start_service: StartService, collected: Collector
) -> None:
    service = start_service(SAMPLE, OTEL_EXPORTER_OTLP_ENDPOINT=collected.url)
    for value in (*NOT_ASCII, b"a" * 5_000, b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01"):
        headers = [name + b": " + value for name in TRACE_HEADERS]
        answer = exchange(service.url, request("GET", "/outgoing", *headers))
        assert answer.status == 200
        assert answer.json().keys() >= {"traceparent", "x-request-id"}
        assert all(text.isascii() and text.isprintable() for text in answer.json().values())
    service.stop()
    assert "ERROR" not in service.text


def test_server_spans_have_what_the_conventions_ask_for(
    start_service: StartService, collected: Collector
) -> None:
    service = start_service(SAMPLE, OTEL_EXPORTER_OTLP_ENDPOINT=collected.url)
    for target in ("/items/1?q=2", "/items/x", "/nowhere", "/crash"):
        httpx.get(service.url + target)
    service.stop()
    host, port = service.url.removeprefix("http://").split(":")
    expected = {
        ("/items/1", "/items/{item}", "200", False),
        ("/items/x", "/items/{item}", "400", False),
        ("/nowhere", None, "404", False),
        ("/crash", "/crash", "500", True),
    }
    found = set()
    for span in collected.otlp:
        named = {name: str(value) for name, value in attributes(span).items()}
        route = named.get("http.route")
        assert span["name"] == (f"GET {route}" if route else "GET")
        assert span["kind"] == 2  # SERVER
        assert (
            named.items()
            >= {
                "http.request.method": "GET",
                "url.scheme": "http",
                "server.address": host,
                "server.port": port,
                "network.protocol.version": "1.1",
            }.items()
        )
        error = named.get("error.type")
        # An error of the client is none of the server.
        assert span.get("status", {}).get("code", 0) == (2 if error else 0)
        found.add((named["url.path"], route, named["http.response.status_code"], bool(error)))
        if named["url.path"] == "/items/1":
            assert named["url.query"] == "q=2"
    assert found == expected
    assert len(collected.otlp) == len(expected)


def test_zipkin_spans_are_exported_while_it_runs(
    start_service: StartService, collected: Collector
) -> None:
    service = start_service(SAMPLE, ZIPKIN_ENDPOINT=f"{collected.url}/api/v2/spans")
    httpx.get(f"{service.url}/outgoing", headers=B3_MULTIPLE)
    wait(lambda: len(collected.zipkin) == 2, "two spans at Zipkin")
    by_kind = {span["kind"]: span for span in collected.zipkin}
    assert by_kind["SERVER"]["traceId"] == TRACE
    assert by_kind["SERVER"]["parentId"] == SPAN
    assert by_kind["SERVER"]["localEndpoint"]["serviceName"] == "sample"
    assert by_kind["CLIENT"]["parentId"] == by_kind["SERVER"]["id"]


def test_log_lines_name_the_exported_trace(
    start_service: StartService, collected: Collector
) -> None:
    service = start_service(SAMPLE, OTEL_EXPORTER_OTLP_ENDPOINT=collected.url)
    httpx.get(f"{service.url}/outgoing")  # No incoming trace: one begins here.
    line = service.wait_for_line("GET /outgoing 200")
    service.stop()
    assert f"trace_id={collected.otlp[0]['traceId']}" in line


def test_each_outage_of_the_collector_is_logged_once(start_service: StartService) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    service = start_service(
        SAMPLE,
        LOG_FORMAT="json",
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}",
        OTEL_BSP_SCHEDULE_DELAY=50,  # Milliseconds from a span to its export.
    )

    levels: list[str] = []

    def lines() -> list[str]:
        events = [json.loads(line) for line in list(service.lines)]
        return [event["level"] for event in events if str(port) in event["message"]]

    def export_until_logged(level: str) -> None:
        levels.append(level)
        wait(lambda: client.get("/items/1").is_success and lines() == levels, f"a line: {levels}")
        for _ in range(200):  # Several exports of the same outcome.
            client.get("/items/1")
        assert lines() == levels

    with httpx.Client(base_url=service.url) as client:
        export_until_logged("WARNING")
        for _ in range(2):
            with collector(port) as made:
                export_until_logged("INFO")
                assert made.otlp
            export_until_logged("WARNING")
