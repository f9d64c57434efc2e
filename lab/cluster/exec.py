"""Ways into a pod: `exec` and `port-forward`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lab.cluster import container_commands
from lab.cluster.api import RefusedError
from lab.cluster.cluster import Cluster
from lab.cluster.pod import PodRunner
from lab.kinds.services import resolve_port, selected
from lab.names import PROXY


def _runner(cluster: Cluster, namespace: str, name: str) -> PodRunner:
    runner = cluster.runners.get((namespace, name))
    if runner is None:
        raise RefusedError(f'pods "{name}" not found', missing=True)
    return runner


def exec_command(
    cluster: Cluster, namespace: str, pod: str, container: str | None, argv: Sequence[str]
) -> dict[str, Any]:
    """The command line, environment and folder with which the client runs a command of a pod."""
    runner = _runner(cluster, namespace, pod)
    names = runner.containers()
    name = container or names[0]
    if name not in names:
        raise RefusedError(
            f"container {name} is not valid for pod {pod}; it has: {', '.join(names)}"
        )
    command = runner.runners[name].current if name in runner.runners else None
    if command is None or runner.runners[name].pid is None:
        raise RefusedError(f'unable to upgrade connection: container "{name}" is not running')
    view = container_commands.View(
        pod=runner.model,
        proxy_container=name == PROXY,
        services=cluster.services(),
        pods=tuple(cluster.pods()),
    )
    env = dict(command.env)
    if name == PROXY:
        for variable in ("http_proxy", "https_proxy"):
            env.pop(variable, None)
        words = list(argv)
    else:
        spec = next(c for c in runner.spec.containers if c.name == name)
        words = runner.rewritten(spec, list(argv))
    return {
        "argv": container_commands.executed(words, view, env),
        "env": env,
        "folder": str(command.folder),
    }


def forward_target(
    cluster: Cluster, kind: str, namespace: str, name: str, port: str
) -> dict[str, Any]:
    """Where a forwarded connection goes: the inside of one pod, as kubelet does it."""
    if kind == "Service":
        return _service_target(cluster, namespace, name, port)
    if kind in ("Deployment", "StatefulSet"):
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
    service = next(
        (s for s in cluster.services() if (s.namespace, s.name) == (namespace, name)), None
    )
    if service is None:
        raise RefusedError(f'services "{name}" not found', missing=True)
    chosen = [item for item in service.ports if port in (item.name, str(item.port))]
    if not chosen:
        raise RefusedError(f"Service {name} does not have a service port {port}")
    for runner in cluster.runners.values():
        model = runner.model
        if (
            model.ready
            and selected(service, model)
            and (number := resolve_port(model, chosen[0].target_port)) is not None
        ):
            return _inside(runner, number)
    raise RefusedError(f"Service {name} has no ready pod")


def _inside(runner: PodRunner, port: int) -> dict[str, Any]:
    own = port in runner.model.ports.values() or runner.model.proxy != "none"
    address = runner.application_address if own else runner.model.address
    if runner.model.proxy == "gateway" and port in runner.model.ports.values() and port != 15021:
        address = runner.model.address
    return {"address": address, "port": port, "pod": runner.model.name}
