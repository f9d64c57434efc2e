"""One pod (kubelet): its containers, its volumes, its readiness and its end."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from lab.cluster import environment, probes, process, programs, volumes
from lab.cluster.container import ContainerRunner, RestartPolicy
from lab.cluster.events import Event, Events, EventType, now
from lab.cluster.network import Network, Start, Way
from lab.cluster.probes import Target
from lab.cluster.process import Command
from lab.cluster.services import Services
from lab.cluster.state import State
from lab.cluster.store import Store
from lab.kinds.kubernetes.pod_spec import Container, LifecycleHandler, PodSpec, Probe
from lab.model import Pod
from lab.names import PROXY
from lab.observe.requests import Stream
from lab.resources.resource import Resource

HOOK_TIMEOUT = 3600.0
"""Seconds a preStop hook may take by itself; the pod's grace period ends it earlier."""

PROXY_READINESS_PERIOD = 15
"""Seconds, as in Istio's injection template (`values.global.proxy.readinessPeriodSeconds`)."""


class Proxies(Protocol):
    """The proxies of a mesh, as a pod starts and probes its own."""

    def command(self, pod: Pod, folder: Path) -> tuple[list[str], dict[str, str]]:
        """Writes a new proxy's first configuration; returns its command line and environment."""
        ...

    readiness: Probe


class Surroundings(Protocol):
    """The parts of the cluster that a pod uses; `running.Cluster` is them."""

    state: State
    events: Events
    network: Network
    store: Store
    services: Services
    requests: Stream

    @property
    def mesh(self) -> Proxies | None: ...

    def overrides(self, env: Mapping[str, str], /) -> Mapping[str, str]:
        """Returns the variables that the user's own servers replace."""
        ...

    def changed(self) -> None:
        """Told when the pod's state or readiness changes."""
        ...


Owner = tuple[str, str]
"""Kind and name of a pod's controller."""


