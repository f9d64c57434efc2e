"""The state of a running cluster: objects, pods, events and the wait for their changes."""

from __future__ import annotations

import asyncio
import contextlib
import time
import traceback
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import httpx

from lab.cluster import snapshots
from lab.cluster.events import Events, now
from lab.cluster.network import Network
from lab.cluster.pod import PodRunner, Proxies
from lab.cluster.services import Services
from lab.cluster.state import State
from lab.cluster.store import Store
from lab.model import Pod, Snapshot
from lab.observe.metrics import Metrics
from lab.observe.requests import Stream
from lab.resources.resource import Resource

Key = tuple[str, str]
"""Namespace and name of a pod."""


KEPT = 16
"""Configurations that are remembered: a proxy's report comes a moment after the request."""


class Mesh(Proxies, Protocol):
    """The mesh's control plane, as the cluster needs it."""

    async def push(self, snapshot: Snapshot, proxies: Mapping[Key, PodRunner]) -> list[str]:
        """Gives every proxy its configuration; returns what a proxy refused."""
        ...

    @property
    def pending(self) -> Collection[Key]:
        """The pods whose proxy has yet to take what was pushed to it."""
        ...

    def refusals(self) -> Mapping[str, Mapping[str, Sequence[str]]]:
        """Returns the files that each Envoy refused, by `POD.NAMESPACE` and CDS, LDS, EDS, RDS."""
        ...

    @property
    def draining(self) -> Collection[Key]:
        """The pods whose proxy has connections that go by a former configuration."""
        ...

    async def drained(self) -> None:
        """Returns when the open connections of each proxy go by its configuration of now."""
        ...

    def warnings(self, resources: Sequence[Resource]) -> list[str]:
        """Returns warnings about resources that were applied."""
        ...

    def key_sets(self) -> Mapping[str, str]:
        """Returns the JSON Web Key Sets that the proxies have, by the URL they came from."""
        ...

    def key_warnings(self, resources: Sequence[Resource]) -> list[str]:
        """Returns a warning for each key set of theirs that could not be fetched."""
        ...


@dataclass(frozen=True, slots=True)
class Revision:
    """A template of a workload, by its hash."""

    number: int
    hash: str
    template: Mapping[str, Any]
    cause: str


def _names(keys: Collection[Key]) -> str:
    return ", ".join(f"{name}.{namespace}" for namespace, name in sorted(keys))


