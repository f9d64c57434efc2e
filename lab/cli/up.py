"""up: a lab that runs until Ctrl-C."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lab.cli.client import FailureError
from lab.cli.context import client, settings
from lab.cli.manifests import errors
from lab.cli.output import for_lab, short_path, write_now

if TYPE_CHECKING:
    from rich.progress import Progress

    from lab.cluster.running import Cluster, Mesh
    from lab.cluster.state import State
    from lab.cluster.supervisor import OpenNetwork

NetworkName = Literal["proxy", "pods"]

PLAIN_ENVIRONMENT = "GUESTBOOK_NO_MESH"

BASELINE = ("k8s/base",)
"""Manifests that a new lab applies."""

MESH_BASELINE = (
    "istio/install/istio.yaml",
    "istio/02-ingress/gateway.yaml",
    "istio/02-ingress/virtual-service.yaml",
)
"""Manifests that a new lab with a mesh applies as well."""
MESH_PODS = 9
"""The number of pods that makes, each with an Envoy."""


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
        typer.Option(
            "--filename", "-f", help="Manifests that a new lab applies instead of its own."
        ),
    ] = None,
    mesh: Annotated[
        bool, typer.Option("--mesh/--plain", help="With or without an Envoy beside each pod.")
    ] = True,
    network: Annotated[
        NetworkName | None,
        typer.Option(
            help="pods: each has a network of its own, the default where the machine allows it. "
            "proxy: one network, and proxy variables."
        ),
    ] = None,
    embedded: Annotated[
        bool,
        typer.Option(
            "--embedded", help="Use SQLite and the embedded Redis even where servers are installed."
        ),
    ] = False,
) -> None:
    """Start the lab here and keep it running until Ctrl-C.

    The first start applies k8s/base and Istio's baseline; later ones restore
    what was applied last. DATABASE_URL and REDIS_HOST in the environment
    select your own servers.

    Examples:
      guestbook up
      guestbook up --port 0
      DATABASE_URL=mysql+pymysql://me:secret@db/guestbook guestbook up
    """
    import asyncio

    folder = settings(context).state_folder()
    write_now(f"Starting the lab in {short_path(folder)}")
    from lab.cluster import process, supervisor
    from lab.cluster.addresses import NoAddressesError
    from lab.cluster.host_ports import PortTakenError
    from lab.cluster.state import AlreadyRunningError, State, locked, repository
    from lab.standins import EMBEDDED

    if embedded:
        os.environ[EMBEDDED] = "1"
    state = State(folder)
    root = repository()
    reason = _why_no_mesh(mesh)
    if reason:
        write_now(reason)
    else:
        _require_watches()
    try:
        with errors(), locked(state):
            # From inside a user namespace they could not be seen.
            if swept := process.sweep(str(state.folder)):
                write_now(f"Cleared away {swept} processes of an earlier run")
            open_network, refused = _network(network)
            if refused:
                write_now(f"No network for each pod: {refused}")
            plan = supervisor.Plan(
                state=state,
                port=port,
                baseline=tuple(map(Path, filename or ())) or _existing(root, BASELINE),
                mesh_baseline=() if filename else _existing(root, MESH_BASELINE),
                mesh=None if reason else lambda cluster: _control_plane(state, cluster),
                network=open_network,
                no_mesh_reason=reason,
                network_refusal=refused,
            )
            with _bar() as bar:
                task = bar.add_task("Pods ready", total=None)

                def progress(ready: int, wanted: int) -> None:
                    bar.update(task, completed=ready, total=wanted)

                def ready(cluster: Cluster) -> None:
                    bar.stop()
                    write_now(f"The guestbook is ready: {supervisor.address(cluster)}")
                    write_now("Ctrl-C stops it. In another terminal, for kubectl and istioctl:")
                    program = short_path(Path(sys.executable).with_name("guestbook"))
                    words = for_lab(state.folder, "shell").removeprefix("guestbook")
                    write_now(f"  {program}{words}")

                asyncio.run(supervisor.run(plan, os.environ, write_now, progress, ready))
    except AlreadyRunningError as error:
        raise FailureError(*_already(context, str(error))) from None
    except PortTakenError as error:
        raise FailureError(f"{error}; choose another with --port") from None
    except NoAddressesError as error:
        raise FailureError(str(error)) from None
    write_now("Stopped")


def _why_no_mesh(wanted: bool) -> str:
    """Returns why the lab has no mesh; empty when it has one."""
    if not wanted or os.environ.get(PLAIN_ENVIRONMENT):
        return "Without a mesh, as asked: the services run without Envoy"
    from lab.istiod.process import EnvoyMissingError, binary

    try:
        binary()
    except EnvoyMissingError as error:
        return f"Without a mesh: {error}"
    return ""


def _network(wanted: NetworkName | None) -> tuple[OpenNetwork, str]:
    """Returns the network that pods get, and what the machine refuses if it is not their own.

    For networks of their own this process, which has no thread yet, enters namespaces. Raises
    FailureError where they are wanted and refused.
    """
    from lab.cluster import pod_network, proxy_network
    from lab.net import detect, namespaces

    if wanted == "proxy":
        return proxy_network.open_network, ""
    if (refused := detect.refusal()) is None:
        namespaces.become_master()
        return pod_network.open_network, ""
    reason = f"this machine refuses it ({refused.reason})"
    help_ = f"this helps: {refused.help}"
    if wanted == "pods":
        without = "or without them: guestbook up --network proxy"
        raise FailureError(f"no network for each pod: {reason}", help_, without)
    return proxy_network.open_network, f"{reason}; {help_}"


def _require_watches() -> None:
    from lab.istiod.process import require_watches

    try:
        require_watches(MESH_PODS)
    except OSError as error:
        raise FailureError(f"{error}; or guestbook up --plain, without a mesh") from None


def _existing(root: Path, names: Iterable[str]) -> tuple[Path, ...]:
    return tuple(root / name for name in names if (root / name).exists())


def _bar() -> Progress:
    """Returns a progress bar of ready pods: shown on a terminal only, and erased at the end."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, transient=True, disable=not sys.stdout.isatty())


