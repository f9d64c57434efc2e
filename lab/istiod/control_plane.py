"""istiod's part in a running lab: keeps every proxy at the configuration of the latest snapshot."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import httpx

from lab.envoy.translate import generated, proxy_config
from lab.istiod import authority, jwks, process
from lab.kinds import services
from lab.kinds.envoy_filter import becomes as envoy_filter
from lab.kinds.kubernetes.pod_spec import HTTPGetAction, Probe
from lab.kinds.visible import view
from lab.model import Pod, ProxyConfig, Snapshot
from lab.resources.resource import Resource

KEYS_PATIENCE = 1.0
"""Seconds a push waits for key sets; when they come later they are pushed then."""

Key = tuple[str, str]
"""Namespace and name of a pod."""


class Proxy(Protocol):
    """A pod with a proxy, as its supervisor runs it."""

    @property
    def model(self) -> Pod: ...

    @property
    def proxy_folder(self) -> Path:
        """Where the proxy's files are."""
        ...

    @property
    def proxy_running(self) -> bool: ...


@dataclass(slots=True)
class ControlPlane:
    """Certificates and configuration for the proxies of one lab."""

    authority_folder: Path
    snapshot: Callable[[], Snapshot]
    report: Callable[[Pod, str], None]
    """Told when Envoy refuses a configuration."""
    changed: Callable[[], None]
    """Asks for a push: keys have arrived, or something is due."""
    client: httpx.AsyncClient
    readiness: Probe = field(init=False)
    pending: set[Key] = field(default_factory=set)
    """Pods whose proxy has yet to take the configuration it was given."""
    _given: dict[Key, ProxyConfig] = field(default_factory=dict)
    _refused: dict[Key, tuple[ProxyConfig, str]] = field(default_factory=dict)
    _accounts: frozenset[Key] = frozenset()
    _renewal: datetime = field(default_factory=lambda: datetime.min.replace(tzinfo=UTC))
    _keys: dict[str, str] = field(default_factory=dict)
    """JSON Web Key Sets by the URL they came from."""
    _keys_due: dict[str, datetime] = field(default_factory=dict)
    _fetching: asyncio.Task[None] | None = None
    _alarm: asyncio.TimerHandle | None = None

    def __post_init__(self) -> None:
        self.readiness = Probe(
            httpGet=HTTPGetAction(path="/healthz/ready", port=15021),
            periodSeconds=1,
            timeoutSeconds=3,
            failureThreshold=60,
        )

    def command(self, pod: Pod, folder: Path) -> tuple[list[str], dict[str, str]]:
        """Write a proxy's files and return how it is started."""
        snapshot = replace(self.snapshot(), jwks=self._keys)
        self._issue(snapshot)
        known = {(item.namespace, item.name): item for item in snapshot.pods}
        pod = known.get((pod.namespace, pod.name), pod)
        config = proxy_config(snapshot, pod)
        process.prepare(folder, pod, config)
        self._given[pod.namespace, pod.name] = config
        return process.command(folder), {}

    def _issue(self, snapshot: Snapshot) -> None:
        accounts = frozenset(
            (pod.namespace, pod.service_account) for pod in snapshot.pods if pod.proxy != "none"
        )
        now = datetime.now(UTC)
        if accounts == self._accounts and now < self._renewal:
            return
        trust_domain = snapshot.trust_domain
        root = authority.load(self.authority_folder, now, trust_domain)
        self._renewal = authority.issue(root, Path(snapshot.certificates), accounts, now)
        self._accounts = accounts

    async def _refresh_keys(self, snapshot: Snapshot) -> None:
        """Fetch what RequestAuthentications need; an issuer that is slow holds nothing up."""
        wanted = jwks.sources(snapshot)
        self._keys = {url: keys for url, keys in self._keys.items() if url in wanted}
        self._keys_due = {url: due for url, due in self._keys_due.items() if url in wanted}
        now = datetime.now(UTC)
        due = [url for url in wanted if self._keys_due.get(url, now) <= now]
        if due and self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch_keys(due, snapshot))
        if self._fetching is not None:
            await asyncio.wait({self._fetching}, timeout=KEYS_PATIENCE)

    async def _fetch_keys(self, due: list[str], snapshot: Snapshot) -> None:
        try:
            found, failed = await jwks.fetch(self.client, due, snapshot.services)
        finally:
            self._fetching = None
        now = datetime.now(UTC)
        self._keys |= found
        self._keys_due |= dict.fromkeys(found, now + jwks.REFRESH)
        self._keys_due |= dict.fromkeys(failed, now + jwks.RETRY)
        self.changed()

    def _set_alarm(self) -> None:
        """Have the next push when a certificate or a set of keys is due."""
        if self._alarm is not None:
            self._alarm.cancel()
        due = min([self._renewal, *self._keys_due.values()])
        delay = max(1.0, (due - datetime.now(UTC)).total_seconds())
        self._alarm = asyncio.get_running_loop().call_later(delay, self.changed)

    def warnings(self, resources: Sequence[Resource]) -> list[str]:
        """What would happen in silence: patches of EnvoyFilters that match nothing, and TCP ports
        that sidecars listen on for another Service."""
        snapshot = replace(self.snapshot(), jwks=self._keys)
        return [
            resource.describe(problem.path, problem.reason)
            for resource in resources
            if resource.kind == "Service"
            for problem in services.taken_ports(resource, snapshot)
        ] + [
            resource.describe(problem.path, problem.reason)
            for resource in resources
            if resource.kind == "EnvoyFilter"
            for problem in envoy_filter.without_effect(
                resource, snapshot, lambda pod: generated(view(snapshot, pod))
            )
        ]

    async def push(self, snapshot: Snapshot, proxies: Mapping[Key, Proxy]) -> list[str]:
        """Give each proxy what the snapshot makes of it; returns what Envoy refused.

        A proxy that refuses keeps the configuration it had.
        """
        self._issue(snapshot)
        await self._refresh_keys(snapshot)
        self._set_alarm()
        snapshot = replace(snapshot, jwks=dict(self._keys))
        for key in [key for key in self._given if key not in proxies]:
            self._given.pop(key)
            self._refused.pop(key, None)
        pods = {(pod.namespace, pod.name): pod for pod in snapshot.pods}
        jobs = []
        problems = []
        for key, proxy in proxies.items():
            if key not in self._given:
                continue
            pod = pods.get(key, proxy.model)
            config = proxy_config(snapshot, pod)
            refused, reason = self._refused.get(key, (None, ""))
            if config == refused:
                problems.append(reason)
            elif config != self._given[key]:
                jobs.append(self._push(key, proxy, config))
            # One proxy at a time: a translation takes a while, and probes want their turn.
            await asyncio.sleep(0)
        return problems + [problem for problem in await asyncio.gather(*jobs) if problem]

    async def _push(self, key: Key, proxy: Proxy, config: ProxyConfig) -> str:
        before = self._given[key]
        self._given[key] = config
        self._refused.pop(key, None)
        self.pending.add(key)
        try:
            await asyncio.to_thread(
                process.push, proxy.proxy_folder, proxy.model, config, running=proxy.proxy_running
            )
        except process.RejectedError as error:
            self._given[key] = before
            await asyncio.to_thread(
                process.push, proxy.proxy_folder, proxy.model, before, running=False
            )
            reason = f"Envoy of pod {proxy.model.name} refused the configuration: {error}"
            self._refused[key] = (config, reason)
            self.report(proxy.model, reason)
            return reason
        except (OSError, httpx.HTTPError):
            # It has ended or is ending; when it starts again it gets the newest configuration.
            self._given[key] = before
        finally:
            self.pending.discard(key)
        return ""
