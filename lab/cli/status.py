"""status."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from lab.cli.context import client
from lab.cli.output import write

NETWORKS = {
    "pods": "pods: each has a network of its own",
    "proxy": "proxy: one network, programs reach their sidecar by proxy variables",
}


def status(
    context: typer.Context,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="json for a program to read.")
    ] = None,
) -> None:
    """Show the running lab: its address, pods, servers, problems and warnings.

    Examples:
      guestbook status
      guestbook status -o json
    """
    found: dict[str, Any] = client(context).call("status")
    if output == "json":
        write(json.dumps(found, indent=2))
        return
    write(f"Guestbook   {found['ingress']}")
    if found["mesh"]:
        write(f"HTTPS       {found['ingressHttps']} where a Gateway has a certificate")
    write(f"Pods        {found['ready']} of {found['wanted']} ready")
    for pod in found["notReady"]:
        write(f"Not ready   {pod}")
    write(f"Mesh        {'on' if found['mesh'] else 'off: ' + found['meshReason']}")
    write(f"Network     {NETWORKS[found['network']]}")
    if found["networkRefusal"]:
        write(f"            no network for each pod: {found['networkRefusal']}")
    if found["metrics"]:
        write(f"Metrics     {found['metrics']}")
    write(f"Database    {found['database']}")
    write(f"Redis       {found['redis']}")
    write(f"State       {found['state']} (process {found['pid']}, up {found['uptime']:.0f} s)")
    for problem in [found["problem"], *found["rejected"]]:
        if problem:
            write(f"Problem     {problem}")
    for warning in found["warnings"]:
        write(f"Warning     {warning}")
