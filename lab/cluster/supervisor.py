"""One lab from start to end: the lock, the addresses, the cluster, the control socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from lab.cluster import api, process
from lab.cluster import server as control
from lab.cluster.addresses import take_slice
from lab.cluster.cluster import Cluster, Mesh, Options
from lab.cluster.pod import PodRunner
from lab.cluster.state import State
from lab.manifests import load
from lab.standins import EMBEDDED, mysql, redis

STOP_GRACE = 5.0
"""Seconds that pods get to end when the lab is stopped."""

CONFIGURED = 10.0
"""Seconds that the proxies get to take the last change of a start."""

Say = Callable[[str], None]
"""Takes one line of progress."""

Progress = Callable[[int, int], None]
"""Takes how many pods are ready, and how many there should be."""


class PortTakenError(Exception):
    """The address of the ingress is in use."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How `up` was asked to run."""

    state: State
    port: int
    """0 takes a free one."""
    baseline: tuple[Path, ...]
    """What a new lab applies, besides what is built in."""
    mesh_baseline: tuple[Path, ...]
    """What it applies as well when it has a mesh."""
    mesh: Callable[[Cluster], Mesh] | None
    no_mesh_reason: str = ""


def free_port(port: int) -> int:
    """A port of localhost that can be bound: the given one, or any for 0. Raises PortTakenError."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise PortTakenError(
                f"port {port} on localhost can't be used: {error.strerror}"
            ) from None
        return int(probe.getsockname()[1])


def https_port(port: int, http_port: int) -> int:
    """8443 beside 8080 when it is free, else any."""
    wanted = 8443 if port == 8080 else 0
    with contextlib.suppress(PortTakenError):
        found = free_port(wanted)
        if found != http_port:
            return found
    return free_port(0)


def database(environ: Mapping[str, str]) -> str:
    """Where the guestbook's messages are kept: external, mariadb, mysql or sqlite."""
    if environ.get("DATABASE_URL"):
        return "external"
    server = mysql.installed()
    if server is None:
        return "sqlite"
    return "mariadb" if mysql.is_mariadb(server) else "mysql"


def overrides(
    state: State, environ: Mapping[str, str]
) -> Callable[[Mapping[str, str]], dict[str, str]]:
    """What replaces a container's settings: the user's own servers, and SQLite without MySQL."""
    url = environ.get("DATABASE_URL", "")
    if not url and database(environ) == "sqlite":
        url = f"sqlite:///{state.volumes}/guestbook.sqlite"
    cache = {name: environ[name] for name in ("REDIS_HOST", "REDIS_PORT") if environ.get(name)}

    def chosen(env: Mapping[str, str]) -> dict[str, str]:
        values = {EMBEDDED: "1"} if environ.get(EMBEDDED) else {}
        if url and "MYSQL_DATABASE" in env:
            values["DATABASE_URL"] = url
        if cache.get("REDIS_HOST") and "REDIS_HOST" in env:
            values |= {"REDIS_PORT": "6379"} | cache
        return values

    return chosen


def credentials(namespace: str = "default") -> tuple[str, str]:
    """The Secret that the MySQL manifests expect, with new passwords."""
    text = (
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: mysql-credentials\n"
        f"  namespace: {namespace}\nstringData:\n"
        f'  root-password: "{secrets.token_hex(16)}"\n  password: "{secrets.token_hex(16)}"\n'
    )
    return "(generated)", text


@contextlib.asynccontextmanager
async def lab(plan: Plan, environ: Mapping[str, str], say: Say) -> AsyncIterator[Cluster]:
    """A running lab; when the block ends everything in it is stopped."""
    state = plan.state
    mark = str(state.folder)
    if swept := process.sweep(mark):
        say(f"Cleared away {swept} processes of an earlier run")
    warden = process.start_warden(mark)
    slice_ = take_slice(mark)
    http_port = free_port(plan.port)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(_end_warden, warden)
        stack.callback(slice_.close)
        client = await stack.enter_async_context(
            httpx.AsyncClient(verify=False, trust_env=False, follow_redirects=False)  # noqa: S501
        )
        cluster = Cluster(
            state,
            slice_,
            Options(http_port, https_port(plan.port, http_port), overrides(state, environ)),
            client,
        )
        if plan.mesh is not None:
            cluster.mesh = plan.mesh(cluster)
        _fill(cluster, plan, say)
        rounds = asyncio.create_task(cluster.run())
        stack.push_async_callback(_cancel, rounds)
        stack.push_async_callback(cluster.stop, STOP_GRACE)
        cluster.changed()
        yield cluster


def _end_warden(warden: Any) -> None:
    if warden.stdin is not None:
        warden.stdin.close()
    warden.wait()


async def _cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _fill(cluster: Cluster, plan: Plan, say: Say) -> None:
    """Restore what was applied, or apply the baseline to a new lab. Raises ManifestError."""
    filled, meshed = plan.state.folder / "filled", plan.state.folder / "meshed"
    if filled.exists():
        for problem in cluster.store.restore():
            say(f"Not restored: {problem}")
        say(f"Restored {sum(1 for _ in cluster.store.all())} resources of {plan.state.folder}")
    else:
        # What a first start that was interrupted has left is half of something.
        for file in plan.state.resources.iterdir():
            file.unlink()
        _apply(cluster, "builtin.yaml", [credentials()], plan.baseline, say)
        filled.touch()
    if plan.mesh is not None and not meshed.exists():
        # A new lab, or one that has run without a mesh so far.
        _apply(cluster, "gateway.yaml", [], plan.mesh_baseline, say)
        api.change(
            cluster, "labels", "ns", "", ["default"], {"istio-injection": "enabled"}, overwrite=True
        )
        meshed.touch()


