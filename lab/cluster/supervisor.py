"""One lab from start to end: addresses, objects, control loops, the control socket."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from lab import versions
from lab.cluster import api, control_loops, exec, process, programs, server, servers
from lab.cluster.controllers import workloads
from lab.cluster.host_ports import PortTakenError, free_port, https_port
from lab.cluster.network import Network
from lab.cluster.pod import PodRunner
from lab.cluster.running import Cluster, Mesh
from lab.cluster.services import Services
from lab.cluster.state import State
from lab.cluster.store import Store
from lab.manifests.read import read
from lab.observe import metrics

STOP_GRACE = 5.0
"""Seconds that pods get to end when the lab stops."""

CONFIGURED = 10.0
"""Seconds that the proxies get to take the last change of a start."""

Say = Callable[[str], None]
"""Takes one line of progress."""

OpenNetwork = Callable[[State], Awaitable[Network]]

Progress = Callable[[int, int], None]
"""Takes how many pods are ready, and how many there should be."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The options of `up`."""

    state: State
    port: int
    """0 takes a free one."""
    baseline: tuple[Path, ...]
    """Manifests that a new lab applies, besides the built-in ones."""
    mesh_baseline: tuple[Path, ...]
    """Manifests that it applies as well when it has a mesh."""
    mesh: Callable[[Cluster], Mesh] | None
    network: OpenNetwork
    no_mesh_reason: str = ""
    network_refusal: str = ""
    """The reason why pods have no networks of their own, where they should."""


@contextlib.asynccontextmanager
async def lab(plan: Plan, environ: Mapping[str, str], say: Say) -> AsyncIterator[Cluster]:
    """Runs a lab; when the block ends everything in it is stopped."""
    state = plan.state
    programs.play(json.loads(state.images.read_text()) if state.images.exists() else {})
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(process.reaper(str(state.folder)))
        network = await plan.network(state)
        stack.callback(network.close)
        http_port = free_port(plan.port)
        client = await stack.enter_async_context(
            httpx.AsyncClient(verify=False, trust_env=False, follow_redirects=False)  # noqa: S501
        )
        store = Store(state.resources)
        services = Services(store, network, http_port, https_port(plan.port, http_port))
        overrides = servers.overrides(state, environ)
        cluster = Cluster(state, network, store, services, client, overrides)
        if plan.mesh is not None:
            cluster.mesh = plan.mesh(cluster)
            _serve_metrics(cluster, stack)
        _fill(cluster, plan, say)
        stack.push_async_callback(_stop, cluster)
        stack.push_async_callback(_cancel, asyncio.create_task(control_loops.run(cluster)))
        cluster.changed()
        yield cluster


def _serve_metrics(cluster: Cluster, stack: contextlib.AsyncExitStack) -> None:
    try:
        port = free_port(metrics.PORT)
    except PortTakenError:
        port = free_port(0)
    server = cluster.metrics.serve(port)
    stack.callback(server.server_close)
    stack.callback(server.shutdown)
    cluster.metrics_address = f"http://localhost:{port}/metrics"


async def _stop(cluster: Cluster) -> None:
    """Ends every pod, without preStop hooks: nobody is left to drain for."""
    runners = cluster.runners.values()
    await asyncio.gather(*(runner.stop(grace=STOP_GRACE, hooks=False) for runner in runners))


async def _cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _fill(cluster: Cluster, plan: Plan, say: Say) -> None:
    """Restores the objects of before, or fills a new lab. Raises ManifestError."""
    filled, meshed = plan.state.folder / "filled", plan.state.folder / "meshed"
    if filled.exists():
        for problem in cluster.store.restore():
            say(f"Not restored: {problem}")
        say(f"Restored {sum(1 for _ in cluster.store.all())} resources of {plan.state.folder}")
    else:
        # A first start that was interrupted may have left a part of the objects.
        for file in plan.state.resources.iterdir():
            file.unlink()
        _apply(cluster, "builtin.yaml", [servers.credentials()], plan.baseline, say)
        filled.write_text(_listed(plan.baseline), encoding="utf-8")
    if plan.mesh is not None and not meshed.exists():
        # A new lab, or one that has run without a mesh so far.
        _apply(cluster, "gateway.yaml", [], plan.mesh_baseline, say)
        api.change(
            cluster, "labels", "ns", "", ["default"], {"istio-injection": "enabled"}, overwrite=True
        )
        meshed.write_text(_listed(plan.mesh_baseline), encoding="utf-8")


