"""A real Prometheus reads a lab, and queries of Istio's own Grafana boards show something.

The boards say `irate`, which is zero between two calls; `rate` stands for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.support.lab import Lab
from tests.support.prometheus import Prometheus, require, running
from tests.support.wait import wait

BYTES = """
apiVersion: v1
kind: Service
metadata: {name: bytes}
spec:
  selector: {app: message-service}
  ports: [{name: tcp, port: 7001, targetPort: 9000}]
"""
TO_MESSAGE = 'destination_service="message-service.default.svc.cluster.local"'
FROM_CURL = 'source_workload="curl", source_workload_namespace="default"'
RATE = "round(sum(rate(istio_requests_total{%s}[1m])) by (%s), 0.001) > 0"
TIME = "histogram_quantile(0.99, sum(rate(%s_bucket{%s}[1m])) by (%s, le)) > 0"
SUCCESS = (
    'sum(rate(istio_requests_total{%s, response_code!~"5.."}[1m]))'
    " / sum(rate(istio_requests_total{%s}[1m]))"
)
SOURCE = 'reporter=~"source|waypoint"'
QUERIES = (
    SUCCESS % (SOURCE, SOURCE),
    RATE % (f'reporter=~"source|destination", {TO_MESSAGE}', "source_workload, response_code"),
    RATE
    % (
        f'connection_security_policy="mutual_tls", reporter="destination", {TO_MESSAGE}, '
        'destination_workload="message-service", destination_workload_namespace="default"',
        "destination_workload, destination_workload_namespace, response_code",
    ),
    RATE
    % (
        f'destination_principal=~"spiffe.*", reporter="source", {FROM_CURL}',
        "destination_service, response_code",
    ),
    RATE % ('app="message-service", namespace="default"', "pod"),
    TIME
    % (
        "istio_request_duration_milliseconds",
        f"{SOURCE}, {TO_MESSAGE}",
        "destination_workload, destination_workload_namespace",
    ),
    TIME % ("istio_response_bytes", f'reporter="destination", {TO_MESSAGE}', "source_workload"),
    'sum by (destination_service) (rate(istio_tcp_sent_bytes_total{reporter="source"}[1m])) > 0',
    'sum(istio_tcp_received_bytes_total{reporter="destination"}) by (destination_workload) > 0',
    "sum(istio_tcp_connections_opened_total) by (source_workload)",
)


@pytest.fixture(scope="module")
def prometheus(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    require("prometheus")
    address = urlsplit(json.loads(lab.ok("status", "-o", "json"))["metrics"])
    job = {"job_name": "lab", "static_configs": [{"targets": [f"localhost:{address.port}"]}]}
    lab.apply(BYTES)
    try:
        with running(tmp_path_factory.mktemp("prometheus"), {"scrape_configs": [job]}) as found:
            wait(lambda: found.shows('up{job="lab"} == 1', 1), "Prometheus to scrape the lab")

            def watched() -> bool:
                """Calls, until each kind of them is in two scrapes."""
                for url in ("http://message-service/hello/x", "http://bytes:7001/metrics"):
                    lab.ok("exec", "curl", "--", "curl", "-s", "-o", "/dev/null", url)
                return all(found.query(query) for query in QUERIES)

            wait(watched, "an answer to every query", 30)
            yield found
    finally:
        lab.ok("delete", "service", "bytes")


@pytest.mark.parametrize("query", QUERIES)
def test_every_query_shows_something(prometheus: Prometheus, query: str) -> None:
    series = prometheus.query(query)
    assert series
    assert all(row["value"][1] != "NaN" for row in series), series
