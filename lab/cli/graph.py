"""graph: the calls between workloads, from the requests that proxies report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from lab.cli.client import Client, FailureError
from lab.cli.context import client
from lab.cli.durations import seconds
from lab.cli.output import columns, write

if TYPE_CHECKING:
    from lab.observe.requests import Request


def graph(
    context: typer.Context,
    output: Annotated[str, typer.Option("--output", "-o", help="table, json or svg.")] = "table",
    since: Annotated[str, typer.Option(help="The time to look back, as 30s or 5m.")] = "30s",
) -> None:
    """Show the calls between workloads: rates, success, latency and problems.

    Each proxy reports every request. PROBLEMS has the statuses from 400 up
    and the flags, which docs/response-flags.md explains, and the calls retried.
    A call that a server refused before it was ready is told there, not counted.

    Examples:
      guestbook graph
      guestbook graph -o svg > graph.svg
      guestbook graph -o json --since 2m
    """
    from lab.observe import graph as graphs
    from lab.observe.graph_svg import picture

    if output not in ("table", "json", "svg"):
        raise FailureError(f"-o {output}: there are table, json and svg")
    window = seconds(since)
    if window <= 0:
        raise FailureError(f"--since {since}: give a time such as 30s")
    found = graphs.edges(requests(client(context), window))
    if output == "json":
        write(json.dumps(graphs.as_json(found, window), indent=2))
    elif output == "svg":
        write(picture(found, window), end="")
    elif not found:
        write(f"No calls in the last {since}: send a request through the gateway.")
    else:
        write("\n".join(columns(graphs.HEADER, graphs.rows(found, window))))


def requests(lab: Client, seconds: float, *, follow: bool = False) -> Iterator[Request]:
    """Yields the requests that the lab has kept, and with `follow` those to come."""
    from lab.observe.requests import from_json

    rest = b""
    for chunk in lab.stream("requests", seconds=seconds, follow=follow):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (from_json(json.loads(line)) for line in lines)