@dataclass(slots=True)
class Cluster:
    """The state of one lab, on one event loop: objects, the pods that run, what was pushed.

    The controllers and the mesh bring pods and proxies in agreement with it (`control_loops`).
    """

    state: State
    network: Network
    store: Store
    services: Services
    client: httpx.AsyncClient
    overrides: Callable[[Mapping[str, str]], Mapping[str, str]]
    """Returns the variables of a container that the user's own servers replace."""
    mesh: Mesh | None = None
    """None for plain pods without proxies."""
    requests: Stream = field(init=False)
    """The requests that proxies have reported."""
    metrics: Metrics = field(default_factory=Metrics)
    """The same, counted."""
    metrics_address: str = ""
    """The URL at which Prometheus reads them; empty without a mesh."""
    events: Events = field(default_factory=Events)
    runners: dict[Key, PodRunner] = field(default_factory=dict)
    terminating: set[str] = field(default_factory=set)
    """Namespaces that are being deleted."""
    revision: int = 0
    """Counts the changes of objects and pods."""
    pushed: int = -1
    """The revision that was last given to the proxies."""
    given: deque[tuple[float, Snapshot]] = field(default_factory=lambda: deque(maxlen=KEPT))
    """The last configurations of the mesh, each with the time from which it was in force."""
    rejected: list[str] = field(default_factory=list)
    """The proxies' refusals of that revision."""
    problem: str = ""
    """The failure of the last round, for `status`."""
    revisions: dict[tuple[str, str, str], list[Revision]] = field(default_factory=dict)
    """The templates that each workload had since the lab started, the present one last."""
    told: set[str] = field(default_factory=set)
    """The fields and kinds without effect of which `apply` has warned."""
    dirty: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the controllers have something to do."""
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)
    _tasks: set[asyncio.Future[Any]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.requests = Stream(
            lambda: (runner.model for runner in self.runners.values()),
            self.metrics.add,
            self._first_ready,
        )

    def _first_ready(self, namespace: str, pod: str) -> float:
        """Returns the time when a pod was ready for the first time; 0 for an unknown one."""
        runner = self.runners.get((namespace, pod))
        return runner.first_ready if runner is not None else 0.0

    def changed(self) -> None:
        """Has pods and proxies brought in agreement with a change of an object or a pod."""
        self.revision += 1
        self.dirty.set()

    def objects_changed(self) -> None:
        """Does the same, and wakes containers that wait for an object to exist."""
        for runner in self.runners.values():
            runner.wake()
        self.changed()

    async def announce(self) -> None:
        """Wakes those who wait for a change or a push."""
        async with self._news:
            self._news.notify_all()

    async def wait_for_change(self, since: int, timeout: float) -> None:
        """Returns when there is a newer revision than `since`, or after `timeout` seconds."""
        await self.until(lambda: self.revision > since, timeout)

    async def settled(self, timeout: float) -> bool:
        """Waits until the proxies have the configuration of now; False when they don't in time."""
        if self.mesh is None:
            return True
        revision = self.revision
        await self.until(lambda: self.pushed >= revision, timeout)
        return self.pushed >= revision

    async def in_force(self, timeout: float) -> str:
        """Waits until a change is in force everywhere, for open connections too.

        Returns what is not by then, in words.
        """
        if self.mesh is None:
            return ""
        deadline = time.monotonic() + timeout
        if not await self.settled(timeout):
            return f"not yet taken by: {_names(self.mesh.pending) or 'any proxy'}"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0, deadline - time.monotonic())):
                await self.mesh.drained()
        if not (late := _names(self.mesh.draining)):
            return ""
        return f"open connections still go by what was in force before at: {late}"

    async def until(self, predicate: Callable[[], bool], timeout: float) -> None:
        """Returns when something is so after a change, or after `timeout` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout), self._news:
                await self._news.wait_for(predicate)

    def pods(self) -> list[Pod]:
        """Returns the pods as the mesh sees them."""
        return [
            replace(pod, published=self.services.published(pod)) if pod.proxy == "gateway" else pod
            for pod in (runner.model for runner in self.runners.values())
        ]

    def owned(self, kind: str, namespace: str, name: str) -> list[PodRunner]:
        """Returns the pods of a workload."""
        return [
            runner
            for runner in self.runners.values()
            if runner.owner == (kind, name) and runner.model.namespace == namespace
        ]

    def snapshot(self) -> Snapshot:
        """Returns what the mesh's configuration is made of."""
        resources = [record.resource for record in self.store.all()]
        return snapshots.assemble(
            resources, self.services.all(), self.pods(), str(self.state.certificates)
        )

    def in_force_at(self, when: float) -> Snapshot | None:
        """Returns the mesh's configuration of a time in seconds since 1970; None for no proxies."""
        found = [snapshot for since, snapshot in self.given if since <= when]
        return found[-1] if found else self.given[0][1] if self.given else None

    def spawn(self, work: Awaitable[Any]) -> None:
        """Runs something beside the control loops."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def defect(self, doing: str, error: Exception) -> None:
        """Notes an unforeseen error: for `status`, with its traceback in the lab's log."""
        self.problem = f"internal error while trying to {doing}: {error!r}"
        with (self.state.logs / "lab.log").open("a", encoding="utf-8") as file:
            file.write(f"{now()} {self.problem}\n")
            traceback.print_exception(error, file=file)
