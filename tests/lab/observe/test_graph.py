"""The graph of calls: which reports make which edge, and a picture in which nothing overlaps."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET
from collections import Counter

import pytest

from lab.observe import graph
from lab.observe.graph import OUTSIDE, Edge
from lab.observe.graph_svg import picture
from tests.support.reports import BARE, GATEWAY, MESSAGE, request


def test_both_views_of_a_call_are_one_call() -> None:
    seen = request(duration=5000.0, flags=("DI",))
    (edge,) = graph.edges([seen, request(reporter="destination", duration=3.0)])
    assert (edge.source, edge.destination, edge.calls, edge.success) == ("ui", "message", 1, 1.0)
    assert edge.latency(0.99) == 5000.0
    assert edge.problems == {"DI": 1}


def test_a_refusal_is_told_by_the_proxy_that_refused() -> None:
    server = request(reporter="destination", code=403, details="rbac_access_denied_matched_policy")
    (edge,) = graph.edges([request(code=403), server])
    assert (edge.calls, edge.failures, edge.problems) == (1, 1, {"403 RBAC": 1})


def test_a_try_that_the_caller_gave_up_is_no_refusal() -> None:
    server = request(reporter="destination", code=404, details="x", flags=("DC",))
    (edge,) = graph.edges([request(code=404, flags=("URX",)), server])
    assert edge.problems == {"404 URX": 1}


def test_a_caller_without_a_proxy_is_seen_by_the_server() -> None:
    (edge,) = graph.edges([request(reporter="destination", source=BARE)])
    assert (edge.source, edge.calls) == ("curl", 1)


def test_calls_of_a_gateway_came_from_outside() -> None:
    first, second = graph.edges([request(source=GATEWAY, entering=True)])
    assert (first.source, first.destination) == (OUTSIDE, "gw.istio-system")
    assert (second.source, second.destination) == ("gw.istio-system", "message")
    (only,) = graph.edges([request(source=GATEWAY)])
    assert (only.source, only.destination) == ("gw.istio-system", "message")


def test_reports_of_one_connection_are_one_connection() -> None:
    reports = [
        request(kind="tcp", event=event, code=0, connection=number)
        for number in (1, 2)
        for event in ("opened", "open", "open")
    ]
    (edge,) = graph.edges(reports)
    assert (edge.protocol, edge.calls, edge.success, edge.durations) == ("TCP", 2, 1.0, [])


def test_a_connection_that_ends_at_the_servers_proxy_is_no_success() -> None:
    calls = [request(kind="tcp", code=0, connection=number) for number in range(4)]
    ends = [
        request(kind="tcp", code=0, connection=number, reporter="destination", flags=(flag,))
        for number, flag in enumerate(("UF", "DC"))
    ]
    (edge,) = graph.edges([*calls, *ends])
    assert (edge.calls, edge.success) == (4, 0.75)


def test_connections_from_before_the_server_was_ready_are_told_and_no_calls() -> None:
    calls = [request(kind="tcp", code=0, connection=number) for number in range(3)]
    refused = [
        request(
            kind="tcp",
            code=0,
            reporter="destination",
            connection=number,
            flags=("UF", "URX"),
            early=number < 2,
        )
        for number in range(3)
    ]
    (edge,) = graph.edges([*calls, *refused[:2]])
    assert (edge.calls, edge.success, edge.problems) == (1, 1.0, {"before it was ready": 2})
    (edge,) = graph.edges([*calls, *refused])
    assert (edge.calls, edge.success) == (1, 0.0)
    (edge,) = graph.edges(refused[:2])
    assert (edge.calls, edge.problems) == (0, {"before it was ready": 2})
    (edge,) = graph.edges([*calls[:2], *refused[:2]])
    assert "label problem" not in picture([edge], 30).partition("</style>")[2]
    (row,) = graph.rows([edge], 30)
    assert row[graph.HEADER.index("CALLS")] == "0"
    assert row[graph.HEADER.index("SUCCESS")] == "-"


def test_requests_that_failed_before_the_server_was_ready_are_no_calls() -> None:
    ends = {"code": 503, "request_id": "a", "details": "upstream_reset"}
    refused = request(**ends, reporter="destination", flags=("UF",), early=True)
    caller = request(**ends | {"details": "via_upstream"})
    (edge,) = graph.edges([refused, caller])
    assert (edge.calls, edge.durations) == (0, [])
    assert edge.problems == {"before it was ready": 1}


def test_a_server_that_refuses_a_connection_adds_its_reason() -> None:
    caller = request(code=503, flags=("UF",), destination=MESSAGE)
    server = request(kind="tcp", reporter="destination", flags=("NR",), code=0)
    edges = {edge.protocol: edge for edge in graph.edges([caller, server])}
    assert edges["HTTP"].problems == {"503 UF": 1}
    assert edges["TCP"].problems == {"NR at the server": 1}
    assert edges["TCP"].calls == 0


@pytest.mark.parametrize("path", ["/api/v2/spans", "/v1/traces"])
def test_reports_to_a_collector_are_no_calls(path: str) -> None:
    assert graph.edges([request(method="POST", path=path)]) == []


def test_a_connection_that_the_server_denied_failed() -> None:
    caller = request(kind="tcp", code=0)
    server = request(
        kind="tcp", reporter="destination", code=0, termination="rbac_access_denied_matched_policy"
    )
    (edge,) = graph.edges([caller, server])
    assert (edge.calls, edge.success, edge.problems) == (1, 0.0, {"RBAC": 1})


def test_retried_requests_are_counted() -> None:
    (edge,) = graph.edges([request(attempts=3), request()])
    assert (edge.calls, edge.success, edge.problems) == (2, 1.0, {"retried": 1})


def test_shares_are_rounded() -> None:
    assert graph.percent(2 / 3) == "66.7%"


def test_one_failure_in_ten_thousand_is_not_rounded_away() -> None:
    assert graph.percent(0.9999) == "99.9%"
    assert graph.percent(1.0) == "100%"


def edge(source: str, destination: str, protocol: str = "HTTP", **problems: int) -> Edge:
    calls = Counter({name.replace("_", " "): count for name, count in problems.items()})
    return Edge(source, destination, protocol, 80, 12, 1, [5.0, 5004.2], calls, 12)


MANY = [
    edge(OUTSIDE, "istio-ingressgateway.istio-system"),
    edge("istio-ingressgateway.istio-system", "ui"),
    edge("istio-ingressgateway.istio-system", "guestbook-service"),
    edge("ui", "message-service", FI=6, DI=3, UO=2),
    edge("ui", "guestbook-service"),
    edge("ui", "redis", "TCP"),
    edge("ui", "ui"),
    edge("guestbook-service", "mysql", "TCP"),
    edge("message-service", "ui"),
    *(edge("curl", name) for name in ("message-service", "ui", "redis", "mysql", "zipkin")),
]


def test_nothing_in_the_picture_is_over_anything_else() -> None:
    drawn = ET.fromstring(picture(MANY, 30))
    places = []
    for item in drawn.iter():
        kind = item.get("class", "")
        x, y = float(item.get("x", 0)), float(item.get("y", 0))
        if kind == "node":
            places.append((x, y, x + float(item.get("width", 0)), y + float(item.get("height", 0))))
        elif kind.startswith("label"):
            places.append((x, y - 9, x + 6.6 * len(item.text or ""), y + 2))
    assert len(places) == 9 + 3 * len(MANY) + 3
    for (left, top, right, bottom), other in itertools.combinations(places, 2):
        apart = right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top
        assert apart, (left, top, right, bottom, other)
    width, height = float(drawn.get("width", 0)), float(drawn.get("height", 0))
    assert all(x >= 0 and y >= 0 and to < width and low < height for x, y, to, low in places)
