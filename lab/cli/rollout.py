"""rollout status, rollout restart, rollout undo and rollout history."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from lab.cli import references
from lab.cli.client import Client, FailureError
from lab.cli.context import (
    DRY_RUNS,
    DryRun,
    Namespace,
    Selector,
    Timeout,
    Workloads,
    client,
    dry,
    namespace,
)
from lab.cli.describe_lines import aligned
from lab.cli.describe_pod import template
from lab.cli.durations import seconds
from lab.cli.output import Json, columns, write, write_now, yaml_text

rollout = typer.Typer(help="Watch, restart, undo or list rollouts.", no_args_is_help=True)


@rollout.command()
def status(
    context: typer.Context,
    target: Workloads,
    selector: Selector = "",
    namespace_: Namespace = None,
    timeout: Timeout = "600s",
    watch: Annotated[
        bool, typer.Option("--watch/--no-watch", "-w", help="Wait until the rollout is complete.")
    ] = True,
) -> None:
    """Wait until a workload's pods are all of the newest template and ready.

    Example:
      guestbook rollout status deployment/ui --timeout=60s
    """
    lab, where = client(context), namespace(context, namespace_)
    deadline = time.monotonic() + seconds(timeout)
    for kind, name in references.present(lab, where, target, selector):
        _wait(lab, kind, where, name, deadline if watch else 0)


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
        done, line = _progress(answer["items"][0])
        if line != printed:
            printed = line
            write_now(line)
        if done or not deadline:
            return
        if time.monotonic() > deadline:
            raise FailureError("timed out waiting for the condition")


def _progress(item: Json) -> tuple[bool, str]:
    """Returns whether a rollout is complete, and kubectl's line about it."""
    if item["kind"] not in ("Deployment", "StatefulSet"):
        raise FailureError(f"no status viewer has been implemented for {item['kind']}")
    status, name = item["status"], item["metadata"]["name"]
    wanted, updated = item["spec"].get("replicas", 1), status["updatedReplicas"]
    kind = item["kind"].lower()
    if status["observedGeneration"] < item["metadata"]["generation"]:
        return False, f"Waiting for {kind} spec update to be observed..."
    if item["kind"] == "StatefulSet":
        newest = status["updateRevision"]
        if status["readyReplicas"] < wanted:
            return False, f"Waiting for {wanted - status['readyReplicas']} pods to be ready..."
        if newest != status["currentRevision"]:
            text = f"waiting for statefulset rolling update to complete {updated} pods at revision"
            return False, f"{text} {newest}..."
        return True, f"statefulset rolling update complete {updated} pods at revision {newest}..."
    waiting = f'Waiting for deployment "{name}" rollout to finish:'
    if updated < wanted:
        return False, f"{waiting} {updated} out of {wanted} new replicas have been updated..."
    if (old := status["replicas"] - updated) > 0:
        return False, f"{waiting} {old} old replicas are pending termination..."
    if (available := status["availableReplicas"]) < updated:
        return False, f"{waiting} {available} of {updated} updated replicas are available..."
    return True, f'deployment "{name}" successfully rolled out'


@rollout.command()
def restart(
    context: typer.Context,
    target: Workloads,
    selector: Selector = "",
    namespace_: Namespace = None,
) -> None:
    """Replace all pods of a workload, a few at a time.

    Examples:
      guestbook rollout restart deployment/ui
      guestbook rollout restart deployment -l app=ui
    """
    lab, where = client(context), namespace(context, namespace_)
    for kind, name in references.present(lab, where, target, selector):
        lab.call("restart", kind=kind, namespace=where, name=name)
        write(f"{references.full(lab, kind, where, name)} restarted")


@rollout.command()
def undo(
    context: typer.Context,
    target: Workloads,
    to_revision: Annotated[
        int, typer.Option(help="The revision to go back to; 0 is the one before.")
    ] = 0,
    dry_run: DryRun = "none",
    selector: Selector = "",
    namespace_: Namespace = None,
) -> None:
    """Go back to an earlier revision of a workload's template.

    With --dry-run=client it prints that template.

    Examples:
      guestbook rollout undo deployment/ui
      guestbook rollout undo deployment/ui --to-revision=2
    """
    lab, where = client(context), namespace(context, namespace_)
    query = {"namespace": where, "revision": to_revision, "dry_run": dry(dry_run)}
    for kind, name in references.present(lab, where, target, selector):
        answer = lab.call("undo", kind=kind, name=name, **query)
        title = references.full(lab, kind, where, name)
        if dry_run == "client":
            write(f"{title} {aligned([*template(answer['template'])])}{DRY_RUNS[dry_run]}")
        else:
            write(f"{title} {answer['done']}{DRY_RUNS[dry_run]}")


@rollout.command()
def history(
    context: typer.Context,
    target: Workloads,
    revision: Annotated[int, typer.Option(help="Print the template of this revision.")] = 0,
    selector: Selector = "",
    namespace_: Namespace = None,
) -> None:
    """Print the revisions of a workload's template since the lab started.

    The cause is the annotation kubernetes.io/change-cause, where there is one.

    Examples:
      guestbook rollout history deployment/ui
      guestbook rollout history deployment/ui --revision=2
    """
    lab, where = client(context), namespace(context, namespace_)
    for kind, name in references.present(lab, where, target, selector):
        found: list[Json] = lab.call("history", kind=kind, namespace=where, name=name)
        title = references.full(lab, kind, where, name)
        if not revision:
            rows = [[str(one["revision"]), one["cause"] or "<none>"] for one in found]
            write("\n".join([f"{title} ", *columns(["REVISION", "CHANGE-CAUSE"], rows), ""]))
            continue
        chosen = [one for one in found if one["revision"] == revision]
        if not chosen:
            raise FailureError(f"unable to find the specified revision {revision}")
        write(f"{title} with revision #{revision}\n{yaml_text(chosen[0]['template'])}")
