"""One container (kubelet): its process, its restarts and its probes."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

from lab.cluster import process
from lab.cluster.environment import MissingReferenceError
from lab.cluster.events import EventType, now
from lab.cluster.logs import ContainerLog, stamp
from lab.cluster.probes import Target, check
from lab.cluster.process import Command
from lab.kinds.kubernetes.pod_spec import Container, Probe

BACKOFF_MAX = 60.0
"""Seconds at most between restarts: kubelet waits 0, 10, 20 ... 300 s, the lab 0, 1, 2 ... 60 s."""

STABLE = 60.0
"""A container that ran this long starts again without delay."""

IMPATIENT = 0.5
"""Seconds between two readiness probes of a container that isn't ready: Kubernetes, too, may then
probe more often than `periodSeconds` says."""

EAGER = 0.1
"""Seconds from the first startup probe to the second. Each pause is longer than the one before, up
to `periodSeconds`: what starts in tenths of a second need not wait for the next whole one."""

TOGETHER = 0.05
"""Seconds within which a proxy's output is read at once: Envoy writes it in small pieces."""

RestartPolicy = Literal["Always", "OnFailure", "Never"]


@dataclass(slots=True)
class Status:
    """A container's state, in the API's words."""

    state: Literal["waiting", "running", "terminated"] = "waiting"
    reason: str = "ContainerCreating"
    message: str = ""
    exit_code: int = 0
    started_at: str = ""
    finished_at: str = ""


class Surroundings(Protocol):
    """The parts of its pod that a container uses; `pod.PodRunner` is them."""

    @property
    def grace(self) -> int: ...
    def log(self, container: str) -> Path: ...
    def reports(self, container: str) -> Callable[[bytes], bool] | None: ...
    def command(self, container: Container) -> Command: ...
    def probe_target(self, container: Container, probe: Probe, command: Command) -> Target: ...
    def container_changed(self) -> None: ...
    def report(self, type_: EventType, reason: str, message: str) -> None: ...


