"""Ways into a pod: `exec`, `port-forward` and the logs of a container."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lab.cluster import container_commands
from lab.cluster.api import RefusedError
from lab.cluster.controllers import WORKLOADS
from lab.cluster.pod import PodRunner
from lab.cluster.running import Cluster
from lab.kinds.services import resolve_port, selected
from lab.names import PROXY


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


def exec_command(
    cluster: Cluster, namespace: str, pod: str, container: str | None, argv: Sequence[str]
) -> dict[str, Any]:
    """Returns command line, environment and folder; the client itself runs the command."""
    runner, name = find_container(cluster, namespace, pod, container)
    running = runner.runners.get(name)
    if running is None or running.pid is None or running.current is None:
        raise RefusedError(f'unable to upgrade connection: container "{name}" is not running')
    caller = container_commands.Caller(
        pod=runner.model,
        proxy_container=name == PROXY,
        services=cluster.services.all(),
        pods=cluster.pods(),
    )
    env = dict(running.current.env)
    if name == PROXY:
        for variable in ("http_proxy", "https_proxy"):
            env.pop(variable, None)
        words = list(argv)
    else:
        words = runner.rewritten(running.spec, argv)
    return {
        "argv": container_commands.executed(words, caller, env),
        "env": env,
        "folder": str(running.current.folder),
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
    for runner in cluster.runners.values():
        if runner.model.ready and selected(service, runner.model):
            number = resolve_port(runner.model, chosen[0].target_port)
            if number is not None:
                return _inside(runner, number)
    raise RefusedError(f"Service {name} has no ready pod")


def _inside(runner: PodRunner, port: int) -> dict[str, Any]:
    model = runner.model
    # A gateway's Envoy listens on the pod's address, but for its own health check.
    gateway = model.proxy == "gateway" and port in model.ports.values() and port != 15021
    address = model.address if gateway else runner.application_address
    return {"address": address, "port": port, "pod": model.name}
