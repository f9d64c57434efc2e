"""port-forward."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from lab.cli.client import FailureError, connected
from lab.cli.context import Namespace, PodTarget, client, namespace
from lab.cli.output import write_now


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
    forward(context, target, ports, address, namespace_)


def forward(
    context: typer.Context,
    target: str,
    ports: list[str],
    address: str,
    namespace_: str | None,
    page: str = "",
) -> None:
    """Forwards ports until Ctrl-C; says where, as `page` with the address, if that is given."""
    import asyncio

    from lab.cluster.state import State
    from lab.manifests.registry import find
    from lab.net.streams import Far, Streams, listen

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
        pairs.append((wanted, str(found["pod"]), int(found["port"])))

    def through_lab(pod: str, port: int) -> Far:
        async def far() -> Streams:
            sock = connected(lab.folder, State(lab.folder).forwarding.name)
            reader, writer = await asyncio.open_unix_connection(sock=sock)
            line = json.dumps({"namespace": where, "pod": pod, "port": port})
            writer.write(line.encode() + b"\n")
            return reader, writer

        return far

    async def serve() -> None:
        servers = []
        for wanted, pod, port in pairs:
            try:
                server = await listen(address, wanted, through_lab(pod, port))
            except OSError as error:
                raise FailureError(f"unable to listen on port {wanted}: {error.strerror}") from None
            servers.append(server)
            actual = server.sockets[0].getsockname()[1]
            if page:
                write_now(f"{page}{address}:{actual}")
            write_now(f"Forwarding from {address}:{actual} -> {port}")
        await asyncio.gather(*(server.serve_forever() for server in servers))

    asyncio.run(serve())
