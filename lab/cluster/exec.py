"""Ways into a pod: `exec`, `port-forward` and the logs of a container."""

from __future__ import annotations

import json
from asyncio import StreamReader, StreamWriter
from collections.abc import Sequence
from typing import Any

from lab.cluster.api import RefusedError
from lab.cluster.controllers import WORKLOADS
from lab.cluster.logs import stamp
from lab.cluster.pod import PodRunner
from lab.cluster.running import Cluster
from lab.kinds.services import resolve_port, selected
from lab.names import PROXY
from lab.net import streams


def _runner(cluster: Cluster, namespace: str, name: str) -> PodRunner:
    runner = cluster.runners.get((namespace, name))
    if runner is None:
        raise RefusedError(f'pods "{name}" not found', missing=True)
    return runner


def find_container(
    cluster: Cluster, namespace: str, pod: str, container: str | None
) -> tuple[PodRunner, str]:
    """Returns a pod and the name of its container, by default its first. Raises RefusedError."""
    runner = _runner(cluster, namespace, pod)
    names = runner.containers()
    name = container or names[0]
    if name not in names:
        known = ", ".join(names)
        raise RefusedError(f"container {name} is not valid for pod {pod}; it has: {known}")
    return runner, name


def previous_run(runner: PodRunner, container: str) -> tuple[str, str]:
    """Returns when the run of a container before the present one began and ended.

    Raises RefusedError when it was never started again.
    """
    found = runner.runners.get(container)
    if found is None or not found.restarts:
        raise RefusedError(
            f'previous terminated container "{container}" in pod "{runner.model.name}" not found'
        )
    if found.pid is None:  # It waits for its next start.
        return found.starts[-1], stamp()
    return found.starts[-2], found.starts[-1]


def exec_command(
    cluster: Cluster, namespace: str, pod: str, container: str | None, argv: Sequence[str]
) -> dict[str, Any]:
    """Returns command line, environment and folder; the client itself runs the command."""
    runner, name = find_container(cluster, namespace, pod, container)
    running = runner.runners.get(name)
    if running is None or running.pid is None or running.current is None:
        raise RefusedError(f'unable to upgrade connection: container "{name}" is not running')
    command = cluster.network.exec(runner.model, running.spec, argv, running.current)
    return {
        "argv": command.argv,
        "env": dict(command.env),
        "folder": str(command.folder),
        # The process to whose namespaces the command has to go.
        "pid": command.inside,
        "network_admin": name == PROXY,
    }


def forward_target(
    cluster: Cluster, kind: str, namespace: str, name: str, port: str
) -> dict[str, Any]:
    """Returns the end of a forwarded connection: inside one pod, as kubelet does it."""
    if kind == "Service":
        return _service_target(cluster, namespace, name, port)
    if kind in WORKLOADS:
        runners = [r for r in cluster.owned(kind, namespace, name) if not r.terminating]
        if not runners:
            raise RefusedError(f"{kind.lower()} {name} has no pod")
        runner = next((r for r in runners if r.model.ready), runners[0])
    else:
        runner = _runner(cluster, namespace, name)
    number = int(port) if port.isdigit() else runner.model.ports.get(port)
    if number is None:
        raise RefusedError(f'pod {runner.model.name} has no port "{port}"')
    return _inside(runner, number)


def _service_target(cluster: Cluster, namespace: str, name: str, port: str) -> dict[str, Any]:
    service = cluster.services.get(namespace, name)
    if service is None:
        raise RefusedError(f'services "{name}" not found', missing=True)
    chosen = [item for item in service.ports if port in (item.name, str(item.port))]
    if not chosen:
        raise RefusedError(f"Service {name} does not have a service port {port}")
    if not service.selector:
        raise RefusedError(f"invalid service '{name}': Service is defined without a selector")
    for runner in cluster.runners.values():
        if runner.model.ready and selected(service, runner.model):
            number = resolve_port(runner.model, chosen[0].target_port)
            if number is not None:
                return _inside(runner, number)
    raise RefusedError(f"Service {name} has no ready pod")


def _inside(runner: PodRunner, port: int) -> dict[str, Any]:
    return {"port": port, "pod": runner.model.name}


async def forward(cluster: Cluster, reader: StreamReader, writer: StreamWriter) -> None:
    """Serves one forwarded connection: a line of JSON with namespace, pod and port, then bytes."""

    async def far() -> streams.Streams:
        to = json.loads(await reader.readline() or b"{}")
        runner = cluster.runners.get((to.get("namespace"), to.get("pod")))
        if runner is None:
            raise ConnectionRefusedError("no such pod")
        return await cluster.network.connect(runner.model, int(to["port"]), "port-forward")

    await streams.join(reader, writer, far)
