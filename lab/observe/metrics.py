"""Istio's metrics, of the requests that proxies report."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from http.server import HTTPServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from lab.observe.requests import NOBODY, UNKNOWN, Request, Workload

PORT = 15020
"""The port of localhost that a scraper asks, if it is free: that of a sidecar's merged metrics."""

LABELS = (
    "reporter",
    *(
        f"{side}_{label}"
        for side in ("source", "destination")
        for label in (
            *("workload", "workload_namespace", "app", "version"),
            *("canonical_service", "canonical_revision", "cluster", "principal"),
        )
    ),
    *("destination_service", "destination_service_name", "destination_service_namespace"),
    *("request_protocol", "response_flags", "connection_security_policy"),
    *("namespace", "pod", "app"),
)
"""The labels of all metrics; the last three are those that Prometheus gives what it scrapes from a
pod, here those of the pod whose proxy reports."""

ANSWER = ("response_code", "grpc_response_status")
"""Further labels of the metrics of HTTP."""

BUCKETS = (
    *(0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000),
    *(300000, 600000, 1800000, 3600000),
)
"""Upper bounds of Envoy's histograms, in milliseconds or bytes."""

_HISTOGRAMS = {
    "istio_request_duration_milliseconds": "Time to the complete answer, in milliseconds.",
    "istio_request_bytes": "Size of the request's body.",
    "istio_response_bytes": "Size of the answer's body.",
}
_COUNTERS = {
    "istio_tcp_sent_bytes_total": "Bytes sent to the client of a connection.",
    "istio_tcp_received_bytes_total": "Bytes received from the client of a connection.",
    "istio_tcp_connections_opened_total": "Connections opened.",
    "istio_tcp_connections_closed_total": "Connections closed.",
}

_Values = tuple[str, ...]


class _Histogram:
    """The counts of one histogram's buckets, and the sum of its values."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(BUCKETS, value)] += 1
        self.sum += value

    def buckets(self) -> Iterator[tuple[str, float]]:
        total = 0
        for bound, count in zip((*map(str, map(float, BUCKETS)), "+Inf"), self.counts, strict=True):
            total += count
            yield bound, total


class Metrics(Collector):
    """The metrics of a lab since it started."""

    def __init__(self) -> None:
        self._counters: dict[str, dict[_Values, float]] = {name: {} for name in _COUNTERS}
        self._histograms: dict[str, dict[_Values, _Histogram]] = {name: {} for name in _HISTOGRAMS}
        self._series: dict[tuple[object, ...], tuple[_Histogram, ...]] = {}
        self._open: set[tuple[str, int]] = set()

    def add(self, request: Request) -> None:
        """Counts a request, or what is new of a connection."""
        if request.event == "refused":
            return  # No filter of Istio's sees a connection that no filter chain took.
        if request.kind == "tcp":
            self._add_connection(request, _labels(request))
            return
        # To make all labels takes longer than to count.
        key = (
            *(request.source.pod, request.destination.pod, request.reporter, request.service),
            *(request.cluster, request.protocol, request.code, request.flags),
            *(request.grpc_status, request.source_principal, request.destination_principal),
        )
        if (found := self._series.get(key)) is None:
            values = (*_labels(request), str(request.code), request.grpc_status)
            found = tuple(
                each.setdefault(values, _Histogram()) for each in self._histograms.values()
            )
            self._series[key] = found
        duration, received, sent = found
        duration.add(request.duration)
        received.add(request.received)
        sent.add(request.sent)

    def _add_connection(self, request: Request, values: _Values) -> None:
        key = request.proxy.pod, request.connection
        if key not in self._open:
            self._open.add(key)
            self._count("istio_tcp_connections_opened_total", values)
        if request.event == "closed":
            self._open.discard(key)
            self._count("istio_tcp_connections_closed_total", values)
        self._count("istio_tcp_received_bytes_total", values, request.received)
        self._count("istio_tcp_sent_bytes_total", values, request.sent)

    def _count(self, name: str, values: _Values, amount: float = 1) -> None:
        found = self._counters[name]
        found[values] = found.get(values, 0) + amount

    def collect(self) -> Iterator[Metric]:
        """Yields the metrics for Prometheus; another thread may count meanwhile."""
        for name, text in _COUNTERS.items():
            counter = CounterMetricFamily(name, text, labels=LABELS)
            for values, amount in list(self._counters[name].items()):
                counter.add_metric(values, amount)
            yield counter
        requests = CounterMetricFamily(
            "istio_requests_total", "Requests.", labels=(*LABELS, *ANSWER)
        )
        for values, histogram in list(next(iter(self._histograms.values())).items()):
            requests.add_metric(values, sum(histogram.counts))
        yield requests
        for name, text in _HISTOGRAMS.items():
            family = HistogramMetricFamily(name, text, labels=(*LABELS, *ANSWER))
            for values, histogram in list(self._histograms[name].items()):
                family.add_metric(values, list(histogram.buckets()), histogram.sum)
            yield family

    def serve(self, port: int) -> HTTPServer:
        """Answers a scraper on a port of localhost, in a thread, until it is shut down."""
        registry = CollectorRegistry()
        registry.register(self)
        return start_http_server(port, "127.0.0.1", registry)[0]


def _labels(request: Request) -> _Values:
    source, destination = request.source, request.destination
    if not source.meshed:  # It says nothing about itself.
        source = NOBODY
    cluster = request.cluster.partition("_")[0]
    host = request.service
    short = host.partition(".")[0] if host.endswith(".svc.cluster.local") else host
    protocol = "grpc" if request.protocol == "gRPC" else request.kind
    if request.reporter == "source":
        security = UNKNOWN
    else:
        security = "mutual_tls" if request.mutual_tls else "none"
    return (
        request.reporter,
        *_end(source, request.source_principal),
        *_end(destination, request.destination_principal),
        host,
        cluster if cluster.endswith("Cluster") else short,
        request.service_namespace,
        protocol,
        ",".join(request.flags) or "-",
        security,
        request.proxy.namespace,
        request.proxy.pod,
        request.proxy.app,
    )


def _end(end: Workload, principal: str) -> _Values:
    return (
        end.name,
        end.namespace,
        end.app,
        end.version,
        end.service,
        end.revision,
        UNKNOWN if end is NOBODY else "Kubernetes",
        principal or UNKNOWN,
    )
