"""graph: the calls between workloads, from the proxies' statistics."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from lab.cli.client import FailureError
from lab.cli.context import client
from lab.cli.output import columns, write

if TYPE_CHECKING:
    from lab.cli.proxies import Proxy
    from lab.observe.graph import Edge


def graph(
    context: typer.Context,
    output: Annotated[str, typer.Option("--output", "-o", help="table, json or svg.")] = "table",
    interval: Annotated[
        float, typer.Option(help="How many seconds to watch for the rates.", min=0.1)
    ] = 2.0,
) -> None:
    """Show the calls between workloads, with rates, success and latency, from the proxies.

    Calls, success and latency are since each proxy started; rates are of the
    interval.

    Examples:
      guestbook graph
      guestbook graph -o svg > graph.svg
      guestbook graph -o json --interval 10
    """
    from lab.cli.proxies import everywhere
    from lab.observe import graph as graphs
    from lab.observe.graph_svg import picture

    if output not in ("table", "json", "svg"):
        raise FailureError(f"-o {output}: there are table, json and svg")
    proxies = everywhere(client(context))
    if sys.stderr.isatty():
        sys.stderr.write(f"Watching {len(proxies)} proxies for {interval:g} s...\n")
    started = time.monotonic()
    before = _edges(proxies)
    time.sleep(interval)
    after = _edges(proxies)
    rate = graphs.rates(before, after, time.monotonic() - started)
    if output == "json":
        write(json.dumps(graphs.as_json(after, rate), indent=2))
    elif output == "svg":
        write(picture(after, rate), end="")
    elif not after:
        write("No calls yet: send a request through the gateway.")
    else:
        write("\n".join(columns(graphs.HEADER, graphs.rows(after, rate))))


def _edges(proxies: list[Proxy]) -> list[Edge]:
    from concurrent.futures import ThreadPoolExecutor

    from lab.observe import graph as graphs

    def one(proxy: Proxy) -> list[Edge]:
        text = proxy.page(
            "/stats", format="json", histogram_buckets="detailed", filter=graphs.STATS
        )
        source = graphs.workload(proxy.labels, proxy.name, proxy.namespace)
        return graphs.edges(source, json.loads(text), gateway="istio" in proxy.labels)

    with ThreadPoolExecutor(max_workers=8) as pool:
        return graphs.merged(edge for found in pool.map(one, proxies) for edge in found)
