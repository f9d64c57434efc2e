"""scale, rollout, wait and run."""

from __future__ import annotations

import json
import sys
import time
from typing import Annotated, Any

import typer

from lab.cli import complete
from lab.cli.client import Client, FailureError
from lab.cli.context import Namespace, Selector, client, namespace, split_references
from lab.cli.output import reference, write


def register(app: typer.Typer) -> None:
    app.command()(scale)
    app.command()(wait)
    app.command()(run)
    rollout = typer.Typer(help="Watch or restart a rollout.", no_args_is_help=True)
    rollout.command(name="status")(rollout_status)
    rollout.command(name="restart")(rollout_restart)
    app.add_typer(rollout, name="rollout")


Targets = Annotated[
    list[str],
    typer.Argument(
        metavar="KIND NAME | KIND/NAME", show_default=False, autocompletion=complete.objects
    ),
]


def seconds(text: str) -> float:
    """A duration such as 30s, 2m or 1h. Raises FailureError."""
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    try:
        if text[-1:] in units:
            return float(text[:-1]) * units[text[-1]]
        return float(text)
    except ValueError:
        raise FailureError(f"invalid duration {text!r}: write for example 30s or 2m") from None


def scale(
    context: typer.Context,
    target: Targets,
    replicas: Annotated[int, typer.Option(help="How many pods.")],
    namespace_: Namespace = None,
) -> None:
    """Change the number of pods of a Deployment or a StatefulSet.

    Example:
      guestbook scale deployment/message-service --replicas=3
    """
    for kind, names in split_references(target):
        for name in names:
            where = namespace(context, namespace_)
            client(context).call("scale", kind=kind, namespace=where, name=name, replicas=replicas)
            write(f"{_shown(context, kind, where, name)} scaled")


def _shown(context: typer.Context, kind: str, where: str, name: str) -> str:
    answer = client(context).call("objects", kinds=[kind], namespace=where, names=[name])
    return reference(answer["items"][0])


def rollout_restart(context: typer.Context, target: Targets, namespace_: Namespace = None) -> None:
    """Replace all pods of a workload, a few at a time.

    Example:
      guestbook rollout restart deployment/ui
    """
    where = namespace(context, namespace_)
    for kind, names in split_references(target):
        for name in names:
            client(context).call("restart", kind=kind, namespace=where, name=name)
            write(f"{_shown(context, kind, where, name)} restarted")


def rollout_status(
    context: typer.Context,
    target: Targets,
    namespace_: Namespace = None,
    timeout: Annotated[str, typer.Option(help="How long to wait at most.")] = "600s",
) -> None:
    """Wait until a workload's pods are all of the newest template and ready.

    Example:
      guestbook rollout status deployment/ui --timeout=60s
    """
    where = namespace(context, namespace_)
    deadline = time.monotonic() + seconds(timeout)
    for kind, names in split_references(target):
        for name in names:
            _rollout(client(context), kind, where, name, deadline)


def _rollout(lab: Client, kind: str, where: str, name: str, deadline: float) -> None:
    revision = -1
    said = ""
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
        settled = (
            status["observedGeneration"] >= item["metadata"]["generation"]
            and status["updatedReplicas"] == wanted == status["replicas"]
            and status["readyReplicas"] == wanted
        )
        if settled:
            write(f'{item["kind"].lower()} "{name}" successfully rolled out')
            return
        line = (
            f'Waiting for {item["kind"].lower()} "{name}" rollout to finish: '
            f"{status['updatedReplicas']} of {wanted} updated, {status['readyReplicas']} ready..."
        )
        if line != said:
            said = line
            write(line)
            sys.stdout.flush()
        if time.monotonic() > deadline:
            raise FailureError("timed out waiting for the condition")


