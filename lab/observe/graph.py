"""The calls between workloads, from the statistics of each caller's proxy about its clusters."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

OUTSIDE = "(outside)"
STATS = (
    r"^(cluster\.(outbound|PassthroughCluster|BlackHoleCluster)|http\.outbound_).*"
    r"(upstream_rq_(completed|5xx|time)|upstream_cx_total|ssl\.handshake|"
    r"downstream_rq_(completed|5xx|time))$"
)
"""The statistics that `edges` reads, as the admin interface filters them."""

_NAME = re.compile(r"^(cluster|http)\.(.+?);?\.((?:up|down)stream_\w+|ssl\.handshake)$")

Bins = Counter[tuple[float, float]]
"""Numbers of latencies by the lower bound and the width of their bin, in milliseconds."""


@dataclass(frozen=True, slots=True)
class Edge:
    """The calls from one workload to one host's port, as the callers' proxies count them."""

    source: str
    destination: str
    port: int
    requests: int = 0
    errors: int = 0
    """Answers with a 5xx status, also those that the caller's proxy gave itself."""
    connections: int = 0
    handshakes: int = 0
    latencies: Bins = field(default_factory=Counter)

    @property
    def protocol(self) -> str:
        return "HTTP" if self.requests else "TCP"

    @property
    def calls(self) -> int:
        """Requests, or connections where there are no requests."""
        return self.requests or self.connections

    @property
    def success(self) -> float | None:
        """The share of requests without a 5xx answer; None for TCP."""
        return 1 - self.errors / self.requests if self.requests else None

    def latency(self, quantile: float) -> float | None:
        """Returns a quantile (0 to 1) of the time to the complete answer, in milliseconds."""
        total = sum(self.latencies.values())
        if not total:
            return None
        rank, passed = quantile * total, 0
        for (lower, width), count in sorted(self.latencies.items()):
            if passed + count >= rank:
                return lower + width * (rank - passed) / count
            passed += count
        return None


Key = tuple[str, str, int]
"""Source, destination and port of an edge."""


def key(edge: Edge) -> Key:
    return edge.source, edge.destination, edge.port


def workload(labels: Mapping[str, str], name: str, namespace: str) -> str:
    """Returns the name of a caller: its app, with the namespace unless that is `default`."""
    app = labels.get("service.istio.io/canonical-name") or labels.get("app") or name
    return app if namespace == "default" else f"{app}.{namespace}"


def _destination(cluster: str) -> tuple[str, int]:
    parts = cluster.split("|")
    if len(parts) != 4:
        return cluster, 0
    host = parts[3]
    short = host.removesuffix(".svc.cluster.local").removesuffix(".default")
    return short, int(parts[1])


def edges(source: str, stats: Mapping[str, Any], *, gateway: bool) -> list[Edge]:
    """Returns the edges in one proxy's `/stats?format=json&histogram_buckets=detailed`."""
    found: dict[Key, dict[str, Any]] = {}
    for name, value in _values(stats):
        match = _NAME.match(name)
        if match is None or match[2].endswith((".external", ".internal")):
            continue
        kind, owner, stat = match.groups()
        if kind == "http":
            if not gateway:
                continue
            ends = (OUTSIDE, source, int(owner.rpartition("_")[2] or 0))
        else:
            ends = (source, *_destination(owner))
        field_name = _FIELDS[stat]
        entry = found.setdefault(ends, {})
        entry[field_name] = entry.get(field_name, Counter() if field_name == "latencies" else 0)
        entry[field_name] += value
    made = (Edge(*ends, **fields) for ends, fields in found.items())
    return [edge for edge in made if edge.requests or edge.connections]


_FIELDS = {
    "upstream_rq_completed": "requests",
    "upstream_rq_5xx": "errors",
    "upstream_rq_time": "latencies",
    "upstream_cx_total": "connections",
    "ssl.handshake": "handshakes",
    "downstream_rq_completed": "requests",
    "downstream_rq_5xx": "errors",
    "downstream_rq_time": "latencies",
}


def _values(stats: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    for item in stats.get("stats", []):
        if "histograms" in item:
            for histogram in item["histograms"].get("details", []):
                bins: Bins = Counter()
                for one in histogram["totals"]:
                    bins[one["lower_bound"], one["width"]] += one["count"]
                yield histogram["name"], bins
        elif isinstance(item.get("value"), int) and item["name"].endswith(tuple(_FIELDS)):
            yield item["name"], item["value"]


def merged(found: Iterable[Edge]) -> list[Edge]:
    """Adds up the same edge of several pods; calls from outside come first."""
    result: dict[Key, Edge] = {}
    for edge in found:
        other = result.get(key(edge))
        result[key(edge)] = edge if other is None else _sum(edge, other)
    return sorted(
        result.values(),
        key=lambda edge: (edge.source != OUTSIDE, edge.source, edge.destination, edge.port),
    )


def _sum(one: Edge, other: Edge) -> Edge:
    return replace(
        one,
        requests=one.requests + other.requests,
        errors=one.errors + other.errors,
        connections=one.connections + other.connections,
        handshakes=one.handshakes + other.handshakes,
        latencies=one.latencies + other.latencies,
    )


def rates(before: Iterable[Edge], after: Iterable[Edge], seconds: float) -> dict[Key, float]:
    """Returns the calls a second of each edge between two times."""
    earlier = {key(edge): edge.calls for edge in before}
    return {
        # Never negative: a proxy that has restarted counts from zero.
        key(edge): max(0, edge.calls - earlier.get(key(edge), 0)) / seconds
        for edge in after
    }


def as_json(found: Iterable[Edge], rate: Mapping[Key, float]) -> list[dict[str, Any]]:
    """Returns the edges for `-o json`: latencies in milliseconds, the rate in calls a second."""
    return [
        {
            "source": edge.source,
            "destination": edge.destination,
            "port": edge.port,
            "protocol": edge.protocol,
            "requests": edge.requests,
            "connections": edge.connections,
            "rate": round(rate.get(key(edge), 0.0), 2),
            "success": edge.success,
            "p50": edge.latency(0.5),
            "p99": edge.latency(0.99),
            "mtls": bool(edge.handshakes),
        }
        for edge in found
    ]


HEADER = (
    *("SOURCE", "DESTINATION", "PORT", "PROTOCOL"),
    *("CALLS", "RATE", "SUCCESS", "P50", "P99", "TLS"),
)


def rows(found: Iterable[Edge], rate: Mapping[Key, float]) -> list[list[str]]:
    """Returns the cells of the terminal's table."""
    return [
        [
            edge.source,
            edge.destination,
            str(edge.port or "-"),
            edge.protocol,
            str(edge.calls),
            f"{rate.get(key(edge), 0.0):.1f}/s",
            percent(edge.success),
            milliseconds(edge.latency(0.5)),
            milliseconds(edge.latency(0.99)),
            "mTLS" if edge.handshakes else "-",
        ]
        for edge in found
    ]


def percent(share: float | None) -> str:
    if share is None:
        return "-"
    # Never rounded up to 100 %: one failure in ten thousand is a failure.
    return f"{int(share * 1000) / 10:g}%"


def milliseconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}ms" if value < 100 else f"{value:.0f}ms"
