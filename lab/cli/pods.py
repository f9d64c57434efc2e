"""logs, exec and port-forward: the verbs about running pods."""

from __future__ import annotations

import functools
import sys
from typing import Annotated, Any

import typer

from lab.cli import complete
from lab.cli.client import FailureError
from lab.cli.context import Namespace, PodTarget, Selector, chosen_pods, client, namespace
from lab.cli.output import write
from lab.cli.workloads import seconds

ContainerName = Annotated[str | None, typer.Option("--container", "-c", help="The container.")]

BORROWED = ("curl", "openssl")
"""Programs of images that are the machine's own in the lab."""


def register(app: typer.Typer) -> None:
    app.command()(logs)
    app.command(name="exec")(exec_)
    app.command(name="port-forward")(port_forward)


def logs(
    context: typer.Context,
    target: Annotated[
        str | None, typer.Argument(metavar="POD | KIND/NAME", autocompletion=complete.pods)
    ] = None,
    container_word: Annotated[str | None, typer.Argument(metavar="[CONTAINER]")] = None,
    container: ContainerName = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing.")] = False,
    tail: Annotated[int | None, typer.Option(help="Only the last lines; -1 for all.")] = None,
    since: Annotated[str | None, typer.Option(help="Only from this long ago, as 30s.")] = None,
    timestamps: Annotated[bool, typer.Option("--timestamps", help="With the times.")] = False,
    prefix: Annotated[bool, typer.Option("--prefix", help="With the pod's name.")] = False,
    all_containers: Annotated[bool, typer.Option("--all-containers", help="All of them.")] = False,
    selector: Selector = "",
    namespace_: Namespace = None,
) -> None:
    """Print what a container printed.

    Examples:
      guestbook logs -f deploy/message-service
      guestbook logs ui-7d5c9b7f4-x2x8k -c istio-proxy --tail=20
      guestbook logs -l app=ui --since=30s
    """
    if not target and not selector:
        raise FailureError("say which pod: a name, KIND/NAME, or -l SELECTOR")
    lab = client(context)
    where = namespace(context, namespace_)
    pods = chosen_pods(lab, where, target or "", selector)
    if not pods:
        raise FailureError("no pod matches")
    if not selector:
        pods = pods[:1]
    elif tail is None:
        # kubectl, too, prints only the end of each when it prints several.
        tail = 10
    window = None if since is None else seconds(since)
    requests: list[dict[str, Any]] = []
    for pod in pods:
        names = [container or container_word]
        if all_containers:
            specs = [*pod["spec"]["containers"], *pod["spec"].get("initContainers", ())]
            names = [spec["name"] for spec in specs]
        requests += [
            {
                "namespace": where,
                "pod": pod["metadata"]["name"],
                "container": name,
                "tail": None if tail is None or tail < 0 else tail,
                "since": window,
                "timestamps": timestamps,
                "follow": follow,
            }
            for name in names
        ]
    if follow and len(requests) > 1:
        _follow_all(context, requests, prefix)
        return
    for request in requests:
        head = f"[pod/{request['pod']}] " if prefix else ""
        for chunk in lab.stream("logs", **request):
            _print(chunk, head)


def _print(chunk: bytes, head: str = "") -> None:
    text = chunk.decode(errors="replace")
    if head:
        text = "".join(head + line for line in text.splitlines(keepends=True))
    write(text, end="")
    sys.stdout.flush()


