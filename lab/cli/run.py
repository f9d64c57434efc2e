"""run: a pod from the command line."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from lab.cli.context import Namespace, client, namespace
from lab.cli.output import write


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
