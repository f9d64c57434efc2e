"""logs."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from lab.cli import complete
from lab.cli.client import Client, FailureError
from lab.cli.context import ContainerName, Namespace, Selector, client, namespace
from lab.cli.durations import seconds
from lab.cli.output import Json, write_now
from lab.cli.references import chosen_pods


def logs(
    context: typer.Context,
    target: Annotated[
        str | None, typer.Argument(metavar="POD | KIND/NAME", autocompletion=complete.pods)
    ] = None,
    container_word: Annotated[str | None, typer.Argument(metavar="[CONTAINER]")] = None,
    container: ContainerName = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing.")] = False,
    tail: Annotated[int | None, typer.Option(help="Only the last lines; -1 for all.")] = None,
    since: Annotated[str | None, typer.Option(help="Only lines newer than this, as 30s.")] = None,
    timestamps: Annotated[
        bool, typer.Option("--timestamps", help="Print the time of each line.")
    ] = False,
    prefix: Annotated[bool, typer.Option("--prefix", help="Print the pod of each line.")] = False,
    all_containers: Annotated[
        bool, typer.Option("--all-containers", help="All containers of the pod.")
    ] = False,
    previous: Annotated[
        bool, typer.Option("--previous", "-p", help="The log of the run before a restart.")
    ] = False,
    selector: Selector = "",
    namespace_: Namespace = None,
) -> None:
    """Print the log of a container.

    Examples:
      guestbook logs -f deploy/message-service
      guestbook logs ui-7d5c9b7f4-x2x8k -c istio-proxy --tail=20
      guestbook logs -l app=ui --since=30s
      guestbook logs deploy/ui -p
    """
    if not target and not selector:
        raise FailureError("say which pod: a name, KIND/NAME, or -l SELECTOR")
    lab = client(context)
    where = namespace(context, namespace_)
    pods = chosen_pods(lab, where, target or "", selector)
    if not pods:
        raise FailureError("no pod matches")
    if not selector:
        if len(pods) > 1:
            first = pods[0]["metadata"]["name"]
            sys.stderr.write(f"Found {len(pods)} pods, using pod/{first}\n")
        pods = pods[:1]
    elif tail is None:
        # kubectl, too, prints only the end of each when it prints several.
        tail = 10
    options = {
        "namespace": where,
        "tail": None if tail is None or tail < 0 else tail,
        "since": None if since is None else seconds(since),
        "timestamps": timestamps,
        "follow": follow,
        "previous": previous,
    }
    requests: list[Json] = []
    for pod in pods:
        names = [container or container_word or pod["spec"]["containers"][0]["name"]]
        if all_containers:
            specs = [*pod["spec"]["containers"], *pod["spec"].get("initContainers", ())]
            names = [spec["name"] for spec in specs]
        name = pod["metadata"]["name"]
        requests += [{**options, "pod": name, "container": each} for each in names]
    if follow and len(requests) > 1:
        _print_together(lab, requests, prefix)
        return
    for request in requests:
        _print(lab, request, prefix)


def _print(lab: Client, request: Json, prefix: bool) -> None:
    head = f"[pod/{request['pod']}/{request['container']}] " if prefix else ""
    for chunk in lab.stream("logs", **request):
        text = chunk.decode(errors="replace")
        if head:
            text = "".join(head + line for line in text.splitlines(keepends=True))
        write_now(text, end="")


def _print_together(lab: Client, requests: list[Json], prefix: bool) -> None:
    import threading

    threads = [
        threading.Thread(target=_print, args=(lab, request, prefix), daemon=True)
        for request in requests
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