def _already(context: typer.Context, reason: str) -> list[str]:
    try:
        found = client(context).call("status")
    except FailureError:
        return [reason]
    stop = for_lab(settings(context).state_folder(), "down")
    return [f"{reason}, serving {found['ingress']}; stop it with: {stop}"]


def _control_plane(state: State, cluster: Cluster) -> Mesh:
    from dataclasses import replace

    from lab.cluster import snapshots
    from lab.cluster.events import Event
    from lab.explain import reported
    from lab.explain.analyze.analyze import at_apply
    from lab.istiod.control_plane import ControlPlane
    from lab.istiod.placement import LOOPBACK, PODS
    from lab.model import Pod, Snapshot
    from lab.resources.resource import Resource

    cluster.requests.find_cause = reported.finder(cluster.in_force_at)

    def report(pod: Pod, message: str) -> None:
        event = Event("Pod", pod.namespace, pod.name, "Warning", "ProxyConfigRejected", message)
        cluster.events.add(event)

    def analyze(snapshot: Snapshot, applied: Sequence[Resource]) -> Iterable[str]:
        # The pods of what was just applied are yet to come.
        pods = (*snapshot.pods, *snapshots.snapshot(applied).pods)
        return at_apply(replace(snapshot, pods=pods), applied)

    def operators() -> list[Resource]:
        return [record.resource for record in cluster.store.of("IstioOperator")]

    return ControlPlane(
        state.folder / "authority",
        cluster.snapshot,
        operators,
        report,
        cluster.changed,
        cluster.client,
        analyze,
        PODS if cluster.network.name == "pods" else LOOPBACK,
    )
