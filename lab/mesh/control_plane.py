"""istiod's part in a running lab: keeps every proxy at the configuration of the latest snapshot."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import httpx

from lab.manifests.pod_spec import HTTPGetAction, Probe
from lab.manifests.resource import Resource
from lab.mesh import authority, envoy, mesh_config
from lab.mesh.model import Pod, ProxyConfig, Snapshot
from lab.mesh.translate import proxy_config

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
    readiness: Probe = field(init=False)
    _given: dict[Key, ProxyConfig] = field(default_factory=dict)
    _refused: dict[Key, ProxyConfig] = field(default_factory=dict)
    _accounts: frozenset[Key] = frozenset()
    _renewal: datetime = field(default_factory=lambda: datetime.min.replace(tzinfo=UTC))

    def __post_init__(self) -> None:
        self.readiness = Probe(
            httpGet=HTTPGetAction(path="/healthz/ready", port=15021),
            periodSeconds=1,
            timeoutSeconds=3,
            failureThreshold=60,
        )

    def command(self, pod: Pod, folder: Path) -> tuple[list[str], dict[str, str]]:
        """Write a proxy's files and return how it is started."""
        snapshot = self.snapshot()
        self._issue(snapshot)
        known = {(item.namespace, item.name): item for item in snapshot.pods}
        pod = known.get((pod.namespace, pod.name), pod)
        config = proxy_config(snapshot, pod)
        envoy.prepare(folder, pod, config)
        self._given[pod.namespace, pod.name] = config
        return envoy.command(folder), {}

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

    def mesh_config(self, operators: Sequence[Resource]) -> dict[str, Any]:
        """The meshConfig that the applied IstioOperators amount to."""
        return mesh_config.installed(operators)

    async def push(self, snapshot: Snapshot, proxies: Mapping[Key, Proxy]) -> list[str]:
        """Give each proxy what the snapshot makes of it; returns what Envoy refused.

        A proxy that refuses keeps the configuration it had.
        """
        self._issue(snapshot)
        for key in [key for key in self._given if key not in proxies]:
            self._given.pop(key)
            self._refused.pop(key, None)
        pods = {(pod.namespace, pod.name): pod for pod in snapshot.pods}
        jobs = []
        for key, proxy in proxies.items():
            if key not in self._given:
                continue
            pod = pods.get(key, proxy.model)
            config = proxy_config(snapshot, pod)
            if config != self._given[key] and config != self._refused.get(key):
                jobs.append(self._push(key, proxy, config))
            # One proxy at a time: a translation takes a while, and probes want their turn.
            await asyncio.sleep(0)
        return [problem for problem in await asyncio.gather(*jobs) if problem]

    async def _push(self, key: Key, proxy: Proxy, config: ProxyConfig) -> str:
        before = self._given[key]
        self._given[key] = config
        try:
            await asyncio.to_thread(
                envoy.push, proxy.proxy_folder, proxy.model, config, running=proxy.proxy_running
            )
        except envoy.RejectedError as error:
            self._given[key] = before
            self._refused[key] = config
            await asyncio.to_thread(
                envoy.push, proxy.proxy_folder, proxy.model, before, running=False
            )
            reason = f"Envoy of pod {proxy.model.name} refused the configuration: {error}"
            self.report(proxy.model, reason)
            return reason
        except (OSError, httpx.HTTPError):
            # It has ended or is ending; when it starts again it gets the newest configuration.
            self._given[key] = before
        return ""
