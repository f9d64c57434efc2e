"""The pages of the Zipkin stand-in: the latest traces, and one trace as a timeline."""

from __future__ import annotations

import html
from collections.abc import Sequence
from datetime import UTC, datetime
from urllib.parse import quote

from lab.standins.zipkin_store import Span, Store, key_of, start_of

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; padding: .25rem .6rem; vertical-align: top; }
tr:nth-child(even) { background: #f4f6f8; }
.number { text-align: right; white-space: nowrap; }
.bar { position: relative; height: 1.1rem; margin-top: .2rem; background: #e8ecf0; }
.bar span { position: absolute; height: 100%; min-width: 2px; background: #2f6fa7; }
.bar .error { background: #b3261e; }
.kind { color: #586069; }
code { font-size: 90%; overflow-wrap: anywhere; }
.line { width: 45%; }
summary { cursor: pointer; }
"""


def page(title: str, body: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>"
        f'<body><h1>{html.escape(title)}</h1>{body}<p><a href="/zipkin/">All traces</a></p>'
        "</body></html>"
    )


def _milliseconds(duration: int) -> str:
    return f"{duration / 1000:.1f} ms"


def _clock(timestamp: int) -> str:
    return datetime.fromtimestamp(timestamp / 1e6, UTC).strftime("%H:%M:%S.%f")[:-3]


def _length(spans: Sequence[Span]) -> int:
    start = start_of(spans)
    return max((span.timestamp + span.duration - start for span in spans), default=0)


def _failed(span: Span) -> bool:
    status = span.tags.get("http.status_code", "")
    return "error" in span.tags or status.startswith("5")


def index(store: Store, service: str) -> str:
    links = [
        '<a href="/zipkin/">all</a>',
        *(
            f'<a href="/zipkin/?serviceName={quote(name)}">{html.escape(name)}</a>'
            for name in store.services()
        ),
    ]
    rows = []
    for spans in store.find(service=service, limit=100):
        root = _ordered(spans)[0][1]
        names = ", ".join(sorted({span.service for span in spans if span.service}))
        failed = " (failed)" if any(_failed(span) for span in spans) else ""
        rows.append(
            f"<tr><td>{_clock(start_of(spans))}</td>"
            f'<td><a href="/zipkin/traces/{key_of(root.trace_id)}">'
            f"{html.escape(_label(root))}</a>{failed}</td>"
            f"<td>{html.escape(names)}</td><td class=number>{len(spans)}</td>"
            f"<td class=number>{_milliseconds(_length(spans))}</td></tr>"
        )
    head = (
        "<tr><th>Start (UTC)</th><th>Root</th><th>Services</th>"
        "<th class=number>Spans</th><th class=number>Duration</th></tr>"
    )
    empty = "" if rows else "<p>No traces yet: send a request through the mesh.</p>"
    return page(
        "Traces", f"<p>Service: {' · '.join(links)}</p><table>{head}{''.join(rows)}</table>{empty}"
    )


def _label(span: Span) -> str:
    method = span.tags.get("http.method", "")
    return f"{span.service} {method} {span.name}".replace("  ", " ").strip()


def _ordered(spans: Sequence[Span]) -> list[tuple[int, Span]]:
    """Each span with its depth, children after their parents by their start.

    A span whose parent nobody has reported stands at the top.
    """
    known = {span.id for span in spans}
    children: dict[str | None, list[Span]] = {}
    for span in sorted(spans, key=lambda one: (one.timestamp, one.kind == "SERVER")):
        parent = span.parent_id if span.parent_id in known and span.parent_id != span.id else None
        children.setdefault(parent, []).append(span)
    result: list[tuple[int, Span]] = []
    seen: set[int] = set()
    # Spans in a circle have no top; each of them is one, then.
    waiting = [(0, span) for span in (*children.get(None, ()), *spans)][::-1]
    while waiting:
        depth, span = waiting.pop()
        if id(span) not in seen:
            seen.add(id(span))
            result.append((depth, span))
            waiting += [(depth + 1, child) for child in reversed(children.get(span.id, []))]
    return result


def trace(spans: Sequence[Span]) -> str:
    start, length = start_of(spans), max(_length(spans), 1)
    rows = []
    for depth, span in _ordered(spans):
        left = 100 * (span.timestamp - start) / length if span.timestamp else 0
        width = 100 * span.duration / length
        tags = "".join(
            f"<li><code>{html.escape(name)}</code> {html.escape(value)}</li>"
            for name, value in sorted(span.tags.items())
        )
        status = span.tags.get("http.status_code", "")
        colour = "error" if _failed(span) else ""
        rows.append(
            f'<tr><td class=what style="padding-left:{0.6 + depth * 1.2}rem">'
            f"<details><summary>{html.escape(_label(span))} {html.escape(status)} "
            f"<span class=kind>{html.escape((span.kind or '').lower())}</span></summary>"
            f"<ul>{tags}</ul></details></td>"
            f'<td class=line><div class=bar><span class="{colour}" '
            f'style="left:{left:.2f}%;width:{width:.2f}%"></span></div></td>'
            f"<td class=number>{_milliseconds(span.duration)}</td></tr>"
        )
    trace_id = key_of(spans[0].trace_id)
    summary = (
        f"<p><code>{trace_id}</code>, {_clock(start)} UTC, {_milliseconds(length)}, "
        f'{len(spans)} spans (<a href="/api/v2/trace/{trace_id}">JSON</a>)</p>'
    )
    return page(_label(_ordered(spans)[0][1]), f"{summary}<table>{''.join(rows)}</table>")