def _apply(
    cluster: Cluster,
    builtin: str,
    texts: list[tuple[str, str]],
    baseline: tuple[Path, ...],
    say: Say,
) -> None:
    """Apply a file of this package, `texts` and the manifests at `baseline`."""
    own = (f"(built in) {builtin}", (Path(__file__).parent / builtin).read_text())
    files = [text for path in baseline for text in load.read(_shown(path))]
    applied = api.apply(cluster, [own, *texts, *files])
    shown = ", ".join(map(_shown, baseline)) or builtin
    say(f"Applied {len(applied.results)} resources of {shown}")


def _shown(path: Path) -> str:
    """A path as people would type it here."""
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


async def run(
    plan: Plan,
    environ: Mapping[str, str],
    say: Say,
    progress: Progress,
    ready: Callable[[Cluster], None],
) -> None:
    """Run a lab until SIGINT, SIGTERM or `down`; `ready` is called when all of it serves.

    Raises ManifestError, NoAddressesError and PortTakenError, and then nothing is left running.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    began = time.time()
    async with lab(plan, environ, say) as cluster:
        server = control.bind(plan.state.socket)
        app = control.application(
            cluster, lambda: status(cluster, plan, environ, began), stopped.set
        )
        serving = asyncio.create_task(control.serve(app, server))
        try:
            waiting = asyncio.create_task(_report_progress(cluster, say, progress))
            ending = asyncio.create_task(stopped.wait())
            await asyncio.wait({waiting, ending}, return_when=asyncio.FIRST_COMPLETED)
            if waiting.done() and not stopped.is_set():
                waiting.result()
                ready(cluster)
                await ending
            waiting.cancel()
            say("Stopping")
        finally:
            await _cancel(serving)
            plan.state.socket.unlink(missing_ok=True)


async def _report_progress(cluster: Cluster, say: Say, progress: Progress) -> None:
    """A line for each pod that becomes ready, until the workloads are as many as they should be."""
    seen: set[str] = set()
    revision = -1
    complained: set[str] = set()
    while True:
        wanted, ready = _counts(cluster)
        progress(ready, wanted)
        for runner in cluster.runners.values():
            name = runner.model.name
            if runner.model.ready and name not in seen:
                seen.add(name)
                say(f"Ready {min(len(seen), wanted)}/{wanted}: {runner.model.namespace}/{name}")
            for problem in _problems(runner):
                if problem not in complained:
                    complained.add(problem)
                    say(problem)
        if cluster.problem and cluster.problem not in complained:
            complained.add(cluster.problem)
            say(cluster.problem)
        if ready >= wanted:
            # The proxies have yet to hear of the last pods: before that the page is in part away.
            await cluster.settled(cluster.revision, CONFIGURED)
            return
        await cluster.wait_for_change(revision, 5)
        revision = cluster.revision


def _counts(cluster: Cluster) -> tuple[int, int]:
    wanted = sum(
        record.resource.spec.replicas
        for kind in ("Deployment", "StatefulSet")
        for record in cluster.store.of(kind)
        if cluster.runs(record.resource)
    )
    wanted += len(cluster.store.of("Pod"))
    return wanted, sum(runner.model.ready for runner in cluster.runners.values())


def _problems(runner: PodRunner) -> list[str]:
    found = []
    for name, container in runner.runners.items():
        status_ = container.status
        if status_.reason in ("CrashLoopBackOff", "CreateContainerConfigError", "StartError"):
            where = f"guestbook logs {runner.model.name} -c {name} -n {runner.model.namespace}"
            why = status_.message.partition("\n")[0]
            found.append(f"{runner.model.name}: {status_.reason} {why} (see: {where})")
    return found


def address(cluster: Cluster) -> str:
    return f"http://localhost:{cluster.options.http_port}"


def status(
    cluster: Cluster, plan: Plan, environ: Mapping[str, str], began: float
) -> dict[str, Any]:
    """What `guestbook status` shows."""
    wanted, ready = _counts(cluster)
    policies = [record.resource for record in cluster.store.of("RequestAuthentication")]
    return {
        "pid": os.getpid(),
        "state": str(plan.state.folder),
        "ingress": address(cluster),
        "ingressHttps": f"https://localhost:{cluster.options.https_port}",
        "mesh": plan.mesh is not None,
        "meshReason": plan.no_mesh_reason,
        "database": database(environ),
        "redis": "external" if environ.get("REDIS_HOST") else (redis.installed() or "embedded"),
        "slice": cluster.addresses.number,
        "ready": ready,
        "wanted": wanted,
        "uptime": round(time.time() - began, 1),
        "problem": cluster.problem,
        "rejected": list(cluster.rejected),
        "warnings": cluster.mesh.key_warnings(policies) if cluster.mesh is not None else [],
    }
