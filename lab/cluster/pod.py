"""One pod: its containers, its volumes, its readiness and its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

import httpx

from lab import versions
from lab.cluster import container_commands, environment, process, programs, volumes
from lab.cluster.container import Command, ContainerRunner, Settings
from lab.cluster.environment import Lookup, Resolve
from lab.cluster.events import Event, Events, now
from lab.cluster.probes import Target, http_get
from lab.cluster.state import State
from lab.kinds.kubernetes.pod_spec import Container, LifecycleHandler, PodSpec, Probe
from lab.model import Pod, Service
from lab.names import PROXY
from lab.resources.resource import Resource

PROXY_READINESS_PERIOD = 15
"""Seconds, as in Istio's injection template (`values.global.proxy.readinessPeriodSeconds`)."""


class Proxies(Protocol):
    """What runs beside the pods; the mesh implements it."""

    def command(self, pod: Pod, folder: Path) -> tuple[list[str], dict[str, str]]:
        """Write a new proxy's first configuration; its command line and environment."""
        ...

    readiness: Probe
    """Asked at the pod's inside address."""


@dataclass(frozen=True, slots=True)
class World:
    """What a pod needs of the cluster around it."""

    state: State
    events: Events
    client: httpx.AsyncClient
    changed: Callable[[], None]
    lookup: Callable[[str], Lookup]
    """A namespace to its objects."""
    services: Callable[[], tuple[Service, ...]]
    resolve: Callable[[Pod], Resolve]
    """Where host names in the pod's environment lead."""
    overrides: Callable[[Mapping[str, str]], Mapping[str, str]]
    """What the user's own environment replaces (DATABASE_URL, REDIS_HOST)."""
    proxies: Proxies | None


