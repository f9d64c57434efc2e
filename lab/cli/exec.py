"""exec."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from lab.cli.client import FailureError
from lab.cli.context import ContainerName, Namespace, PodTarget, client, namespace
from lab.cli.references import chosen_pods

BORROWED = ("curl", "openssl")
"""Programs of images that are the machine's own in the lab."""


def exec_(
    context: typer.Context,
    target: PodTarget,
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND...")],
    container: ContainerName = None,
    stdin: Annotated[bool, typer.Option("--stdin", "-i", help="Pass standard input.")] = False,
    tty: Annotated[bool, typer.Option("--tty", "-t", help="Accepted, without effect.")] = False,  # noqa: ARG001
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
    _say_once(lab.folder)
    status = _execute(spec, stdin=stdin)
    if status:
        sys.stderr.write(f"command terminated with exit code {status}\n")
        raise typer.Exit(status)


def _say_once(folder: Path) -> None:
    """Tells a person, the first time in a lab, on which files the command works."""
    told = folder / "told-exec"
    if sys.stderr.isatty() and not told.exists():
        told.touch()
        sys.stderr.write(
            "Note: in the lab a container's files are this machine's, and the command runs as you. "
            "This is said once.\n"
        )


def _execute(spec: dict[str, Any], *, stdin: bool) -> int:
    """Runs a command; its output goes to the present `sys.stdout` and `sys.stderr`."""
    import subprocess
    import threading
    from functools import partial

    from lab.net.namespaces import join

    direct = sys.stdout is sys.__stdout__ and sys.stderr is sys.__stderr__
    pipe = None if direct else subprocess.PIPE
    source: Any = subprocess.DEVNULL
    data = None
    if stdin:
        source = None if sys.stdin is sys.__stdin__ else subprocess.PIPE
        data = sys.stdin.read().encode() if source is not None else None
    program = spec["argv"][0]
    enter = partial(join, spec["pid"], spec["folder"], network_admin=spec["network_admin"])
    try:
        process = subprocess.Popen(
            spec["argv"],
            env=spec["env"],
            # A folder of the pod may be there alone: it is entered last.
            cwd=spec["folder"] if spec["pid"] is None else None,
            preexec_fn=None if spec["pid"] is None else enter,
            stdin=source,
            stdout=pipe,
            stderr=pipe,
        )
    except FileNotFoundError:
        sys.stderr.write(f'exec: "{program}": executable file not found in $PATH\n')
        if program in BORROWED:
            sys.stderr.write(
                f"The lab takes a container's {program} from this machine, which has none; on "
                f"Debian: apt-get install {program}\n"
            )
        return 127
    except PermissionError:
        sys.stderr.write(f'exec: "{program}": permission denied\n')
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