def _listed(files: tuple[Path, ...]) -> str:
    """Returns the files of a baseline, a line each, for `guestbook reset`."""
    return "\n".join(str(file.resolve()) for file in files) + "\n"


def _apply(
    cluster: Cluster,
    builtin: str,
    texts: list[tuple[str, str]],
    baseline: tuple[Path, ...],
    say: Say,
) -> None:
    """Applies a file of this package, `texts` and the manifests at `baseline`."""
    text = (Path(__file__).parent / builtin).read_text()
    own = (f"(built in) {builtin}", text.replace("$ISTIO_VERSION", versions.istio()))
    files = [text for path in baseline for text in read(_shown(path))]
    applied = api.apply(cluster, [own, *texts, *files])
    shown = ", ".join(map(_shown, baseline)) or builtin
    say(f"Applied {len(applied.results)} resources of {shown}")


def _shown(path: Path) -> str:
    """Returns a path as people would type it here."""
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
    """Runs a lab until SIGINT, SIGTERM or `down`; `ready` is called when all of it serves.

    Raises ManifestError, NoAddressesError and PortTakenError, and then nothing is left running.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    began = time.time()
    async with lab(plan, environ, say) as cluster:
        control = server.bind(plan.state.socket)
        app = server.application(
            cluster, lambda: status(cluster, plan, environ, began), stopped.set
        )
        serving = asyncio.create_task(server.serve(app, control))
        forwarding = await asyncio.start_unix_server(
            functools.partial(exec.forward, cluster), sock=server.bind(plan.state.forwarding)
        )
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
            forwarding.close()
            await _cancel(serving)
            for path in (plan.state.socket, plan.state.forwarding):
                path.unlink(missing_ok=True)


async def _report_progress(cluster: Cluster, say: Say, progress: Progress) -> None:
    """Says when each pod becomes ready, until there are as many as there should be."""
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
            # Until the proxies have the last pods as endpoints, a part of the page is missing.
            await cluster.settled(CONFIGURED)
            return
        await cluster.wait_for_change(revision, 5)
        revision = cluster.revision


def _counts(cluster: Cluster) -> tuple[int, int]:
    """Returns how many pods there should be, and how many are ready."""
    wanted = sum(record.resource.spec.replicas for record in workloads(cluster))
    wanted += len(cluster.store.of("Pod"))
    return wanted, sum(runner.model.ready for runner in cluster.runners.values())


def _problems(runner: PodRunner) -> list[str]:
    found = []
    for name, container in runner.runners.items():
        status_ = container.status
        if status_.reason in ("CrashLoopBackOff", "CreateContainerConfigError", "StartError"):
            command = f"guestbook logs {runner.model.name} -c {name} -n {runner.model.namespace}"
            message = status_.message.partition("\n")[0]
            found.append(f"{runner.model.name}: {status_.reason} {message} (see: {command})")
    return found


def _unready(cluster: Cluster) -> list[str]:
    """Returns the pods that should be ready and are not, each with its last warning."""
    found = []
    for (namespace, name), runner in cluster.runners.items():
        if runner.model.ready or runner.terminating or runner.phase == "Succeeded":
            continue
        place = ("Pod", namespace, name, "Warning")
        said = [
            event.message
            for event in cluster.events.all()
            if (event.kind, event.namespace, event.name, event.type) == place
        ]
        found.append(f"{namespace}/{name}: {said[-1] if said else 'starting'}")
    return found


def address(cluster: Cluster) -> str:
    """Returns the URL of the guestbook."""
    return f"http://localhost:{cluster.services.http_port}"


def status(
    cluster: Cluster, plan: Plan, environ: Mapping[str, str], began: float
) -> dict[str, Any]:
    """Returns the answer to `guestbook status`."""
    wanted, ready = _counts(cluster)
    policies = [record.resource for record in cluster.store.of("RequestAuthentication")]
    return {
        "pid": os.getpid(),
        "state": str(plan.state.folder),
        "ingress": address(cluster),
        "ingressHttps": f"https://localhost:{cluster.services.https_port}",
        "mesh": plan.mesh is not None,
        "meshReason": plan.no_mesh_reason,
        "database": servers.database(environ),
        "redis": servers.redis(environ),
        "network": cluster.network.name,
        "metrics": cluster.metrics_address,
        "networkRefusal": plan.network_refusal,
        "ready": ready,
        "wanted": wanted,
        "notReady": _unready(cluster),
        "uptime": round(time.time() - began, 1),
        "problem": cluster.problem,
        "rejected": list(cluster.rejected),
        "warnings": cluster.mesh.key_warnings(policies) if cluster.mesh is not None else [],
    }