@dataclass(slots=True)
class PodRunner:
    """A pod that runs; `resource` is the Pod, made from a template or applied as it is."""

    resource: Resource
    model: Pod
    world: World
    owner: tuple[str, str] | None = None
    """Kind and name of its controller."""
    template: str = ""
    created: float = field(default_factory=time.time)
    created_at: str = field(default_factory=now)
    phase: Literal["Pending", "Running", "Succeeded", "Failed"] = "Pending"
    deleted_at: str = ""
    runners: dict[str, ContainerRunner] = field(default_factory=dict)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    ready_since: str = ""
    _task: asyncio.Task[None] | None = None
    _folder: Path = field(init=False)

    def __post_init__(self) -> None:
        self._folder = self.world.state.pods / self.model.namespace / self.model.name

    @property
    def spec(self) -> PodSpec:
        spec: PodSpec = self.resource.spec
        return spec

    @property
    def key(self) -> tuple[str, str]:
        return self.model.namespace, self.model.name

    @property
    def terminating(self) -> bool:
        return bool(self.deleted_at)

    @property
    def folder(self) -> Path:
        return self._folder

    @property
    def application_address(self) -> str:
        """Where the application binds."""
        return self.model.inside_address if self.model.proxy != "none" else self.model.address

    @property
    def proxy_folder(self) -> Path:
        return self._folder / PROXY

    @property
    def proxy_running(self) -> bool:
        """Whether the proxy serves and can confirm a new configuration."""
        return PROXY in self.runners and self.runners[PROXY].started

    def log(self, container: str) -> Path:
        namespace, name = self.key
        return self.world.state.logs / namespace / name / f"{container}.log"

    def containers(self) -> list[str]:
        """The names of its containers, the sidecar last."""
        names = [container.name for container in self.spec.containers]
        return names if self.model.proxy == "none" else [*(n for n in names if n != PROXY), PROXY]

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="/".join(self.key))

    def report(self, type_: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        namespace, name = self.key
        self.world.events.add(Event("Pod", namespace, name, type_, reason, message))

    def update(self, **changes: object) -> None:
        self.model = replace(self.model, **changes)  # type: ignore[arg-type]

    def container_changed(self) -> None:
        """A container's state or readiness changed."""
        ready = (
            bool(self.runners)
            and not self.terminating
            and all(name in self.runners for name in self.containers())
            and all(runner.ready for runner in self.runners.values())
        )
        if ready != self.model.ready:
            self.update(ready=ready)
            self.ready_since = now() if ready else ""
        self.world.changed()

    async def stop(self, *, grace: float | None = None, hooks: bool = True) -> None:
        """End the pod: not ready, preStop, SIGTERM, SIGKILL after the grace period, gone."""
        if self.terminating:
            await self.gone.wait()
            return
        self.deleted_at = now()
        self.update(ready=False)
        self.world.changed()
        allowed = float(self.spec.termination_grace_period_seconds if grace is None else grace)
        applications = [r for name, r in self.runners.items() if name != PROXY]
        await asyncio.gather(*(self._stop_container(r, allowed, hooks) for r in applications))
        if (proxy := self.runners.get(PROXY)) is not None:
            await proxy.stop(min(allowed, 5.0))
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await asyncio.to_thread(shutil.rmtree, self._folder, True)
        self.gone.set()

    def remove_logs(self) -> None:
        shutil.rmtree(self.log("x").parent, ignore_errors=True)

    def wake(self) -> None:
        for runner in self.runners.values():
            runner.wake()

    async def _stop_container(self, runner: ContainerRunner, grace: float, hooks: bool) -> None:
        began = time.monotonic()
        container = next(c for c in self.spec.containers if c.name == runner.settings.name)
        hook = container.lifecycle.pre_stop if container.lifecycle is not None else None
        if hook is not None and hooks and runner.pid is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await self._pre_stop(hook, container, runner)
        await runner.stop(max(1.0, grace - (time.monotonic() - began)))

    async def _pre_stop(
        self, hook: LifecycleHandler, container: Container, runner: ContainerRunner
    ) -> None:
        command = runner.current
        if hook.sleep is not None:
            await asyncio.sleep(hook.sleep.seconds)
        elif hook.exec is not None and command is not None:
            argv = self.translate(container, hook.exec.command, command.env)
            await process.run(argv, env=command.env, cwd=command.folder, timeout=3600)
        elif hook.http_get is not None and command is not None:
            target = Target(self.application_address, self.model.ports, {}, command.folder)
            await http_get(hook.http_get, target, self.world.client, 3600)

    async def _run(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        started: list[Awaitable[int]] = []
        if self.model.proxy != "none":
            runner = self._runner(self._proxy_settings())
            proxy = asyncio.create_task(runner.run())
            # A native sidecar is up before the application starts.
            while not runner.started and not proxy.done():
                await asyncio.sleep(0.02)
        started += [
            self._runner(self._settings(container)).run()
            for container in self.spec.containers
            if container.name != PROXY
        ]
        self.phase = "Running"
        self.container_changed()
        codes = await asyncio.gather(*started)
        if started and not self.terminating:
            self.phase = "Failed" if any(codes) else "Succeeded"
            if (sidecar := self.runners.get(PROXY)) is not None:
                await sidecar.stop(5)
            self.container_changed()
        elif not started:
            await proxy

    def _runner(self, settings: Settings) -> ContainerRunner:
        runner = ContainerRunner(settings, self.container_changed, self.report, self.world.client)
        self.runners[settings.name] = runner
        return runner

    def _settings(self, container: Container) -> Settings:
        return Settings(
            name=container.name,
            image=container.image,
            command=lambda: self._command(container),
            target=lambda probe, command: self._target(container, probe, command),
            log=self.log(container.name),
            restart=self.spec.restart_policy,
            grace=self.spec.termination_grace_period_seconds,
            startup=container.startup_probe,
            readiness=container.readiness_probe,
            liveness=container.liveness_probe,
        )

    def _proxy_settings(self) -> Settings:
        proxies = self.world.proxies
        if proxies is None:
            raise RuntimeError("a pod with a proxy needs a mesh")
        folder = self.proxy_folder

        def command() -> Command:
            folder.mkdir(parents=True, exist_ok=True)
            argv, extra = proxies.command(self.model, folder)
            return Command(argv, self._base_environment() | extra, folder)

        return Settings(
            name=PROXY,
            image=versions.proxy_image(),
            command=command,
            target=lambda _probe, command: Target(
                self.model.inside_address, {}, command.env, command.folder
            ),
            log=self.log(PROXY),
            startup=proxies.readiness,
            readiness=proxies.readiness.model_copy(
                update={"period_seconds": PROXY_READINESS_PERIOD}
            ),
        )

    def _target(self, container: Container, probe: Probe, command: Command) -> Target:
        address = self.application_address
        if self.model.annotations.get("sidecar.istio.io/rewriteAppHTTPProbers") == "false":
            address = self.model.address
        argv = None
        if probe.exec is not None:
            argv = self.translate(container, probe.exec.command, command.env)
        return Target(address, self.model.ports, command.env, command.folder, argv)

    def _base_environment(self) -> dict[str, str]:
        bin_folder = str(Path(sys.executable).parent)
        return {
            "PATH": f"{bin_folder}:{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin",
            "LANG": os.environ.get("LANG", "C.UTF-8"),
            "HOME": str(self._folder),
            "HOSTNAME": self.spec.hostname or self.model.name,
            "PYTHONUNBUFFERED": "1",
            process.MARK: str(self.world.state.folder),
        }

    def rewritten(self, container: Container, argv: list[str]) -> list[str]:
        """A command line with the container's paths turned into the machine's."""
        root = self._folder / container.name / "root"
        return [volumes.rewrite(word, container.volume_mounts, root) for word in argv]

    def translate(self, container: Container, argv: list[str], env: Mapping[str, str]) -> list[str]:
        """A probe's or a hook's command of this container as it is run here."""
        return container_commands.in_container(
            self.rewritten(container, argv), self.application_address, env
        )

    def _command(self, container: Container) -> Command:
        """Volumes, environment and command line of one start. Raises MissingReferenceError."""
        lookup = self.world.lookup(self.model.namespace)
        folder = self._folder / container.name
        claims = self.world.state.volumes / self.model.namespace
        folders = {
            volume.name: volumes.make(volume, self._folder / "volumes", claims, lookup)
            for volume in self.spec.volumes
        }
        root = folder / "root"
        volumes.link(container, folders, root)
        values = environment.declared(container, self.model, lookup)
        argv, image = programs.program(container.image, container.command, container.args)
        links: dict[str, str] = {}
        if self.spec.enable_service_links:
            links = environment.service_links(self.world.services(), self.model.namespace)
        resolve = self.world.resolve(self.model)
        merged = image | links | values
        redirected = {
            name: environment.redirect(name, value, resolve) for name, value in merged.items()
        }
        mounts = container.volume_mounts
        env = self._base_environment()
        env |= {name: volumes.rewrite(value, mounts, root) for name, value in redirected.items()}
        env |= self.world.overrides(merged)
        env |= {"HOST": self.application_address, "GUESTBOOK_ROOT": str(root)}
        if any(mount.mount_path.rstrip("/") == "/tmp" for mount in mounts):  # noqa: S108
            env["TMPDIR"] = str(root / "tmp")
        if self.model.proxy != "none":
            proxy = f"http://{self.model.inside_address}:15001"
            env |= {
                "http_proxy": proxy,
                "https_proxy": proxy,
                "no_proxy": f"localhost,127.0.0.1,{self.model.inside_address}",
            }
        # Python is the machine's, also where the container mounts something above it, as /tmp.
        words = [
            word
            if word == programs.PYTHON
            else volumes.rewrite(environment.expand(word, merged), mounts, root)
            for word in argv
        ]
        work = container.working_dir
        place = Path(volumes.rewrite(work, mounts, root)) if work else folder
        return Command(words, env, place if place.is_dir() else folder)
