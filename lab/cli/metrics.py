"""metrics: Istio's metrics of the lab, as Prometheus reads them."""

from __future__ import annotations

from typing import Annotated

import typer

from lab.cli.client import FailureError
from lab.cli.context import client
from lab.cli.output import write


def metrics(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Only metrics with this in their name.")
    ] = None,
) -> None:
    """Print Istio's metrics: istio_requests_total and the others, of all proxies.

    They count from the start of the lab. Prometheus reads them at the
    address that `guestbook status` says.

    Examples:
      guestbook metrics
      guestbook metrics istio_requests_total
    """
    import httpx

    address = client(context).call("status")["metrics"]
    if not address:
        raise FailureError("this lab has no mesh, so no proxy counts")
    lines = httpx.get(address, trust_env=False, timeout=10).raise_for_status().text.splitlines()
    if name is not None:
        lines = [line for line in lines if name in line.partition("{")[0]]
        if not lines:
            raise FailureError(f"no metric has {name} in its name, or nothing was counted yet")
    write("\n".join(lines))
