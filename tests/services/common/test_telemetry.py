"""Traces stay whole in both modes: relayed untouched, or continued by exported spans."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.services.common.collector import Collector, attributes, collector
from tests.services.conftest import StartService
from tests.services.process import Service, wait_until

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
    service.stop()  # What is not exported yet is exported at the end.

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


def test_zipkin_spans_are_exported_while_it_runs(
    start_service: StartService, collected: Collector
) -> None:
    service = start_service(SAMPLE, ZIPKIN_ENDPOINT=f"{collected.url}/api/v2/spans")
    httpx.get(f"{service.url}/outgoing", headers=B3_MULTIPLE)
    wait_until(lambda: len(collected.zipkin) == 2, "two spans at Zipkin")
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
