"""istiod in a running lab: from a snapshot to a push to each proxy, to the result of each push."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import httpx

from lab.envoy import reports
from lab.envoy.translate import generated, proxy_config
from lab.istiod import authority, process, proxy_files
from lab.istiod.jwks import KeySets, blocked_networks
from lab.istiod.placement import LOOPBACK, Placement
from lab.istiod.push import RejectedError, drains, push
from lab.kinds.destination_rule import dynamic_dns
from lab.kinds.envoy_filter import becomes as envoy_filter
from lab.kinds.kubernetes.pod_spec import HTTPGetAction, Probe
from lab.kinds.proxy_config import becomes as proxy_config_kind
from lab.kinds.virtual_service import delegate
from lab.kinds.visible import view
from lab.model import Pod, ProxyConfig, Snapshot
from lab.resources.resource import Problem, Resource

READINESS = Probe(
    httpGet=HTTPGetAction(path="/healthz/ready", port=15021),
    periodSeconds=1,
    timeoutSeconds=3,
    failureThreshold=60,
)

_TYPES = {"CDS": "clusters", "LDS": "listeners", "EDS": "endpoints", "RDS": "routes"}

Key = tuple[str, str]
"""Namespace and name of a pod."""


class Proxy(Protocol):
    """A pod with a proxy, as its supervisor runs it."""

    @property
    def model(self) -> Pod: ...

    @property
    def proxy_folder(self) -> Path: ...

    @property
    def proxy_running(self) -> bool: ...


class ControlPlane:
    """Certificates, key sets and configuration for the proxies of one lab."""

    readiness = READINESS

    def __init__(
        self,
        authority_folder: Path,
        snapshot: Callable[[], Snapshot],
        operators: Callable[[], Sequence[Resource]],
        report: Callable[[Pod, str], None],
        changed: Callable[[], None],
        client: httpx.AsyncClient,
        analyze: Callable[[Snapshot, Sequence[Resource]], Iterable[str]],
        placement: Placement = LOOPBACK,
    ) -> None:
        """`operators` returns the applied IstioOperators, `analyze` warnings about resources.

        `report` is called when Envoy refuses a configuration, `changed` when a push is due: keys
        have arrived, or a certificate or a key set is to be renewed.
        """
        self._authority_folder = authority_folder
        self._snapshot = snapshot
        self._operators = operators
        self._report = report
        self._changed = changed
        self._analyze = analyze
        self._placement = placement
        self._keys = KeySets(client, changed)
        self.pending: set[Key] = set()
        """Pods whose proxy has yet to take the configuration it was given."""
        self._drains: dict[Key, asyncio.Task[None]] = {}
        self._given: dict[Key, ProxyConfig] = {}
        self._refused: dict[Key, tuple[ProxyConfig, str]] = {}
        self._issued: tuple[str, frozenset[Key]] = ("", frozenset())
        self._renewal = datetime.min.replace(tzinfo=UTC)
        self._alarm: asyncio.TimerHandle | None = None

    def command(self, pod: Pod, folder: Path) -> tuple[list[str], dict[str, str]]:
        """Writes a new proxy's files; returns its command line and environment."""
        snapshot = self._with_keys(self._snapshot())
        self._issue(snapshot)
        known = {(item.namespace, item.name): item for item in snapshot.pods}
        pod = known.get((pod.namespace, pod.name), pod)
        sent = proxy_config(snapshot, pod)
        config = self._placed(sent, pod, reports.places(snapshot))
        proxy_files.prepare(folder, pod, config, self._placement.bootstrap)
        proxy_files.keep_sent(folder, sent)
        self._given[pod.namespace, pod.name] = config
        variables = proxy_config_kind.merged(snapshot, pod)["defaultConfig"]["proxyMetadata"]
        return process.command(folder), process.environment(pod, variables)

    def warnings(self, resources: Sequence[Resource]) -> list[str]:
        """Returns warnings about references that lead nowhere, and about what has no effect.

        These are patches of EnvoyFilters that match nothing, rules of VirtualServices that delegate
        in vain, what istiod does not survive, and what the placement of the proxies does not give.
        """
        snapshot = self._with_keys(self._snapshot())
        return [
            *self._analyze(snapshot, resources),
            *(
                resource.describe(problem.path, problem.reason)
                for resource in resources
                for problem in (
                    *self._placement.limits(resource, snapshot),
                    *_remarks(resource, snapshot),
                )
            ),
        ]

    def key_sets(self) -> Mapping[str, str]:
        """Returns the JSON Web Key Sets that were fetched, by URL."""
        return dict(self._keys.keys)

    def key_warnings(self, resources: Sequence[Resource]) -> list[str]:
        """Returns a warning for each RequestAuthentication's key set that could not be fetched."""
        policies = (item for item in resources if item.kind == "RequestAuthentication")
        return list(self._keys.warnings(policies))

    async def push(self, snapshot: Snapshot, proxies: Mapping[Key, Proxy]) -> list[str]:
        """Gives each proxy its configuration; returns why Envoys refused theirs.

        A proxy that refuses keeps the configuration it had.
        """
        self._issue(snapshot)
        await self._keys.refresh(snapshot, blocked_networks(self._operators()))
        self._set_alarm()
        snapshot = self._with_keys(snapshot)
        for key in [key for key in self._given if key not in proxies]:
            self._given.pop(key)
            self._refused.pop(key, None)
        pods = {(pod.namespace, pod.name): pod for pod in snapshot.pods}
        places = reports.places(snapshot)
        jobs = []
        problems = []
        for key, proxy in proxies.items():
            if key not in self._given:
                continue
            pod = pods.get(key, proxy.model)
            sent = proxy_config(snapshot, pod)
            config = self._placed(sent, pod, places)
            refused, reason = self._refused.get(key, (None, ""))
            if config == refused:
                problems.append(reason)
            elif config != self._given[key]:
                jobs.append(self._push(key, proxy, sent, config))
            else:
                self._refused.pop(key, None)
            # One proxy at a time: a translation takes a while, and probes want their turn.
            await asyncio.sleep(0)
        return problems + [problem for problem in await asyncio.gather(*jobs) if problem]

    async def _push(self, key: Key, proxy: Proxy, sent: ProxyConfig, config: ProxyConfig) -> str:
        """Returns why Envoy refused the configuration; empty when it did not.

        `config` is what is `sent`, with reports and made fit for the network of the lab.
        """
        before = self._given[key]
        self._given[key] = config
        self._refused.pop(key, None)
        self.pending.add(key)
        folder = proxy.proxy_folder
        try:
            if proxy.proxy_running:
                if await asyncio.to_thread(push, folder, config):
                    self._drain(key, folder)
            else:
                await asyncio.to_thread(proxy_files.put_back, folder, config)
            await asyncio.to_thread(proxy_files.keep_sent, folder, sent)
        except RejectedError as error:
            self._given[key] = before
            await asyncio.to_thread(proxy_files.put_back, folder, before)
            reason = f"Envoy of pod {proxy.model.name} refused the configuration: {error}"
            self._refused[key] = (config, reason)
            self._report(proxy.model, reason)
            return reason
        except (OSError, httpx.HTTPError):
            # It has ended or is ending; when it starts again it gets the newest configuration.
            self._given[key] = before
        finally:
            self.pending.discard(key)
        return ""

    def refusals(self) -> dict[str, dict[str, list[str]]]:
        """Returns the types that each Envoy refused, with the files, by `POD.NAMESPACE`."""
        return {
            f"{name}.{namespace}": {
                kind: proxy_files.of_type(refused, kind)
                for kind, field in _TYPES.items()
                if getattr(refused, field) != getattr(self._given[namespace, name], field)
            }
            for (namespace, name), (refused, _) in self._refused.items()
        }

    @property
    def draining(self) -> Collection[Key]:
        """Returns the pods whose proxy has connections that go by a former configuration."""
        return self._drains.keys()

    async def drained(self) -> None:
        """Returns when the open connections of each proxy go by its configuration of now."""
        while self._drains:
            await asyncio.wait(self._drains.values())

    def _drain(self, key: Key, folder: Path) -> None:
        task = asyncio.create_task(_drained(folder))
        self._drains[key] = task

        def forget(done: asyncio.Task[None]) -> None:
            if self._drains.get(key) is done:
                del self._drains[key]

        task.add_done_callback(forget)

    def _placed(self, sent: ProxyConfig, pod: Pod, places: reports.Places) -> ProxyConfig:
        """Returns what istiod sends as the proxy gets it: with reports, fit for its network."""
        return self._placement.config(reports.reporting(sent, pod, places), pod)

    def _with_keys(self, snapshot: Snapshot) -> Snapshot:
        return replace(snapshot, jwks=self.key_sets())

    def _issue(self, snapshot: Snapshot) -> None:
        """Issues certificates when there are other identities, or renewal is due."""
        accounts = frozenset(
            (pod.namespace, pod.service_account) for pod in snapshot.pods if pod.proxy != "none"
        )
        now = datetime.now(UTC)
        wanted = (snapshot.trust_domains[0], accounts)
        if wanted == self._issued and now < self._renewal:
            return
        root = authority.load(self._authority_folder, now, snapshot.trust_domains[0])
        self._renewal = authority.issue(root, Path(snapshot.certificates), accounts, now)
        self._issued = wanted

    def _set_alarm(self) -> None:
        """Asks for the next push when a certificate or a key set is due."""
        if self._alarm is not None:
            self._alarm.cancel()
        due = min([self._renewal, *self._keys.next_due()])
        delay = max(1.0, (due - datetime.now(UTC)).total_seconds())
        self._alarm = asyncio.get_running_loop().call_later(delay, self._changed)


async def _drained(folder: Path) -> None:
    await asyncio.sleep(0.9 * process.DRAIN_SECONDS)
    with contextlib.suppress(OSError, httpx.HTTPError):
        while await asyncio.to_thread(drains, folder):
            await asyncio.sleep(0.05)


def _remarks(resource: Resource, snapshot: Snapshot) -> Iterable[Problem]:
    match resource.kind:
        case "DestinationRule":
            return dynamic_dns.problems(resource, snapshot)
        case "VirtualService":
            return delegate.problems(resource, snapshot)
        case "EnvoyFilter":
            return envoy_filter.without_effect(
                resource, snapshot, lambda pod: generated(view(snapshot, pod))
            )
    return ()
