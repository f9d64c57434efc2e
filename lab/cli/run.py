"""run: a pod from the command line."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Annotated, Any

import typer

from lab.cli.client import Client, FailureError
from lab.cli.context import DRY_RUNS, DryRun, Namespace, client, dry, namespace
from lab.cli.get import formatted
from lab.cli.made import Output
from lab.cli.output import write, write_now


def run(
    context: typer.Context,
    name: str,
    image: Annotated[str, typer.Option(help="The image.")],
    words: Annotated[list[str] | None, typer.Argument(metavar="[-- COMMAND...]")] = None,
    restart: Annotated[str, typer.Option(help="Always, OnFailure or Never.")] = "Always",
    command: Annotated[
        bool, typer.Option("--command", help="The words after -- replace the entry point.")
    ] = False,
    labels: Annotated[str, typer.Option("--labels", "-l", help="Labels, as a=b,c=d.")] = "",
    env: Annotated[list[str] | None, typer.Option(help="A variable, as NAME=VALUE.")] = None,
    port: Annotated[int | None, typer.Option(help="The container's port.")] = None,
    stdin: Annotated[bool, typer.Option("--stdin", "-i", help="Wait and print its log.")] = False,
    tty: Annotated[bool, typer.Option("--tty", "-t", help="Accepted, without effect.")] = False,  # noqa: ARG001
    rm: Annotated[bool, typer.Option("--rm", help="Delete the pod when it has ended.")] = False,
    dry_run: DryRun = "none",
    output: Output = None,
    namespace_: Namespace = None,
) -> None:
    """Create a pod; with -i print its log until it ends.

    Examples:
      guestbook run curl --image=curlimages/curl --restart=Never --command -- sleep infinity
      guestbook run ask --image=curlimages/curl -it --rm --restart=Never -- -s http://ui/
    """
    if rm and not stdin:
        raise FailureError("--rm should only be used for attached containers: add -i")
    container: dict[str, Any] = {"name": name, "image": image}
    if words:
        container["command" if command else "args"] = words
    if port is not None:
        container["ports"] = [{"containerPort": port}]
    if env:
        pairs = [item.partition("=") for item in env]
        container["env"] = [{"name": key, "value": value} for key, _, value in pairs]
    given = dict(item.split("=", 1) for item in labels.split(",") if "=" in item)
    where = namespace(context, namespace_)
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": where, "labels": given or {"run": name}},
        # One that goes with the command ends with its first container, as kubectl's attach does.
        "spec": {"restartPolicy": "Never" if rm else restart, "containers": [container]},
    }
    lab = client(context)
    changes = {"files": [("(command line)", pod)], "manner": "create"}
    attached = stdin and not dry(dry_run)
    # With --rm no signal may come between the pod and the one who deletes it.
    noted: AbstractContextManager[list[int]] = _noted() if attached and rm else nullcontext([])
    with noted as signals:
        for _, reason in lab.call("apply", **changes, dry_run=dry(dry_run))["refused"]:
            raise FailureError(reason, existing=True)
        try:
            if output:
                write(formatted([pod], output, single=True, headers=True))
            elif not attached:
                write(f"pod/{name} created" + DRY_RUNS[dry_run])
            status = _follow(lab, where, name, signals) if attached else 0
        finally:
            if attached and rm:
                lab.call("delete", kind="pod", namespace=where, names=[name], grace=1)
                write(f'pod "{name}" deleted from {where} namespace')
    if status:
        raise typer.Exit(status)


@contextmanager
def _noted() -> Iterator[list[int]]:
    """Gives the signals to end that come; none of them ends the command before this is over."""
    came: list[int] = []
    endings = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {
        one: signal.signal(one, lambda number, _frame: came.append(number)) for one in endings
    }
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _follow(lab: Client, where: str, name: str, signals: Sequence[int]) -> int:
    """Prints the log of a pod until it ends, or a signal came; returns the exit status."""
    printed, revision = 0, -1
    while not signals:
        query: dict[str, Any] = {"kinds": ["pod"], "names": [name], "namespace": where}
        answer = lab.call("objects", after=revision, timeout=0.5, **query)
        revision = answer["revision"]
        states = answer["items"][0]["status"]["containerStatuses"]
        ended = states[0]["state"].get("terminated") if states else None
        text = b"".join(lab.stream("logs", namespace=where, pod=name, container=name))
        write_now(text[printed:].decode(errors="replace"), end="")
        printed = len(text)
        if ended is not None:
            if ended["reason"] == "StartError":
                raise FailureError(ended.get("message", "the container did not start"))
            return int(ended["exitCode"])
    return 128 + signals[0]