@dataclass(slots=True)
class PodRunner:
    """A pod that runs; `resource` is the Pod, made from a template or applied as it is."""

    resource: Resource
    model: Pod
    cluster: Surroundings
    owner: Owner | None = None
    template: str = ""
    """The hash of the template it was made from."""
    created: float = field(default_factory=time.time)
    created_at: str = field(default_factory=now)
    phase: Literal["Pending", "Running", "Succeeded", "Failed"] = "Pending"
    deleted_at: str = ""
    runners: dict[str, ContainerRunner] = field(default_factory=dict)
    """Its containers by name."""
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    ready_since: str = ""
    first_ready: float = math.inf
    """The time when it was ready for the first time, in seconds since 1970."""
    _task: asyncio.Task[None] | None = None

    @property
    def spec(self) -> PodSpec:
        spec: PodSpec = self.resource.spec
        return spec

    @property
    def grace(self) -> int:
        """Seconds between SIGTERM and SIGKILL."""
        return self.spec.termination_grace_period_seconds

    @property
    def key(self) -> tuple[str, str]:
        return self.model.namespace, self.model.name

    @property
    def terminating(self) -> bool:
        return bool(self.deleted_at)

    @property
    def folder(self) -> Path:
        """Holds its volumes, its containers' roots and its proxy's configuration."""
        return self.cluster.state.pods / self.model.namespace / self.model.name

    @property
    def proxy_folder(self) -> Path:
        return self.folder / PROXY

    @property
    def proxy_running(self) -> bool:
        """Whether the proxy serves and can confirm a new configuration."""
        return PROXY in self.runners and self.runners[PROXY].started

    def log(self, container: str) -> Path:
        namespace, name = self.key
        return self.cluster.state.logs / namespace / name / f"{container}.log"

    def reports(self, container: str) -> Callable[[bytes], bool] | None:
        """Returns the reader of the requests that a proxy reports among its output."""
        if container != PROXY:
            return None
        return lambda line: self.cluster.requests.take(self.model, line)

    def containers(self) -> list[str]:
        """Returns the names of its containers, the sidecar last."""
        names = [container.name for container in self.spec.containers]
        return names if self.model.proxy == "none" else [*(n for n in names if n != PROXY), PROXY]

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="/".join(self.key))

    def report(self, type_: EventType, reason: str, message: str) -> None:
        namespace, name = self.key
        self.cluster.events.add(Event("Pod", namespace, name, type_, reason, message))

    def update(self, **changes: object) -> None:
        self.model = replace(self.model, **changes)  # type: ignore[arg-type]

    def container_changed(self) -> None:
        """Works out the pod's readiness after a change of a container."""
        ready = (
            bool(self.runners)
            and not self.terminating
            and all(name in self.runners for name in self.containers())
            and all(runner.ready for runner in self.runners.values())
        )
        if ready != self.model.ready:
            self.update(ready=ready)
            self.ready_since = now() if ready else ""
            self.first_ready = min(self.first_ready, time.time() if ready else math.inf)
        self.cluster.changed()

    async def stop(self, *, grace: float | None = None, hooks: bool = True) -> None:
        """Ends the pod: not ready, preStop, SIGTERM, SIGKILL after the grace period, gone."""
        if self.terminating:
            await self.gone.wait()
            return
        self.deleted_at = now()
        self.update(ready=False)
        self.cluster.changed()
        allowed = float(self.grace if grace is None else grace)
        applications = [r for name, r in self.runners.items() if name != PROXY]
        await asyncio.gather(*(self._stop_container(r, allowed, hooks) for r in applications))
        if (proxy := self.runners.get(PROXY)) is not None:
            await proxy.stop(min(allowed, 5.0))
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await asyncio.to_thread(shutil.rmtree, self.folder, True)
        self.gone.set()

    def remove_logs(self) -> None:
        shutil.rmtree(self.log("x").parent, ignore_errors=True)

    def wake(self) -> None:
        for runner in self.runners.values():
            runner.wake()

    async def _stop_container(self, runner: ContainerRunner, grace: float, hooks: bool) -> None:
        began = time.monotonic()
        lifecycle = runner.spec.lifecycle
        if hooks and lifecycle is not None and lifecycle.pre_stop is not None and runner.pid:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await self._pre_stop(lifecycle.pre_stop, runner)
        await runner.stop(max(1.0, grace - (time.monotonic() - began)))

    async def _pre_stop(self, hook: LifecycleHandler, runner: ContainerRunner) -> None:
        command = runner.current
        if hook.sleep is not None:
            await asyncio.sleep(hook.sleep.seconds)
        elif hook.exec is not None and command is not None:
            inside = self._inside(runner.spec, hook.exec.command, command)
            await process.run(inside, timeout=HOOK_TIMEOUT)
        elif hook.http_get is not None:
            await probes.http_get(hook.http_get, self._target(probes.way(self.model)), HOOK_TIMEOUT)

    async def _run(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        proxy = await self._start_proxy() if self.model.proxy != "none" else None
        applications = [
            self._runner(container, self.spec.restart_policy).run()
            for container in self.spec.containers
            if container.name != PROXY
        ]
        self.phase = "Running"
        self.container_changed()
        codes = await asyncio.gather(*applications)
        if not applications and proxy is not None:
            await proxy
        elif not self.terminating:
            self.phase = "Failed" if any(codes) else "Succeeded"
            if proxy is not None:
                await self.runners[PROXY].stop(5)
            self.container_changed()

    async def _start_proxy(self) -> asyncio.Task[int]:
        """Starts the proxy and waits until it serves: a native sidecar is up before the rest."""
        if self.cluster.mesh is None:
            raise RuntimeError("a pod with a proxy needs a mesh")
        startup = self.cluster.mesh.readiness
        readiness = startup.model_copy(update={"period_seconds": PROXY_READINESS_PERIOD})
        spec = Container(
            name=PROXY, image=programs.PROXY_IMAGE, startupProbe=startup, readinessProbe=readiness
        )
        runner = self._runner(spec, "Always")
        proxy = asyncio.create_task(runner.run())
        while not runner.started and not proxy.done():
            await asyncio.sleep(0.02)
        return proxy

    def _runner(self, spec: Container, restart: RestartPolicy) -> ContainerRunner:
        runner = ContainerRunner(spec, self, restart)
        self.runners[spec.name] = runner
        return runner

    def command(self, container: Container) -> Command:
        """Makes files, environment and command line of a start. Raises MissingReferenceError."""
        if container.name == PROXY and self.cluster.mesh is not None:
            folder = self.proxy_folder
            folder.mkdir(parents=True, exist_ok=True)
            argv, extra = self.cluster.mesh.command(self.model, folder)
            command = Command(argv, self._base_environment() | extra, folder)
            return self.cluster.network.enter(self.model, command)
        return self._application_command(container)

    def probe_target(self, container: Container, probe: Probe, command: Command) -> Target:
        """Returns a started container as a probe of it finds it."""
        target = self._target("agent" if container.name == PROXY else probes.way(self.model))
        if probe.exec is None:
            return target
        return replace(target, command=self._inside(container, probe.exec.command, command))

    def _target(self, way: Way) -> Target:
        connect = functools.partial(self.cluster.network.connect, self.model, way=way)
        return Target(self.model.address, connect, self.model.ports)

    def _inside(self, spec: Container, argv: list[str], command: Command) -> Command:
        return self.cluster.network.exec(self.model, spec, argv, command)

    def _base_environment(self) -> dict[str, str]:
        bin_folder = str(Path(sys.executable).parent)
        return {
            "PATH": f"{bin_folder}:{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin",
            "LANG": os.environ.get("LANG", "C.UTF-8"),
            "HOME": str(self.folder),
            "HOSTNAME": self.spec.hostname or self.model.name,
            "PYTHONUNBUFFERED": "1",
            process.MARK: str(self.cluster.state.folder),
        }

    def _lookup(self, kind: str, name: str) -> Any:
        return self.cluster.store.body(kind, self.model.namespace, name)

    def _application_command(self, container: Container) -> Command:
        claims = self.cluster.state.volumes / self.model.namespace
        folders = {
            volume.name: volumes.make(volume, self.folder / "volumes", claims, self._lookup)
            for volume in self.spec.volumes
        }
        argv, variables = programs.program(container.image, container.command, container.args)
        if self.spec.enable_service_links:
            services = self.cluster.services.all()
            variables |= environment.service_links(services, self.model.namespace)
        variables |= environment.declared(container, self.model, self._lookup)
        folder = self.folder / container.name
        folder.mkdir(parents=True, exist_ok=True)
        start = Start(
            container=container,
            argv=argv,
            variables=variables,
            overrides=self.cluster.overrides(variables),
            base=self._base_environment(),
            volumes=folders,
            folder=folder,
        )
        return self.cluster.network.start(self.model, start)
