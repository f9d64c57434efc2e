"""The graph of calls, from the statistics of real Envoys, whose cluster names have dots."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator

import pytest

from lab.observe import graph
from lab.observe.graph_svg import picture
from tests.support import harness
from tests.support.secured import get, mesh, talk
from tests.support.wait import wait


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[harness.Mesh]:
    with mesh(tmp_path_factory.mktemp("mesh")) as made:
        yield made


def edges(secured: harness.Mesh, name: str) -> list[graph.Edge]:
    running = secured.pods[name]
    text = running.admin.get(
        "/stats", format="json", histogram_buckets="detailed", filter=graph.STATS
    )
    source = graph.workload(running.pod.labels, name, running.pod.namespace)
    return graph.edges(source, json.loads(text), gateway=False)


def test_calls_errors_and_latency_are_counted(secured: harness.Mesh) -> None:
    secured.calm()
    server = secured.pods["message"].server
    assert server is not None
    assert edges(secured, "ui") == []
    for status in (200, 200, 200, 500):
        server.status = status
        assert get(secured).status_code == status
    assert b"200 OK" in talk(secured, "ui", "store")
    # Envoy adds up its latencies every few seconds.
    wait(lambda: any(edge.latencies for edge in edges(secured, "ui")))
    found = graph.merged(edges(secured, "ui"))
    assert [graph.key(edge) for edge in found] == [("ui", "message", 80), ("ui", "store", 7000)]
    message, store = found
    assert (message.protocol, message.calls, message.success) == ("HTTP", 4, 0.75)
    assert message.latency(0.99) is not None
    assert (store.protocol, store.calls, store.success) == ("TCP", 1, None)
    assert message.handshakes
    assert store.handshakes
    row = graph.rows(found, graph.rates([], found, 2.0))[0]
    assert row[:7] == ["ui", "message", "80", "HTTP", "4", "2.0/s", "75%"]
    assert row[-1] == "mTLS"
    labels = [text.text for text in ET.fromstring(picture(found, {})).iter() if text.text]
    assert {"ui", "message", "store"} <= set(labels)
    assert any("4 requests" in text and "mTLS" in text for text in labels)


def test_a_proxy_that_restarted_has_no_negative_rate() -> None:
    before = [graph.Edge("a", "b", 80, requests=10)]
    after = [graph.Edge("a", "b", 80, requests=4)]
    assert graph.rates(before, after, 2.0) == {("a", "b", 80): 0}


def test_one_failure_in_ten_thousand_is_not_rounded_away() -> None:
    assert graph.percent(0.9999) == "99.9%"
    assert graph.percent(1.0) == "100%"
