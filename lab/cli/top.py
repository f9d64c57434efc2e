"""top: the processor time and memory of pods."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from lab.cli.client import FailureError
from lab.cli.context import AllNamespaces, Namespace, Selector, client, namespace
from lab.cli.output import Json, columns, write

WINDOW = 0.5
"""Seconds over which processor time is measured."""

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def top(
    context: typer.Context,
    kind: Annotated[str, typer.Argument(metavar="pod", show_default=False)],
    name: Annotated[str | None, typer.Argument(metavar="[NAME]")] = None,
    selector: Selector = "",
    all_namespaces: AllNamespaces = False,
    containers: Annotated[bool, typer.Option("--containers", help="A line a container.")] = False,
    sort_by: Annotated[str, typer.Option(help="cpu or memory.")] = "",
    namespace_: Namespace = None,
) -> None:
    """Print what pods use: thousandths of a core, and memory.

    It is that of the processes of their containers, over half a second.

    Examples:
      guestbook top pod
      guestbook top pod -l app=ui --containers
    """
    if kind not in ("pod", "pods", "po"):
        raise FailureError(f"unknown resource {kind!r}: pod")
    if sort_by not in ("", "cpu", "memory"):
        raise FailureError(f"--sort-by {sort_by}: there are cpu and memory")
    where = None if all_namespaces else namespace(context, namespace_)
    names = [name] if name else []
    query = {"kinds": ["pods"], "namespace": where, "names": names, "selector": selector}
    pods: list[Json] = client(context).call("objects", **query)["items"]
    if not pods:
        raise FailureError("no pod matches")
    found = [
        (pod["metadata"], container["name"], int(container["containerID"].rpartition("/")[2]))
        for pod in pods
        for container in _statuses(pod)
        if "containerID" in container
    ]
    used = _usage(pid for _, _, pid in found)
    rows: dict[tuple[str, ...], list[float]] = {}
    for metadata, container, pid in found:
        key = (
            *((metadata["namespace"],) if all_namespaces else ()),
            metadata["name"],
            *((container,) if containers else ()),
        )
        sums = rows.setdefault(key, [0, 0])
        sums[0] += used[pid][0]
        sums[1] += used[pid][1]
    ordered = sorted(rows.items())
    if sort_by:
        ordered.sort(key=lambda row: -row[1][sort_by == "memory"])
    write(
        "\n".join(
            columns(
                [
                    *(["NAMESPACE"] if all_namespaces else []),
                    *(["POD", "NAME"] if containers else ["NAME"]),
                    "CPU(cores)",
                    "MEMORY(bytes)",
                ],
                [
                    [*key, f"{1000 * cpu:.0f}m", f"{memory / 2**20:.0f}Mi"]
                    for key, (cpu, memory) in ordered
                ],
            )
        )
    )


def _statuses(pod: Json) -> list[Json]:
    status = pod["status"]
    return [*status.get("containerStatuses", ()), *status.get("initContainerStatuses", ())]


def _usage(pids: Iterable[int]) -> dict[int, tuple[float, int]]:
    """Returns the cores and the bytes that each process uses, with those it started."""
    wanted = list(pids)
    before = _processes()
    began = time.monotonic()
    time.sleep(WINDOW)
    after = _processes()
    elapsed = time.monotonic() - began
    used = {}
    for pid in wanted:
        tree = _tree(pid, after)
        ticks = sum(after[one][1] - before[one][1] for one in tree if one in before)
        used[pid] = (ticks / _TICKS / elapsed, sum(after[one][2] * _PAGE for one in tree))
    return used


def _processes() -> dict[int, tuple[int, int, int]]:
    """Returns the parent, the ticks and the resident pages of each process."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        found[int(path.parent.name)] = (
            int(fields[1]),
            int(fields[11]) + int(fields[12]),
            int(fields[21]),
        )
    return found


def _tree(pid: int, processes: dict[int, tuple[int, int, int]]) -> list[int]:
    found = [pid] if pid in processes else []
    for one in found:
        found += [child for child, (parent, _, _) in processes.items() if parent == one]
    return found
