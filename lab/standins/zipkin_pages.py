"""Pages of the Zipkin stand-in: the latest traces, and one trace as a timeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from jinja2 import Environment, PackageLoader

from lab.standins.zipkin_store import Span, Store, key_of, start_of


def _milliseconds(duration: int) -> str:
    return f"{duration / 1000:.1f} ms"


def _clock(timestamp: int) -> str:
    return datetime.fromtimestamp(timestamp / 1e6, UTC).strftime("%H:%M:%S.%f")[:-3]


_TEMPLATES = Environment(
    loader=PackageLoader("lab.standins"), autoescape=True, trim_blocks=True, lstrip_blocks=True
)
_TEMPLATES.filters |= {"milliseconds": _milliseconds, "clock": _clock}


@dataclass(frozen=True, slots=True)
class _Trace:
    id: str
    start: int
    duration: int
    services: Sequence[str]
    failed: bool
    spans: Sequence[tuple[int, Span]]
    """Each span with its depth, in the order of `_ordered`."""

    @property
    def root(self) -> Span:
        return self.spans[0][1]


def _trace(spans: Sequence[Span]) -> _Trace:
    start = start_of(spans)
    return _Trace(
        id=key_of(spans[0].trace_id),
        start=start,
        duration=max(span.timestamp + span.duration - start for span in spans),
        services=sorted({span.service for span in spans if span.service}),
        failed=any(span.failed for span in spans),
        spans=_ordered(spans),
    )


def _ordered(spans: Sequence[Span]) -> list[tuple[int, Span]]:
    """Returns each span with its depth, children after their parents by their start.

    A span whose parent nobody has reported stands at the top.
    """
    known = {span.id for span in spans}
    children: dict[str | None, list[Span]] = {}
    for span in sorted(spans, key=lambda one: (one.timestamp, one.kind == "SERVER")):
        parent = span.parent_id if span.parent_id in known and span.parent_id != span.id else None
        children.setdefault(parent, []).append(span)
    result: list[tuple[int, Span]] = []
    seen: set[int] = set()
    # Spans in a circle have no top: each of them is tried as one.
    waiting = [(0, span) for span in (*children.get(None, ()), *spans)][::-1]
    while waiting:
        depth, span = waiting.pop()
        if id(span) not in seen:
            seen.add(id(span))
            result.append((depth, span))
            waiting += [(depth + 1, child) for child in reversed(children.get(span.id, []))]
    return result


def traces(store: Store, service: str) -> str:
    """Returns the page of the latest traces, of one service or of all."""
    return _TEMPLATES.get_template("traces.html").render(
        title="Traces",
        services=store.services(),
        traces=[_trace(spans) for spans in store.find(service=service, limit=100)],
    )


def trace(spans: Sequence[Span]) -> str:
    """Returns the page of a trace, or that there is none."""
    if not spans:
        return _TEMPLATES.get_template("missing.html").render(title="No such trace")
    found = _trace(spans)
    return _TEMPLATES.get_template("trace.html").render(
        title=found.root.label, trace=found, length=max(found.duration, 1)
    )
