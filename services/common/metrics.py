"""The metrics of every service, in Prometheus' default registry."""

from functools import cache

from prometheus_client import Counter, Histogram, Info, disable_created_metrics

UNMATCHED = "unmatched"
"""Route label of a path without a route: a client must not be able to make new series."""

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE")
_LABELS = ("method", "route", "status")
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_DURATION = "http_request_duration_seconds"
_TIME = "Time from a request's head to the end of its answer."

disable_created_metrics()  # type: ignore[no-untyped-call]
build_info = Info("build", "The running version.")
_requests = Counter("http_requests_total", "HTTP requests answered.", _LABELS)
_durations = Histogram(_DURATION, _TIME, _LABELS, buckets=_BUCKETS)
_calls = Counter(
    "backend_calls_total", "Calls of other services and of databases.", ("backend", "outcome")
)


def record_request(method: str, route: str, status: int, seconds: float) -> None:
    """Counts and times a request, by the template of its route."""
    requests, durations = _http(method if method in _METHODS else "other", route, status)
    requests.inc()
    durations.observe(seconds)


@cache
def backend_counter(backend: str, outcome: str) -> Counter:
    """Returns the counter of a back end's calls with this outcome.

    Outcomes: ok, refused, error, timeout, unreachable, unreadable.
    """
    return _calls.labels(backend, outcome)


@cache  # Looking up a labelled child costs more than counting; the label sets are few.
def _http(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    values = (method, route, str(status))
    return _requests.labels(*values), _durations.labels(*values)
