"""The graph of calls as SVG."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from lab.observe.graph import Edge, Key, key, milliseconds, percent

_WIDTH, _HEIGHT = 240, 46
_COLUMN, _ROW, _MARGIN = 490, 90, 30
_STYLE = """
text { font: 14px system-ui, sans-serif; fill: #1f2933; }
.label { font-size: 12px; paint-order: stroke; stroke: #ffffff; stroke-width: 4px; }
.node { fill: #eef3f8; stroke: #2f6fa7; stroke-width: 1.5; }
.call { fill: none; stroke: #2f6fa7; stroke-width: 1.8; }
.failing { stroke: #b3261e; }
"""


def picture(found: Sequence[Edge], rate: Mapping[Key, float]) -> str:
    """Returns workloads as boxes from left to right, with an arrow and a label for each edge."""
    places = _places(found)
    height = max((y for _, y in places.values()), default=0) + _HEIGHT + 2 * _MARGIN
    width = max((x for x, _ in places.values()), default=0) + _WIDTH + 2 * _MARGIN
    arrows = [_arrow(edge, places, rate.get(key(edge), 0.0)) for edge in found]
    boxes = [_box(name, x, y) for name, (x, y) in places.items()]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}"><title>Who calls whom</title>'
        f'<style>{_STYLE}</style><defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" '
        'markerWidth="8" markerHeight="8" orient="auto"><path d="M0 0 10 5 0 10z" fill="#2f6fa7"/>'
        f'</marker></defs><rect width="100%" height="100%" fill="#ffffff"/>'
        f"{''.join(arrows)}{''.join(boxes)}</svg>\n"
    )


def _places(found: Sequence[Edge]) -> dict[str, tuple[int, int]]:
    """Returns the place of each box: each column is one call further from the start."""
    nodes = list(dict.fromkeys(name for edge in found for name in (edge.source, edge.destination)))
    depth = dict.fromkeys(nodes, 0)
    for _ in nodes:  # As often as the longest path may be; a circle just stops.
        for edge in found:
            if edge.source != edge.destination:
                further = depth[edge.source] + 1
                depth[edge.destination] = min(max(depth[edge.destination], further), len(nodes))
    columns = {column: rank for rank, column in enumerate(sorted(set(depth.values())))}
    filled: dict[int, int] = {}
    places: dict[str, tuple[int, int]] = {}
    for name in sorted(nodes, key=lambda one: (depth[one], one)):
        column = columns[depth[name]]
        row = filled.get(column, 0)
        filled[column] = row + 1
        places[name] = (_MARGIN + column * _COLUMN, _MARGIN + row * _ROW)
    return places


def _box(name: str, x: int, y: int) -> str:
    return (
        f'<rect class="node" x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="6"/>'
        f'<text x="{x + _WIDTH // 2}" y="{y + 28}" text-anchor="middle">{html.escape(name)}</text>'
    )


def _arrow(edge: Edge, places: Mapping[str, tuple[int, int]], rate: float) -> str:
    (x1, y1), (x2, y2) = places[edge.source], places[edge.destination]
    start, end = (x1 + _WIDTH, y1 + _HEIGHT // 2), (x2, y2 + _HEIGHT // 2)
    path = f"M{start[0]} {start[1]}H{start[0] + 16}V{end[1]}H{end[0]}"
    middle = ((start[0] + 16 + end[0]) // 2, end[1])
    if x2 <= x1:  # Back to the left, or to itself: a bow below the boxes.
        start, end = (x1 + _WIDTH // 2, y1 + _HEIGHT), (x2 + _WIDTH // 2 + 20, y2 + _HEIGHT)
        low = max(start[1], end[1]) + 30
        path = f"M{start[0]} {start[1]}V{low}H{end[0]}V{end[1]}"
        middle = ((start[0] + end[0]) // 2, low)
    failing = edge.success is not None and edge.success < 1
    unit = "requests" if edge.requests else "connections"
    first = f"{edge.calls} {unit}, {rate:.1f}/s{', mTLS' if edge.handshakes else ''}"
    second = (
        f"{percent(edge.success)} ok, p50 {milliseconds(edge.latency(0.5))}, "
        f"p99 {milliseconds(edge.latency(0.99))}"
        if edge.requests
        else f"TCP {edge.port}"
    )
    return (
        f'<path class="call{" failing" if failing else ""}" marker-end="url(#head)" '
        f'd="{path}"/>'
        f"{_label(middle[0], middle[1] - 6, first)}{_label(middle[0], middle[1] + 16, second)}"
    )


def _label(x: int, y: int, text: str) -> str:
    return f'<text class="label" x="{x}" y="{y}" text-anchor="middle">{html.escape(text)}</text>'