@dataclass(slots=True)
class ContainerRunner:
    """Keeps a container running as its pod's policy says."""

    spec: Container
    pod: Surroundings
    restart: RestartPolicy
    status: Status = field(default_factory=Status)
    last: Status | None = None
    ready: bool = False
    started: bool = False
    restarts: int = 0
    starts: list[str] = field(default_factory=list)
    """The time of each start, as its log writes times."""
    pid: int | None = None
    current: Command | None = None
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _exited: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> int:
        """Starts, restarts and probes until stopped or until the restart policy ends it.

        Returns the last exit status.
        """
        name = self.spec.name
        log = ContainerLog(self.pod.log(name), self.pod.reports(name))
        delay = 0.0
        try:
            while not self._stopping.is_set():
                began = time.monotonic()
                self.starts = [*self.starts[-1:], stamp()]
                status = await self._once(log)
                if self._stopping.is_set() or not self._again(status):
                    return status
                self.restarts += 1
                if time.monotonic() - began > STABLE:
                    delay = 0.0
                if delay:
                    self.last = self.status
                    why = f": {self.status.message}" if self.status.reason == "StartError" else ""
                    message = f"back-off {delay:.0f}s{why}"
                    self._set(Status(reason="CrashLoopBackOff", message=message))
                    self.pod.report("Warning", "BackOff", "Back-off restarting failed container")
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(delay):
                            await self._stopping.wait()
                delay = min(BACKOFF_MAX, delay * 2 or 1.0)
            return 0
        finally:
            log.close()

    async def stop(self, grace: float) -> None:
        """Sends SIGTERM, and after `grace` seconds SIGKILL."""
        self._stopping.set()
        self._wake.set()
        await self._end(grace)

    def wake(self) -> None:
        """Has a start that waits for a ConfigMap or a Secret look for it again."""
        self._wake.set()

    def _again(self, status: int) -> bool:
        return self.restart == "Always" or (self.restart == "OnFailure" and status != 0)

    def _set(self, status: Status) -> None:
        self.status = status
        self.pod.container_changed()

    async def _once(self, log: ContainerLog) -> int:
        """Runs the process once, to its end; returns the exit status."""
        self.ready = self.started = False
        try:
            command = await self._command()
        except Exception as error:
            # A defect (of the mesh's translation, say) is this container's problem, not the lab's.
            return self._not_started(str(error) if isinstance(error, OSError) else repr(error))
        if command is None:
            return 0
        try:
            pause = TOGETHER if self.pod.reports(self.spec.name) else 0.0
            child, pump = await process.start(command, log.write, pause=pause)
        except OSError as error:
            return self._not_started(f"{command.argv[0]}: {error.strerror}")
        if command.enter is not None:
            command = replace(command, enter=None, inside=child.pid)
        self.current = command
        self.pid = child.pid
        self._exited.clear()
        self._set(Status("running", "", started_at=now()))
        self.pod.report("Normal", "Started", f"Started container {self.spec.name}")
        probing = asyncio.create_task(self._probe(command))
        try:
            code = await child.wait()
        finally:
            self._exited.set()
            self.pid = None
            probing.cancel()
            # Its own children end with it.
            process.signal_group(child.pid, signal.SIGKILL)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await pump
            log.flush()
        code = 128 - code if code < 0 else code
        self.ready = self.started = False
        reason = "Completed" if code == 0 else "Error"
        self._set(Status("terminated", reason, "", code, self.status.started_at, finished_at=now()))
        self.last = self.status
        return code

    def _not_started(self, reason: str) -> int:
        self._set(Status("terminated", "StartError", reason, 128, finished_at=now()))
        self.pod.report("Warning", "Failed", f"Error: {reason}")
        return 128

    async def _command(self) -> Command | None:
        while not self._stopping.is_set():
            try:
                return self.pod.command(self.spec)
            except MissingReferenceError as error:
                if self.status.message != str(error):
                    self._set(Status(reason="CreateContainerConfigError", message=str(error)))
                    self.pod.report("Warning", "Failed", f"Error: {error}")
                self._wake.clear()
                await self._wake.wait()
        return None

    async def _end(self, grace: float) -> None:
        if (pid := self.pid) is None:
            return
        process.signal_group(pid, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._exited.wait()
        if self.pid == pid:
            process.signal_group(pid, signal.SIGKILL)
            await self._exited.wait()

    async def _probe(self, command: Command) -> None:
        spec = self.spec
        if spec.startup_probe is not None:
            await self._startup(spec.startup_probe, command)
        self.started = True
        probes: list[Awaitable[None]] = []
        if spec.readiness_probe is not None:
            probes.append(self._readiness(spec.readiness_probe, command))
        else:
            self._set_ready(True)
        if spec.liveness_probe is not None:
            probes.append(self._liveness(spec.liveness_probe, command))
        await asyncio.gather(*probes)

    async def _ask(self, probe: Probe, command: Command) -> str | None:
        target = self.pod.probe_target(self.spec, probe, command)
        return await check(probe, target)

    def _set_ready(self, value: bool) -> None:
        if self.ready != value:
            self.ready = value
            self.pod.container_changed()

    async def _readiness(self, probe: Probe, command: Command) -> None:
        await asyncio.sleep(probe.initial_delay_seconds)
        successes = failures = 0
        period = float(probe.period_seconds)
        told = time.monotonic()  # The start is no reason to complain before a period is over.
        while True:
            problem = await self._ask(probe, command)
            if problem is None:
                successes, failures = successes + 1, 0
                told = time.monotonic()
                if successes >= probe.success_threshold:
                    self._set_ready(True)
            else:
                successes, failures = 0, failures + 1
                if failures >= probe.failure_threshold:
                    if self.ready or time.monotonic() - told >= period:
                        told = time.monotonic()
                        self.pod.report(
                            "Warning", "Unhealthy", f"Readiness probe failed: {problem}"
                        )
                    self._set_ready(False)
            await asyncio.sleep(period if self.ready else min(period, IMPATIENT))

    async def _startup(self, probe: Probe, command: Command) -> None:
        """Returns when the probe succeeds; ends the process when Kubernetes would give it up."""
        await asyncio.sleep(probe.initial_delay_seconds)
        last = time.monotonic() + (probe.failure_threshold - 1) * probe.period_seconds
        pause = EAGER
        while (problem := await self._ask(probe, command)) is not None:
            if (left := last - time.monotonic()) <= 0:
                await self._kill("Startup", probe, problem)
            await asyncio.sleep(min(pause, probe.period_seconds, max(left, EAGER)))
            pause *= 1.5

    async def _liveness(self, probe: Probe, command: Command) -> None:
        """Ends the process at the probe's failure threshold."""
        await asyncio.sleep(probe.initial_delay_seconds)
        failures = 0
        while True:
            problem = await self._ask(probe, command)
            failures = 0 if problem is None else failures + 1
            if problem is not None and failures >= probe.failure_threshold:
                await self._kill("Liveness", probe, problem)
            await asyncio.sleep(probe.period_seconds)

    async def _kill(self, kind: str, probe: Probe, problem: str) -> None:
        """Ends the process; with it ends the task that probes it, which calls this."""
        self.pod.report("Warning", "Unhealthy", f"{kind} probe failed: {problem}")
        killing = f"Container {self.spec.name} failed {kind.lower()} probe"
        self.pod.report("Normal", "Killing", killing)
        grace = probe.termination_grace_period_seconds
        await self._end(self.pod.grace if grace is None else grace)
