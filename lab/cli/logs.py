"""logs: of a container, or what its proxy reports in words."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from lab.cli import complete
from lab.cli.client import Client, FailureError
from lab.cli.context import ContainerName, Namespace, Selector, client, namespace
from lab.cli.durations import moment, seconds
from lab.cli.graph import requests
from lab.cli.output import Json, write_now
from lab.cli.references import chosen_pods
from lab.names import PROXY

if TYPE_CHECKING:
    from lab.observe.requests import Request


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
    since_time: Annotated[
        str | None, typer.Option(help="Only lines after a time, as 2026-08-30T06:00:00Z.")
    ] = None,
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
    words: Annotated[
        bool, typer.Option("--words", help="The requests of the pods' proxies, in words.")
    ] = False,
    selector: Selector = "",
    namespace_: Namespace = None,
) -> None:
    """Print the log of a container, or the requests that a proxy has seen.

    --words prints what the proxies of the pods reported: time, who called
    whom, status, flags in words, and the rule with its file and line.

    Examples:
      guestbook logs -f deploy/message-service
      guestbook logs ui-7d5c9b7f4-x2x8k -c istio-proxy --tail=20
      guestbook logs -l app=ui --since=30s
      guestbook logs deploy/ui -p
      guestbook logs deploy/ui --words
    """
    if not target and not selector:
        raise FailureError("say which pod: a name, KIND/NAME, or -l SELECTOR")
    start = _start(since, since_time)
    lab = client(context)
    where = namespace(context, namespace_)
    pods = chosen_pods(lab, where, target or "", selector)
    if not pods and selector:
        sys.stderr.write(f"No resources found in {where} namespace.\n")
        return
    if not pods:
        raise FailureError("no pod matches")
    if not selector:
        if len(pods) > 1:
            first = pods[0]["metadata"]["name"]
            sys.stderr.write(f"Found {len(pods)} pods, using pod/{first}\n")
        pods = pods[:1]
    if words:
        if (container or container_word or PROXY) != PROXY or previous:
            raise FailureError(f"--words is about requests, which only {PROXY} reports as they are")
        chosen = {(where, pod["metadata"]["name"]) for pod in pods}
        window = EVER if start is None else max(0.0, datetime.now(UTC).timestamp() - start)
        _print_words(lab, chosen, tail, window, follow)
        return
    if selector and tail is None:
        # kubectl, too, prints only the end of each when it prints several.
        tail = 10
    options = {
        "namespace": where,
        "tail": None if tail is None or tail < 0 else tail,
        "since": start,
        "timestamps": timestamps,
        "follow": follow,
        "previous": previous,
    }
    asked: list[Json] = []
    for pod in pods:
        names = [container or container_word or pod["spec"]["containers"][0]["name"]]
        if all_containers:
            specs = [*pod["spec"]["containers"], *pod["spec"].get("initContainers", ())]
            names = [spec["name"] for spec in specs]
        name = pod["metadata"]["name"]
        asked += [{**options, "pod": name, "container": each} for each in names]
    if follow and len(asked) > 1:
        _print_together(lab, asked, prefix)
        return
    for request in asked:
        _print(lab, request, prefix)


def _start(since: str | None, since_time: str | None) -> float | None:
    """Returns the time of the first line, in seconds since 1970."""
    if since is not None and since_time is not None:
        raise FailureError("at most one of --since and --since-time may be specified")
    if since_time is not None:
        return max(0.0, moment(since_time).timestamp())
    return None if since is None else max(0.0, datetime.now(UTC).timestamp() - seconds(since))


EVER = 1e9
"""Seconds: all that the lab has kept."""

OVERLAP = 2.0
"""Seconds that are asked for twice, so that nothing is lost between two questions."""


def _print_words(
    lab: Client, pods: set[tuple[str, str]], tail: int | None, since: float, follow: bool
) -> None:
    """Prints the requests that the proxies of some pods reported, the oldest first."""
    found = list(requests(lab, since))
    answered = _answered(found)
    found.sort(key=lambda one: one.time)

    def wanted(one: Request) -> bool:
        return (one.proxy.namespace, one.proxy.pod) in pods and one.event != "open"

    seen = [one for one in found if wanted(one)]
    for one in seen if tail is None or tail < 0 else _last_of_each(seen, tail):
        write_now(_in_words(one, answered))
    if follow:
        for one in requests(lab, OVERLAP, follow=True):
            answered |= _answered([one])
            if wanted(one) and one not in seen:
                write_now(_in_words(one, answered))


def _answered(found: Sequence[Request]) -> dict[tuple[str, str], Request]:
    """Returns what servers' proxies answered or ended, by the request's id and the pod."""
    from lab.observe import flags
    from lab.observe.graph import refused

    ended = {
        (one.request_id, one.destination.pod): one
        for one in found
        if one.kind == "tcp" and one.reporter == "destination" and flags.names(one)
    }
    return refused(found) | ended


def _last_of_each(found: Sequence[Request], count: int) -> list[Request]:
    """Returns the last requests of each proxy, in their order."""
    left: defaultdict[str, int] = defaultdict(lambda: count)
    kept = []
    for one in reversed(found):
        if left[one.proxy.pod] > 0:
            left[one.proxy.pod] -= 1
            kept.append(one)
    return kept[::-1]


def _in_words(request: Request, answered: dict[tuple[str, str], Request]) -> str:
    from lab.observe import flags, words

    cause = request
    if request.event != "opened":
        cause = answered.get((request.request_id, request.destination.pod), request)
    place = request.lines.get("", "") if request.reporter == "source" else ""
    place = (cause if flags.names(cause) else request).place or place
    return words.line(request, cause, place)


def _print(lab: Client, request: Json, prefix: bool) -> None:
    for text in _texts(lab, request, prefix):
        write_now(text, end="")


def _texts(lab: Client, request: Json, prefix: bool) -> Iterator[str]:
    head = f"[pod/{request['pod']}/{request['container']}] " if prefix else ""
    for chunk in lab.stream("logs", **request):
        text = chunk.decode(errors="replace")
        yield "".join(head + line for line in text.splitlines(keepends=True)) if head else text


def _print_together(lab: Client, requests: list[Json], prefix: bool) -> None:
    import queue
    import threading

    # Only this thread writes, so that a reader who leaves ends the command.
    come: queue.SimpleQueue[str | Exception | None] = queue.SimpleQueue()

    def read(request: Json) -> None:
        try:
            for text in _texts(lab, request, prefix):
                come.put(text)
            come.put(None)
        except (FailureError, OSError) as error:
            come.put(error)

    for request in requests:
        threading.Thread(target=read, args=(request,), daemon=True).start()
    left = len(requests)
    while left:
        match come.get():
            case None:
                left -= 1
            case str(text):
                write_now(text, end="")
            case Exception() as error:
                raise error
