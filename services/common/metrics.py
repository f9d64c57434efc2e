"""The metrics of every service, in Prometheus' default registry."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from prometheus_client import Counter, Histogram, Info, disable_created_metrics

from services.common.settings import CommonSettings

_METHODS = frozenset(
    ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE")
)
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

Record = Callable[[str, str, int, float], None]


@cache
def http_recorder() -> Record:
    """Returns a function that counts a request: method, route template, status, seconds."""
    disable_created_metrics()  # type: ignore[no-untyped-call]
    labels = ("method", "route", "status")
    requests = Counter("http_requests_total", "HTTP requests answered.", labels)
    durations = Histogram(
        "http_request_duration_seconds",
        "Time from a request's head to the end of its answer.",
        labels,
        buckets=_BUCKETS,
    )

    @cache  # Looking up a labelled child costs more than counting; the label sets are few.
    def children(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
        values = (method, route, str(status))
        return requests.labels(*values), durations.labels(*values)

    def record(method: str, route: str, status: int, seconds: float) -> None:
        counter, histogram = children(method if method in _METHODS else "other", route, status)
        counter.inc()
        histogram.observe(seconds)

    return record


@cache
def _backend_calls() -> Counter:
    return Counter(
        "backend_calls_total", "Calls of other services and of databases.", ("backend", "outcome")
    )


@cache
def backend_counter(backend: str, outcome: str) -> Counter:
    """Returns the counter of a back end's calls with this outcome.

    Outcomes: ok, refused, error, timeout, unreachable, unreadable.
    """
    return _backend_calls().labels(backend, outcome)


@cache
def build_info() -> Info:
    """Returns the metric `build_info`."""
    return Info("build", "The running version.")


def set_build_info(settings: CommonSettings) -> None:
    """Publishes the running service, its version and its host as `build_info`."""
    build_info().info(
        {
            "service": settings.otel_service_name,
            "version": settings.demo_version,
            "hostname": settings.hostname,
        }
    )