def _follow_all(context: typer.Context, requests: list[dict[str, Any]], prefix: bool) -> None:
    import threading

    def follow(request: dict[str, Any]) -> None:
        head = f"[pod/{request['pod']}] " if prefix else ""
        for chunk in client(context).stream("logs", **request):
            _print(chunk, head)

    threads = [threading.Thread(target=follow, args=(r,), daemon=True) for r in requests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def exec_(
    context: typer.Context,
    target: PodTarget,
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND...")],
    container: ContainerName = None,
    stdin: Annotated[bool, typer.Option("--stdin", "-i", help="Pass standard input.")] = False,
    tty: Annotated[bool, typer.Option("--tty", "-t", help="Accepted, as by kubectl.")] = False,  # noqa: ARG001
    namespace_: Namespace = None,
) -> None:
    """Run a command in a container; its exit status becomes this command's.

    Examples:
      guestbook exec curl -- curl -s http://message-service/hello/you
      guestbook exec deploy/ui -c istio-proxy -- curl -s localhost:15000/clusters
    """
    lab = client(context)
    where = namespace(context, namespace_)
    pods = chosen_pods(lab, where, target)
    if not pods:
        raise FailureError(f"no pod for {target}")
    pod = pods[0]["metadata"]["name"]
    spec = lab.call("exec", namespace=where, pod=pod, container=container, argv=command)
    status = _execute(spec, stdin=stdin)
    if status:
        sys.stderr.write(f"command terminated with exit code {status}\n")
        raise typer.Exit(status)


def _execute(spec: dict[str, Any], *, stdin: bool) -> int:
    """Run a command with its output on `sys.stdout` and `sys.stderr`, whatever those are."""
    import subprocess
    import threading

    direct = sys.stdout is sys.__stdout__ and sys.stderr is sys.__stderr__
    pipe = None if direct else subprocess.PIPE
    source: Any = subprocess.DEVNULL
    data = None
    if stdin:
        source = None if sys.stdin is sys.__stdin__ else subprocess.PIPE
        data = sys.stdin.read().encode() if source is not None else None
    try:
        process = subprocess.Popen(
            spec["argv"],
            env=spec["env"],
            cwd=spec["folder"],
            stdin=source,
            stdout=pipe,
            stderr=pipe,
        )
    except FileNotFoundError:
        name = spec["argv"][0]
        sys.stderr.write(f'exec: "{name}": executable file not found in $PATH\n')
        if name in BORROWED:
            sys.stderr.write(
                f"The lab takes a container's {name} from this machine, which has none; on Debian: "
                f"apt-get install {name}\n"
            )
        return 127
    except PermissionError:
        sys.stderr.write(f'exec: "{spec["argv"][0]}": permission denied\n')
        return 126
    with process:
        copies = [
            threading.Thread(target=_copy, args=(stream, out))
            for stream, out in ((process.stdout, sys.stdout), (process.stderr, sys.stderr))
            if stream is not None
        ]
        for thread in copies:
            thread.start()
        if process.stdin is not None:
            process.stdin.write(data or b"")
            process.stdin.close()
        for thread in copies:
            thread.join()
        status = process.wait()
    return status if status >= 0 else 128 - status


def _copy(stream: Any, out: Any) -> None:
    while chunk := stream.read1(65536):
        out.write(chunk.decode(errors="replace"))


def port_forward(
    context: typer.Context,
    target: PodTarget,
    ports: Annotated[list[str], typer.Argument(metavar="[LOCAL]:REMOTE...")],
    address: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    namespace_: Namespace = None,
) -> None:
    """Reach a port of a pod or a Service on this machine, until Ctrl-C.

    Examples:
      guestbook port-forward svc/ui 9090:80
      guestbook port-forward deploy/ui :15000
    """
    import asyncio

    from lab.cluster.forwarder import listen
    from lab.manifests.registry import find

    word, _, name = target.rpartition("/")
    kind = find(word or "pod")
    if kind is None or kind.kind not in ("Pod", "Service", "Deployment", "StatefulSet"):
        raise FailureError(f'can\'t forward to a "{word}"')
    lab = client(context)
    where = namespace(context, namespace_)
    pairs = []
    for text in ports:
        local, colon, remote = text.rpartition(":")
        for number in (local or "0", remote if remote.isdigit() else "0"):
            if not number.isdigit() or int(number) > 65535:
                raise FailureError(f"not a port: {number!r}")
        found = lab.call("forward", kind=kind.kind, namespace=where, name=name, port=remote)
        wanted = int(local) if local else (0 if colon else int(found["port"]))
        pairs.append((wanted, (str(found["address"]), int(found["port"]))))

    async def forward() -> None:
        servers = []
        for wanted, place in pairs:
            try:
                server = await listen(address, wanted, functools.partial(list, (place,)))
            except OSError as error:
                raise FailureError(f"unable to listen on port {wanted}: {error.strerror}") from None
            servers.append(server)
            actual = server.sockets[0].getsockname()[1]
            write(f"Forwarding from {address}:{actual} -> {place[1]}")
            sys.stdout.flush()
        await asyncio.gather(*(server.serve_forever() for server in servers))

    asyncio.run(forward())
