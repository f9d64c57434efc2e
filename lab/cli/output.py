"""Text on standard output and standard error: tables, YAML, ages, names of objects."""

from __future__ import annotations

import io
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

Json = dict[str, Any]
Row = list[str]

_STYLES = {
    "Running": "green",
    "Pending": "yellow",
    "Terminating": "yellow",
    "CrashLoopBackOff": "red",
    "CreateContainerConfigError": "red",
    "Error": "red",
    "StartError": "red",
    "Warning": "yellow",
}
"""Colours of cells on a terminal."""


def write(text: str, *, end: str = "\n") -> None:
    """Writes to the present `sys.stdout`, which may have been redirected."""
    sys.stdout.write(text + end)


def write_now(text: str, *, end: str = "\n") -> None:
    """Writes and flushes: a reader of a pipe would wait for it."""
    write(text, end=end)
    sys.stdout.flush()


def warn(text: str) -> None:
    """Writes to standard error, in yellow on a terminal."""
    colour = sys.stderr.isatty()
    sys.stderr.write(f"\033[33mWarning:\033[0m {text}\n" if colour else f"Warning: {text}\n")


def age(stamp: str) -> str:
    """Returns the time since a timestamp in kubectl's form: 12s, 4m38s, 5h12m, 2d3h."""
    if not stamp:
        return "<unknown>"
    then = datetime.strptime(stamp, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    return duration(max(0, int((datetime.now(UTC) - then).total_seconds())))


def duration(seconds: int) -> str:
    """Returns a duration as kubectl rounds it: the longer, the coarser."""
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return _two(minutes, "m", seconds % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    return _two(days, "d", hours % 24, "h") if days < 8 else f"{days}d"


def _two(first: int, unit: str, second: int, smaller: str) -> str:
    return f"{first}{unit}{second}{smaller}" if second else f"{first}{unit}"


def columns(header: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """Returns the lines of a table, the header's first; coloured on a terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 3, 0, 0), header_style="bold")
    for title in header:
        table.add_column(Text(title), no_wrap=True)
    for cells in rows:
        table.add_row(*(Text(cell, _STYLES.get(cell, "")) for cell in cells))
    console = Console(width=10_000, force_terminal=sys.stdout.isatty(), file=io.StringIO())
    with console.capture() as captured:
        console.print(table)
    return [line.rstrip() for line in captured.get().splitlines()]


def few(texts: Sequence[str]) -> str:
    """Returns the first three texts, and how many more there are; empty without one."""
    more = f" + {len(texts) - 3} more..." if len(texts) > 3 else ""
    return ",".join(texts[:3]) + more


def selector(labels: Mapping[str, str] | None) -> str:
    """Returns labels as kubectl prints them, in the order of their names: `app=ui,version=1.0`."""
    return ",".join(f"{key}={value}" for key, value in sorted((labels or {}).items())) or "<none>"


def reference(item: Json) -> str:
    """Returns `pod/ui-...`, `deployment.apps/ui`."""
    group = item["apiVersion"].rpartition("/")[0]
    kind = item["kind"].lower()
    name = item["metadata"]["name"]
    return f"{kind}.{group}/{name}" if group else f"{kind}/{name}"


def yaml_text(value: Any) -> str:
    """Returns YAML as kubectl prints it, without the end of its last line."""
    from lab.resources.document import written

    return written(value).removesuffix("\n")


def for_lab(folder: Path, words: str) -> str:
    """Returns the command for the lab of a state folder, as it is typed in any terminal."""
    from lab.cluster.state import usual_folder

    return (
        f"guestbook {words}"
        if folder == usual_folder()
        else f"guestbook --state {shlex.quote(str(folder))} {words}"
    )


def short_path(path: Path) -> str:
    """Returns a path as it is typed here: relative when it is below the working directory."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