def wait(
    context: typer.Context,
    target: Annotated[
        list[str],
        typer.Argument(metavar="KIND [NAME]... | KIND/NAME...", autocompletion=complete.objects),
    ],
    for_: Annotated[
        str, typer.Option("--for", help="condition=NAME, delete or jsonpath='{...}'=VALUE.")
    ],
    namespace_: Namespace = None,
    selector: Selector = "",
    all_: Annotated[bool, typer.Option("--all", help="All objects of the kind.")] = False,
    timeout: Annotated[str, typer.Option(help="How long to wait at most.")] = "30s",
) -> None:
    """Wait for a condition of objects.

    Examples:
      guestbook wait --for=condition=Ready pod -l app=ui --timeout=60s
      guestbook wait --for=delete pod/curl
    """
    where = namespace(context, namespace_)
    deadline = time.monotonic() + seconds(timeout)
    for kind, names in split_references(target):
        if not names and not selector and not all_:
            raise FailureError("resource(s) were provided, but no name: use -l or --all")
        _wait(client(context), kind, names, where, selector, for_, deadline)


def _wait(
    lab: Client,
    kind: str,
    names: list[str],
    where: str,
    labels: str,
    condition: str,
    deadline: float,
) -> None:
    revision = -1
    while True:
        items, revision = _present(lab, kind, names, where, labels, revision)
        if condition == "delete":
            if not items:
                for name in names:
                    write(f"{kind}/{name} condition met")
                return
        elif items is None or (not items and names):
            raise FailureError(f'{kind} "{names[0]}" not found', missing=True)
        elif items and all(_meets(item, condition) for item in items):
            for item in items:
                write(f"{reference(item)} condition met")
            return
        elif not items:
            raise FailureError("no matching resources found")
        if time.monotonic() > deadline:
            unmet = [reference(i) for i in items or () if not _meets(i, condition)]
            raise FailureError(
                *(f"timed out waiting for the condition on {name}" for name in unmet or [kind])
            )


def _present(
    lab: Client, kind: str, names: list[str], where: str, labels: str, revision: int
) -> tuple[list[dict[str, Any]], int]:
    try:
        answer = lab.call(
            "objects",
            kinds=[kind],
            names=names,
            namespace=where,
            selector=labels,
            after=revision,
            timeout=0.5,
            in_effect=True,
        )
    except FailureError as error:
        if not error.missing:
            raise
        return [], revision
    return answer["items"], answer["revision"]


def _meets(item: dict[str, Any], condition: str) -> bool:
    kind, _, rest = condition.partition("=")
    if kind == "condition":
        name, _, wanted = rest.partition("=")
        conditions = item.get("status", {}).get("conditions", [])
        return any(
            c["type"].lower() == name.lower() and c["status"].lower() == (wanted or "true").lower()
            for c in conditions
        )
    if kind == "jsonpath":
        from lab.cli.jsonpath import evaluate

        path, _, value = rest.rpartition("=")
        return evaluate(path.strip("'"), item) == value
    if kind == "delete":
        return False
    raise FailureError(f"unrecognized condition: {condition!r}")


def run(
    context: typer.Context,
    name: str,
    image: Annotated[str, typer.Option(help="The image.")],
    words: Annotated[list[str] | None, typer.Argument(metavar="[-- COMMAND...]")] = None,
    restart: Annotated[str, typer.Option(help="Always, OnFailure or Never.")] = "Always",
    command: Annotated[
        bool, typer.Option("--command", help="What follows -- replaces the entry point.")
    ] = False,
    labels: Annotated[str, typer.Option("--labels", "-l", help="Labels, as a=b,c=d.")] = "",
    env: Annotated[list[str] | None, typer.Option(help="A variable, as NAME=VALUE.")] = None,
    port: Annotated[int | None, typer.Option(help="The container's port.")] = None,
    namespace_: Namespace = None,
) -> None:
    """Create a pod.

    Example:
      guestbook run curl --image=curlimages/curl --restart=Never --command -- sleep infinity
    """
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
        "spec": {"restartPolicy": restart, "containers": [container]},
    }
    client(context).call("apply", files=[("(command line)", json.dumps(pod))], create=True)
    write(f"pod/{name} created")
