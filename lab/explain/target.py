"""The part of an explanation about one destination: its policies, its pods and what they say."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from lab import names
from lab.envoy import endpoints
from lab.explain import filters, interpret, server
from lab.explain.interpret import Request
from lab.explain.steps import Step, Target
from lab.kinds.destination_rule import becomes as destination_rule
from lab.kinds.destination_rule.becomes import Rule
from lab.kinds.services import Host
from lab.kinds.visible import View
from lab.model import ProxyConfig
from lab.resources.resource import Path
from lab.xds import duration

ANY_ADDRESS = "whatever address the host name resolves to"


def target(seen: View, config: ProxyConfig, request: Request, cluster: str, share: float) -> Target:
    """A destination of a caller's route: a cluster of its proxy."""
    if cluster == names.PASSTHROUGH:
        return Target(cluster, share, (), (Step("endpoints", f"{ANY_ADDRESS}, as it is sent"),))
    known = interpret.by_name(config.clusters, cluster)
    if known is None:
        step = Step("answer", "503, empty: there is no such host, port or subset (flag NC)")
        return Target(cluster, share, (), (step,))
    parts = cluster.split("|")
    number, subset, name = parts[1:] if len(parts) == 4 else ("0", "", "")
    host = seen.hosts.get(name)
    port = host.port(int(number)) if host else None
    if host is None or port is None:
        return Target(cluster, share, ())
    steps = [*_policies(seen, host, int(number), subset)]
    steps += filters.of_cluster(seen, known)
    found = endpoints.members(seen, host, port, subset)
    if host.resolution in ("NONE", "DYNAMIC_DNS"):
        steps.append(Step("endpoints", ANY_ADDRESS, host.source.at()))
    elif host.resolution in ("DNS", "DNS_ROUND_ROBIN"):
        steps.append(Step("endpoints", "by DNS", host.source.at()))
    elif not found:
        steps.append(Step("answer", "503 no healthy upstream (flag UH): no ready pod fits"))
    steps += server.steps(seen, host, port, subset, request)
    shown = tuple(
        endpoint.pod.name if endpoint.pod else f"{endpoint.address}:{endpoint.port}"
        for endpoint in found
    )
    return Target(cluster, share, shown, tuple(steps))


def _policies(seen: View, host: Host, port: int, subset: str) -> Iterator[Step]:
    rule = seen.rules.get(host.name)
    if subset:
        chosen = (
            next((item for item in rule.subsets if item[0].name == subset), None) if rule else None
        )
        if chosen is not None:
            entry, resource, index = chosen
            labels = ", ".join(f"{key}={value}" for key, value in entry.labels.items())
            yield Step(
                "subset",
                f"{subset} ({labels or 'all'})",
                resource.source.at("spec", "subsets", index),
            )
    if rule is None:
        return
    policy = seen.policy(host.name, port, subset or None)
    for what, key, value in (
        ("load balancing", "loadBalancer", policy.load_balancer),
        ("connection pool", "connectionPool", policy.connection_pool),
        ("outlier detection", "outlierDetection", policy.outlier_detection),
        ("TLS", "tls", policy.tls),
    ):
        if value is not None:
            given = value.model_dump(by_alias=True, exclude_unset=True)
            yield Step(what, _flat(given), policy_place(rule, port, subset, key))


def _flat(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(
            f"{key} {{{_flat(item)}}}" if isinstance(item, dict) else f"{key} {_flat(item)}"
            for key, item in value.items()
        )
    return duration(value) if isinstance(value, timedelta) else str(value)


def policy_place(rule: Rule, port: int, subset: str, key: str) -> str:
    """Where the effective value of one traffic policy field is written."""
    chosen = next((item for item in rule.subsets if item[0].name == subset), None)
    candidates: list[tuple[Any, Any, Path]] = []
    if chosen is not None and chosen[0].traffic_policy is not None:
        where: Path = ("spec", "subsets", chosen[2], "trafficPolicy")
        candidates.append((chosen[1], chosen[0].traffic_policy, where))
    for resource in rule.resources:
        if resource.spec.traffic_policy is not None:
            candidates.append((resource, resource.spec.traffic_policy, ("spec", "trafficPolicy")))
            break
    for resource, policy, where in candidates:
        for index, settings in enumerate(policy.port_level_settings):
            if settings.port and settings.port.number == port:
                return str(resource.source.at(*where, "portLevelSettings", index, key))
        if destination_rule.written(policy, key):
            return str(resource.source.at(*where, key))
    return ""
