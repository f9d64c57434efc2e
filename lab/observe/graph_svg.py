"""The graph of calls as SVG: boxes in columns from left to right, labels in columns between them.

Every box, every label and every way of a line past others has a row of its own in its column, and
lines bend only between two columns. So no label is over a box, a line or another label.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from lab.observe.graph import EARLY, Edge, milliseconds, percent, problems

_BOX, _LETTER, _SMALL = 40, 8.6, 6.9
"""Pixels: the height of a box; the width of a letter in a box, and in a label."""
_BEND, _GAP, _MARGIN = 44, 18, 24
"""Pixels between two columns, between two rows, and around it all."""
_LINE = 15
"""The height of a line of a label."""
_PASSES = 6

_STYLE = """
text { font: 14px ui-monospace, "DejaVu Sans Mono", monospace; fill: #1f2933; }
.label { font-size: 11px; }
.problem { fill: #b3261e; }
.node { fill: #eef3f8; stroke: #2f6fa7; stroke-width: 1.5; }
.call { fill: none; stroke: #2f6fa7; stroke-width: 1.8; }
.failing { stroke: #b3261e; }
#head path { fill: #2f6fa7; }
#failing-head path { fill: #b3261e; }
svg { max-width: 100%; height: auto; }
"""


@dataclass(slots=True, eq=False)
class _Item:
    """A box, a label, or a line that passes through a column."""

    column: int
    height: float = 0.0
    width: float = 0.0
    name: str = ""
    above: tuple[str, ...] = ()
    """The lines of a label above the line of its edge."""
    below: tuple[str, ...] = ()
    """Those below, of problems."""
    y: float = 0.0
    """The middle."""
    before: list[_Item] = field(default_factory=list)
    after: list[_Item] = field(default_factory=list)


def picture(found: Sequence[Edge], seconds: float) -> str:
    """Returns workloads as boxes, with an arrow and a label for each edge."""
    if not found:
        return _svg(320, 80, [f'<text x="{_MARGIN}" y="45">No calls</text>'])
    depth = _depths(found)
    boxes = {
        name: _Item(2 * column, _BOX, len(name) * _LETTER + 28, name)
        for name, column in depth.items()
    }
    chains = [(_chain(edge, boxes, seconds), edge) for edge in found]
    columns = _columns(boxes.values(), (item for chain, _ in chains for item in chain))
    _place(columns)
    height = max(item.y + item.height / 2 for column in columns for item in column) + _MARGIN
    widths = [max((item.width for item in column), default=0) for column in columns]
    left = [_MARGIN + sum(widths[:index]) + index * _BEND for index in range(len(columns))]
    right = [start + width for start, width in zip(left, widths, strict=True)]
    parts = [part for chain, edge in chains for part in _line(chain, edge, boxes, left, right)]
    parts += [part for box in boxes.values() for part in _box(box, left[box.column])]
    return _svg(right[-1] + _MARGIN, height, parts)


def _depths(found: Iterable[Edge]) -> dict[str, int]:
    """Returns the column of each workload: one further than each that calls it.

    Calls that would close a circle are left out.
    """
    calls: dict[str, list[str]] = {}
    for edge in found:
        calls.setdefault(edge.source, []).append(edge.destination)
        calls.setdefault(edge.destination, [])
    depth = dict.fromkeys(calls, 0)
    done: list[str] = []

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in done:
            return
        for other in calls[name]:
            if other not in (*path, name):
                visit(other, (*path, name))
        done.append(name)

    for name in calls:
        visit(name, ())
    order = {name: rank for rank, name in enumerate(reversed(done))}
    for name in order:
        for other in calls[name]:
            if order[other] > order[name]:
                depth[other] = max(depth[other], depth[name] + 1)
    return depth


def _chain(edge: Edge, boxes: Mapping[str, _Item], seconds: float) -> list[_Item]:
    """Returns the items that an edge passes from left to right, its label among them."""
    ends = sorted((boxes[edge.source], boxes[edge.destination]), key=lambda box: box.column)
    first, last = ends[0].column + 1, max(ends[1].column, ends[0].column + 2)
    label = _label(edge, seconds, first)
    chain = [label, *(_Item(column, _LINE) for column in range(first + 1, last))]
    for one, other in zip((ends[0], *chain), (*chain, ends[1]), strict=True):
        if one.column < other.column:
            one.after.append(other)
            other.before.append(one)
    return chain


def _label(edge: Edge, seconds: float, column: int) -> _Item:
    what = "requests" if edge.protocol == "HTTP" else "connections"
    first = f"{edge.calls} {what}" + (f", {edge.calls / seconds:.1f}/s" if edge.calls else "")
    kind = ["TCP" + (f" {edge.port}" if edge.port else "")] if edge.protocol == "TCP" else []
    known = [f"{percent(edge.success)} ok"] if edge.calls or edge.failures else []
    second = [*known, *kind, *(["mTLS"] if edge.mutual_tls else [])]
    above = [first, ", ".join(second)]
    if edge.durations:
        p50, p99 = (milliseconds(edge.latency(quantile)) for quantile in (0.5, 0.99))
        above.append(f"p50 {p50}, p99 {p99}")
    below = tuple(problems({name: count}) for name, count in edge.problems.most_common())
    width = max(map(len, (*above, *below))) * _SMALL + 8
    lines = max(len(above), len(below))
    return _Item(column, 2 * lines * _LINE + 6, width, above=tuple(above), below=below)


def _columns(boxes: Iterable[_Item], others: Iterable[_Item]) -> list[list[_Item]]:
    columns: list[list[_Item]] = []
    for item in (*boxes, *others):
        while len(columns) <= item.column:
            columns.append([])
        columns[item.column].append(item)
    return columns


def _place(columns: Sequence[list[_Item]]) -> None:
    """Gives each item its row, near those it is joined with."""
    for column in columns:
        _stack(column)
    for number in range(_PASSES):
        forward = number % 2 == 0
        for column in columns if forward else reversed(columns):
            for item in column:
                near = item.before if forward else item.after
                if near:
                    item.y = sum(other.y for other in near) / len(near)
            column.sort(key=lambda item: item.y)
            _spread(column)
    top = min(item.y - item.height / 2 for column in columns for item in column)
    for column in columns:
        for item in column:
            item.y += _MARGIN - top


def _stack(column: Sequence[_Item]) -> None:
    y = 0.0
    for item in column:
        item.y = y + item.height / 2
        y += item.height + _GAP


def _spread(column: Sequence[_Item]) -> None:
    """Moves items apart until none is over another, around the middle they had."""
    if not column:
        return
    wanted = sum(item.y for item in column) / len(column)
    for upper, lower in pairwise(column):
        lower.y = max(lower.y, upper.y + (upper.height + lower.height) / 2 + _GAP)
    moved = sum(item.y for item in column) / len(column) - wanted
    for item in column:
        item.y -= moved


def _line(
    chain: Sequence[_Item],
    edge: Edge,
    boxes: Mapping[str, _Item],
    left: Sequence[float],
    right: Sequence[float],
) -> Iterable[str]:
    """Yields the arrow of an edge, then its label."""
    source, destination = boxes[edge.source], boxes[edge.destination]
    start, end = sorted((source, destination), key=lambda box: box.column)
    x, y = left[start.column] + start.width, start.y
    path = f"M{x:.0f} {y:.0f}H{right[start.column]:.0f}"
    for item in chain:
        x = left[item.column]
        path += _bend(right[item.column - 1], y, x, item.y) + f"H{right[item.column]:.0f}"
        y = item.y
    if end.column > start.column:
        path += _bend(right[end.column - 1], y, left[end.column], end.y)
    else:  # To itself, or within a column: back around the label.
        last = chain[-1]
        below = last.y + last.height / 2 + _GAP / 2
        path += f"V{below:.0f}H{left[last.column]:.0f}"
        path += _bend(left[last.column], below, left[end.column] + end.width, end.y + 10)
    back = source.column > destination.column
    marker = "marker-start" if back else "marker-end"
    failing = edge.problems.keys() - {EARLY}
    kind, head = ("call failing", "failing-head") if failing else ("call", "head")
    yield f'<path class="{kind}" {marker}="url(#{head})" d="{path}"/>'
    label = chain[0]
    x = left[label.column] + 4
    for index, text in enumerate(reversed(label.above)):
        yield _text(x, label.y - 6 - index * _LINE, text, "label")
    for index, text in enumerate(label.below):
        shown = "label" if text.startswith(EARLY) else "label problem"
        yield _text(x, label.y + 13 + index * _LINE, text, shown)


def _bend(x: float, y: float, to_x: float, to_y: float) -> str:
    middle = (x + to_x) / 2
    return f"C{middle:.0f} {y:.0f} {middle:.0f} {to_y:.0f} {to_x:.0f} {to_y:.0f}"


def _box(box: _Item, x: float) -> Iterable[str]:
    top = box.y - box.height / 2
    yield (
        f'<rect class="node" x="{x:.0f}" y="{top:.0f}" width="{box.width:.0f}" '
        f'height="{box.height:.0f}" rx="6"/>'
    )
    yield _text(x + 14, box.y + 5, box.name, "")


def _text(x: float, y: float, text: str, kind: str) -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text{style} x="{x:.0f}" y="{y:.0f}">{html.escape(text)}</text>'


def _svg(width: float, height: float, parts: Iterable[str]) -> str:
    heads = "".join(
        f'<marker id="{name}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" '
        'markerHeight="8" orient="auto-start-reverse"><path d="M0 0 10 5 0 10z"/></marker>'
        for name in ("head", "failing-head")
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}"><title>Who calls whom</title>'
        f"<style>{_STYLE}</style><defs>{heads}</defs>"
        '<rect width="100%" height="100%" fill="#ffffff"/>'
        f"{''.join(parts)}</svg>\n"
    )
