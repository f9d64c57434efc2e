"""The graph of calls between workloads, from the requests that proxies report."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lab.observe import flags
from lab.observe.requests import UNKNOWN, Request, Workload

OUTSIDE = "(outside)"

_DENIED = "RBAC"

EARLY = "before it was ready"
"""The problem of calls that the server refused before its pod was ready for the first time.
They are not among the calls of the edge: any start of a mesh has some."""

_TELEMETRY = ("/api/v2/spans", "/v1/traces", "/v1/metrics", "/v1/logs", "/opentelemetry.proto.")
"""Paths of reports to a collector, which are no calls of the application."""


@dataclass(slots=True)
class Edge:
    """The calls from one workload to another, or to a host."""

    source: str
    destination: str
    protocol: str
    """`HTTP` or `TCP`."""
    port: int = 0
    calls: int = 0
    """Requests; of TCP, connections that were open."""
    failures: int = 0
    """Requests with a status from 400 up or without an answer; connections that failed."""
    durations: list[float] = field(default_factory=list)
    """Milliseconds of each request, as the caller saw it."""
    problems: Counter[str] = field(default_factory=Counter)
    """Statuses from 400 up and flags, `503 FI`, with the number of calls that had them; `retried`,
    the calls with more than one try; and EARLY."""
    mutual_tls: int = 0
    """The calls that had it."""
    early: int = 0
    """Connections with the problem EARLY that the caller's proxy counts among its calls."""

    @property
    def success(self) -> float:
        """The share of calls that did not fail."""
        # A denial may be seen when the call is not: it is older than the time to look back.
        return max(0.0, 1 - self.failures / self.calls) if self.calls else 0.0

    def latency(self, quantile: float) -> float | None:
        """Returns a quantile (0 to 1) of the durations, in milliseconds."""
        if not self.durations:
            return None
        ordered = sorted(self.durations)
        return ordered[max(0, math.ceil(quantile * len(ordered)) - 1)]


def edges(requests: Iterable[Request]) -> list[Edge]:
    """Returns the edges; those from outside come first.

    A caller with a proxy is believed about its calls, and the other side about why it refused one;
    a caller without a proxy is seen by the other side alone.
    """
    found: dict[tuple[str, str, str], Edge] = {}
    connections: dict[tuple[str, int], Request] = {}
    answered = refused(requests := [one for one in requests if not _telemetry(one)])
    for request in requests:
        if request.kind == "tcp":
            connections[request.proxy.pod, request.connection] = request
            continue
        if request.reporter == "source" or not request.source.meshed:
            reason = answered.get((request.request_id, request.destination.pod), request)
            _add(found, request, flags.names(reason), early=reason.early)
            if request.entering:
                _add(found, request, (), inbound=True)
    for connection in connections.values():
        reasons = flags.names(connection)
        if connection.reporter == "source" or not connection.source.meshed or reasons:
            _add(found, connection, reasons, early=connection.early)
    for edge in found.values():
        # The caller's report may be older than the time to look back.
        edge.calls = max(0, edge.calls - edge.early)
    return sorted(
        found.values(),
        key=lambda edge: (edge.source != OUTSIDE, edge.source, edge.destination, edge.port),
    )


def refused(requests: Iterable[Request]) -> dict[tuple[str, str], Request]:
    """Returns the requests that the server's proxy answered, by their id and pod."""
    return {
        (one.request_id, one.destination.pod): one
        for one in requests
        if one.reporter == "destination"
        and one.request_id
        and one.details != "via_upstream"
        and one.code
        and "DC" not in one.flags  # A try that its caller gave up.
    }


def _telemetry(request: Request) -> bool:
    return request.method == "POST" and request.path.startswith(_TELEMETRY)


def _add(
    found: dict[tuple[str, str, str], Edge],
    request: Request,
    reasons: tuple[str, ...],
    *,
    inbound: bool = False,
    early: bool = False,
) -> None:
    source, destination = node(request.source), called(request)
    if inbound:
        source, destination = OUTSIDE, source
    protocol = "HTTP" if request.kind == "http" else "TCP"
    key = source, destination, protocol
    edge = found.setdefault(key, Edge(*key))
    if not inbound:
        edge.port = request.port or edge.port
        edge.mutual_tls += request.mutual_tls
    if request.kind == "tcp" and request.reporter == "destination" and request.source.meshed:
        # Its proxy has counted the call, as a success: the connection reached the server's proxy.
        if early:
            edge.early += 1
            edge.problems[EARLY] += 1
            return
        edge.failures += any(reason != "DC" for reason in reasons)
        edge.problems.update(
            reason if reason == _DENIED else f"{reason} at the server" for reason in reasons
        )
        return
    status = ""
    if request.kind == "http":
        failed = not 0 < request.code < 400 or request.grpc_status not in ("", "0")
        status = str(request.code) if failed and request.code else ""
    else:
        failed = any(reason != "DC" for reason in reasons)
    if failed and early:
        edge.problems[EARLY] += 1
        return
    edge.calls += 1
    edge.failures += failed
    if request.kind == "http":
        edge.durations.append(request.duration)
    if problem := " ".join([status, *reasons] if status else reasons):
        edge.problems[problem] += 1
    if request.kind == "http" and request.attempts > 1 and not inbound:
        edge.problems["retried"] += 1


def node(end: Workload) -> str:
    """Returns the name of a workload in the graph: its app, with a namespace but `default`."""
    if end.service == UNKNOWN:
        return OUTSIDE
    return end.service if end.namespace == "default" else f"{end.service}.{end.namespace}"


def called(request: Request) -> str:
    """Returns the name of what was called: its host in short, or its app."""
    if request.destination.service != UNKNOWN and not request.service.endswith(".local"):
        return node(request.destination)
    return request.service.removesuffix(".svc.cluster.local").removesuffix(".default")


def as_json(found: Iterable[Edge], seconds: float) -> list[dict[str, Any]]:
    """Returns the edges for `-o json`: latencies in milliseconds, the rate in calls a second."""
    return [
        {
            "source": edge.source,
            "destination": edge.destination,
            "port": edge.port,
            "protocol": edge.protocol,
            "calls": edge.calls,
            "rate": round(edge.calls / seconds, 2),
            "success": edge.success,
            "p50": edge.latency(0.5),
            "p99": edge.latency(0.99),
            "mtls": bool(edge.mutual_tls),
            "problems": dict(edge.problems),
        }
        for edge in found
    ]


HEADER = (
    *("SOURCE", "DESTINATION", "PORT", "PROTOCOL"),
    *("CALLS", "RATE", "SUCCESS", "P50", "P99", "TLS", "PROBLEMS"),
)


def rows(found: Iterable[Edge], seconds: float) -> list[list[str]]:
    """Returns the cells of the terminal's table."""
    return [
        [
            edge.source,
            edge.destination,
            str(edge.port or "-"),
            edge.protocol,
            str(edge.calls),
            f"{edge.calls / seconds:.1f}/s",
            percent(edge.success) if edge.calls or edge.failures else "-",
            milliseconds(edge.latency(0.5)),
            milliseconds(edge.latency(0.99)),
            "mTLS" if edge.mutual_tls else "-",
            problems(edge.problems) or "-",
        ]
        for edge in found
    ]


def problems(found: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ×{count}" for name, count in Counter(found).most_common())


def percent(share: float) -> str:
    # Never rounded up to 100 %: one failure in ten thousand is a failure.
    return f"{100 if share == 1 else min(round(share * 100, 1), 99.9):g}%"


def milliseconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}ms" if value < 100 else f"{value:.0f}ms"
