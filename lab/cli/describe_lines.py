"""Lines of `describe`: cells that end with tabs, labels, annotations, times."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from lab.cli.output import Json

Lines = Iterator[str]

LONGEST = 140
"""The length of an annotation beyond which it gets lines of its own."""


def aligned(lines: Sequence[str]) -> str:
    """Returns the text of lines whose cells end with tabs, as Go's tabwriter aligns them.

    Cells of one column in lines that follow each other are as wide as the widest, and two spaces.
    """
    rows = [line.split("\t") for line in lines]
    _align(rows, 0)
    return "\n".join("".join(row) for row in rows)


def _align(rows: Sequence[list[str]], column: int) -> None:
    for has_cell, group in itertools.groupby(rows, lambda row: column < len(row) - 1):
        if has_cell:
            block = list(group)
            _align(block, column + 1)
            width = max(len(row[column]) for row in block) + 2
            for row in block:
                row[column] = row[column].ljust(width)


def titled(title: str, texts: Sequence[str], below: str = "") -> Lines:
    """Yields texts, the first behind their title, the others behind what stands `below` it."""
    first, *others = texts or ["<none>"]
    yield f"{title}:\t{first}"
    yield from (f"{below}\t{text}" for text in others)


def pairs(title: str, values: Mapping[str, str] | None) -> Lines:
    texts = [f"{key}={value}" for key, value in sorted((values or {}).items())]
    yield from titled(title, texts, title[: len(title) - len(title.lstrip())])


def notes(title: str, values: Mapping[str, str] | None) -> Lines:
    texts: list[str] = []
    for key, text in sorted((values or {}).items()):
        value = text.removesuffix("\n")
        if len(key) + len(value) + 2 > LONGEST or "\n" in value:
            texts += [f"{key}:", *(f"  {_short(line)}" for line in value.split("\n"))]
        else:
            texts.append(f"{key}: {value}")
    yield from titled(title, texts)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST - 2 else text[: LONGEST - 2] + "..."


def time(stamp: str) -> str:
    """Returns a timestamp as Go's RFC1123Z has it."""
    if not stamp:
        return "Mon, 01 Jan 0001 00:00:00 +0000"
    when = datetime.strptime(stamp, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    return when.strftime("%a, %d %b %Y %H:%M:%S +0000")


def head(item: Json, *between: str) -> Lines:
    metadata = item["metadata"]
    yield f"Name:\t{metadata['name']}"
    if item["kind"] != "Namespace":
        yield f"Namespace:\t{metadata.get('namespace', '')}"
    yield from between
    yield from pairs("Labels", metadata.get("labels"))
    yield from notes("Annotations", metadata.get("annotations"))


def controller(item: Json) -> Lines:
    for owner in item["metadata"].get("ownerReferences", ()):
        yield f"Controlled By:\t{owner['kind']}/{owner['name']}"
