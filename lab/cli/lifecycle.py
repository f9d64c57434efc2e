"""up, down and status."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.cli.client import Client, FailureError
from lab.cli.context import client, settings
from lab.cli.output import write

if TYPE_CHECKING:
    from rich.progress import Progress

    from lab.cluster.cluster import Cluster, Mesh
    from lab.cluster.state import State

PLAIN_ENVIRONMENT = "GUESTBOOK_NO_MESH"

BASELINE = ("k8s/base",)
"""What a new lab applies."""

MESH_BASELINE = (
    "istio/install/istio.yaml",
    "istio/02-ingress/gateway.yaml",
    "istio/02-ingress/virtual-service.yaml",
)
"""What it applies as well when it has a mesh."""
MESH_PODS = 9
"""How many pods that makes, each with an Envoy."""


def register(app: typer.Typer) -> None:
    app.command()(up)
    app.command()(down)
    app.command()(status)


def up(
    context: typer.Context,
    port: Annotated[
        int,
        typer.Option(
            help="Port of the ingress on localhost; 0 takes a free one.", min=0, max=65535
        ),
    ] = 8080,
    filename: Annotated[
        list[str] | None,
        typer.Option("--filename", "-f", help="What a new lab applies, instead of its own set."),
    ] = None,
    mesh: Annotated[
        bool, typer.Option("--mesh/--plain", help="With Envoy beside each pod, or without.")
    ] = True,
    embedded: Annotated[
        bool,
        typer.Option("--embedded", help="SQLite and the embedded Redis, even beside real ones."),
    ] = False,
) -> None:
    """Start the lab here and keep it running until Ctrl-C.

    The first time it applies k8s/base and Istio's baseline; after that it
    restores what was applied last. DATABASE_URL and REDIS_HOST in the
    environment take your own servers.

    Examples:
      guestbook up
      guestbook up --port 0
      DATABASE_URL=mysql+pymysql://me:secret@db/guestbook guestbook up
    """
    import asyncio

    from lab.cluster import supervisor
    from lab.cluster.addresses import NoAddressesError
    from lab.cluster.state import AlreadyRunningError, State, locked, repository
    from lab.manifests.load import ManifestError
    from lab.standins import EMBEDDED

    if embedded:
        os.environ[EMBEDDED] = "1"
    state = State(settings(context).state_folder())
    root = repository()
    use_mesh, reason = _mesh_or_reason(mesh)
    if reason:
        _say(reason)
    if use_mesh:
        _require_watches()
    plan = supervisor.Plan(
        state=state,
        port=port,
        baseline=tuple(map(Path, filename or ())) or _existing(root, BASELINE),
        mesh_baseline=() if filename else _existing(root, MESH_BASELINE),
        mesh=(lambda cluster: _control_plane(state, cluster)) if use_mesh else None,
        no_mesh_reason=reason,
    )
    try:
        with locked(state), _bar() as bar:
            task = bar.add_task("Pods ready", total=None)

            def progress(ready: int, wanted: int) -> None:
                bar.update(task, completed=ready, total=wanted)

            def ready(cluster: Cluster) -> None:
                bar.stop()
                _ready(cluster)

            _say(f"Starting the lab in {_short(state.folder)}")
            asyncio.run(supervisor.run(plan, os.environ, _say, progress, ready))
    except AlreadyRunningError as error:
        raise FailureError(*_already(context, str(error))) from None
    except ManifestError as error:
        raise FailureError(*error.lines) from None
    except supervisor.PortTakenError as error:
        raise FailureError(f"{error}; choose another with --port") from None
    except NoAddressesError as error:
        raise FailureError(str(error)) from None
    _say("Stopped")


def _require_watches() -> None:
    from lab.istiod.process import require_watches

    try:
        require_watches(MESH_PODS)
    except OSError as error:
        raise FailureError(f"{error}; or guestbook up --plain, without a mesh") from None


def _existing(root: Path, names: Iterable[str]) -> tuple[Path, ...]:
    return tuple(root / name for name in names if (root / name).exists())


def _bar() -> Progress:
    """On a terminal, how many pods are ready; nothing elsewhere, and nothing is left of it."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, transient=True, disable=not sys.stdout.isatty())


def _say(line: str) -> None:
    write(line)
    sys.stdout.flush()


def _short(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _already(context: typer.Context, reason: str) -> list[str]:
    try:
        found = client(context).call("status")
    except FailureError:
        return [reason]
    return [f"{reason}, serving {found['ingress']}", "stop it with: guestbook down"]


def _mesh_or_reason(wanted: bool) -> tuple[bool, str]:
    """Whether Envoys can run here, and if not why."""
    if not wanted or os.environ.get(PLAIN_ENVIRONMENT):
        return False, "Without a mesh, as asked: the services run without Envoy"
    from lab.istiod.process import EnvoyMissingError, binary

    try:
        binary()
    except EnvoyMissingError as error:
        return False, f"Without a mesh: {error}"
    return True, ""


def _control_plane(state: State, cluster: Cluster) -> Mesh:
    from lab.cluster.events import Event
    from lab.istiod.control_plane import ControlPlane
    from lab.model import Pod
    from lab.resources.resource import Resource

    def report(pod: Pod, message: str) -> None:
        event = Event("Pod", pod.namespace, pod.name, "Warning", "ProxyConfigRejected", message)
        cluster.events.add(event)

    def operators() -> list[Resource]:
        return [record.resource for record in cluster.store.of("IstioOperator")]

    return ControlPlane(
        state.folder / "authority",
        cluster.snapshot,
        operators,
        report,
        cluster.changed,
        cluster.client,
    )


def _ready(cluster: Cluster) -> None:
    from lab.cluster.supervisor import address

    _say(f"The guestbook is ready: {address(cluster)}")
    _say("Ctrl-C stops it. In another terminal: guestbook get pods, guestbook --help")


def down(
    context: typer.Context,
    clean: Annotated[
        bool, typer.Option("--clean", help="Also delete the state folder: resources and data.")
    ] = False,
) -> None:
    """Stop the running lab; its resources and data stay for the next `up`.

    Examples:
      guestbook down
      guestbook down --clean
    """
    import shutil

    from lab.cluster.state import AlreadyRunningError, State, locked, wait_until_unlocked

    lab = client(context)
    try:
        lab.call("down")
        wait_until_unlocked(State(lab.folder))
        write("The lab is stopped")
    except FailureError as error:
        if not clean:
            raise
        write(error.lines[0])
    if clean:
        try:
            with locked(State(lab.folder)):
                shutil.rmtree(lab.folder)
        except AlreadyRunningError as error:
            raise FailureError(str(error)) from None
        write(f"Deleted {_short(lab.folder)}")


def status(
    context: typer.Context,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="json for a program to read.")
    ] = None,
) -> None:
    """Say whether the lab runs, where it is reached and what it uses.

    Examples:
      guestbook status
      guestbook status -o json
    """
    lab: Client = client(context)
    found: dict[str, Any] = lab.call("status")
    if output == "json":
        write(json.dumps(found, indent=2))
        return
    write(f"Guestbook   {found['ingress']}")
    write(f"Pods        {found['ready']} of {found['wanted']} ready")
    write(f"Mesh        {'on' if found['mesh'] else 'off: ' + found['meshReason']}")
    write(f"Database    {found['database']}")
    write(f"Redis       {found['redis']}")
    write(f"State       {found['state']} (process {found['pid']}, up {found['uptime']:.0f} s)")
    for problem in [found["problem"], *found["rejected"]]:
        if problem:
            write(f"Problem     {problem}")
    for warning in found["warnings"]:
        write(f"Warning     {warning}")
