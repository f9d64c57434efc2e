"""rollout status and rollout restart."""

from __future__ import annotations

import time

import typer

from lab.cli import references
from lab.cli.client import Client, FailureError
from lab.cli.context import Namespace, Timeout, Workloads, client, namespace
from lab.cli.durations import seconds
from lab.cli.output import write, write_now

rollout = typer.Typer(help="Watch or restart a rollout.", no_args_is_help=True)


@rollout.command()
def status(
    context: typer.Context,
    target: Workloads,
    namespace_: Namespace = None,
    timeout: Timeout = "600s",
) -> None:
    """Wait until a workload's pods are all of the newest template and ready.

    Example:
      guestbook rollout status deployment/ui --timeout=60s
    """
    where = namespace(context, namespace_)
    deadline = time.monotonic() + seconds(timeout)
    for kind, name in references.each(target):
        _wait(client(context), kind, where, name, deadline)


def _wait(lab: Client, kind: str, where: str, name: str, deadline: float) -> None:
    revision = -1
    printed = ""
    while True:
        answer = lab.call(
            "objects",
            kinds=[kind],
            namespace=where,
            names=[name],
            after=revision,
            timeout=1,
            in_effect=True,
        )
        revision = answer["revision"]
        item = answer["items"][0]
        status, wanted = item["status"], item["spec"].get("replicas", 1)
        shown = f'{item["kind"].lower()} "{name}"'
        if (
            status["observedGeneration"] >= item["metadata"]["generation"]
            and status["updatedReplicas"] == wanted == status["replicas"]
            and status["readyReplicas"] == wanted
        ):
            write(f"{shown} successfully rolled out")
            return
        line = (
            f"Waiting for {shown} rollout to finish: {status['updatedReplicas']} of {wanted} "
            f"updated, {status['readyReplicas']} ready..."
        )
        if line != printed:
            printed = line
            write_now(line)
        if time.monotonic() > deadline:
            raise FailureError("timed out waiting for the condition")


@rollout.command()
def restart(context: typer.Context, target: Workloads, namespace_: Namespace = None) -> None:
    """Replace all pods of a workload, a few at a time.

    Example:
      guestbook rollout restart deployment/ui
    """
    lab, where = client(context), namespace(context, namespace_)
    for kind, name in references.each(target):
        lab.call("restart", kind=kind, namespace=where, name=name)
        write(f"{references.full(lab, kind, where, name)} restarted")
