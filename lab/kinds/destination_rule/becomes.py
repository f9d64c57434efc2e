"""DestinationRule: which rule applies to a host, and what its policies become in a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from lab import names
from lab.kinds.destination_rule.checks import (
    ClientTLSSettings,
    ConnectionPoolSettings,
    ConsistentHash,
    DestinationRuleSpec,
    LoadBalancer,
    OutlierDetection,
    PortTrafficPolicy,
    RetryBudget,
    Subset,
    TrafficPolicy,
)
from lab.kinds.services import exported
from lab.model import Json, Pod, Snapshot
from lab.resources.resource import Origin, Resource
from lab.xds import duration

UNLIMITED = 4294967295


@dataclass(frozen=True, slots=True)
class Rule:
    """The DestinationRules of one host in one namespace, merged as Istio merges them."""

    subsets: tuple[tuple[Subset, Resource, int], ...]
    """Each subset with the resource it comes from and its index there."""
    resources: tuple[Resource, ...]

    def subset(self, name: str) -> Subset | None:
        return next((subset for subset, _, _ in self.subsets if subset.name == name), None)


@dataclass(frozen=True, slots=True)
class Policy:
    """The effective traffic policy for one port (and subset) of a host."""

    load_balancer: LoadBalancer | None = None
    connection_pool: ConnectionPoolSettings | None = None
    outlier_detection: OutlierDetection | None = None
    tls: ClientTLSSettings | None = None
    retry_budget: RetryBudget | None = None
    origins: Mapping[str, Origin] = field(default_factory=dict, compare=False)
    """The origin of each field that is set, by the field's name."""


def applicable(snapshot: Snapshot, pod: Pod, host: str, namespace: str) -> Rule | None:
    """The rule a client meets for a host of `namespace`.

    Searched are the client's namespace, the host's, then the root namespace; the first with any
    rule for the host wins. There an exact host beats a wildcard and a longer one a shorter, and
    rules of different hosts never merge.
    """
    rules = [
        rule
        for rule in snapshot.of("DestinationRule")
        if exported(rule.spec.export_to, rule.namespace, pod.namespace)
        and _meant_for(rule.spec, pod, rule.namespace)
    ]
    searched = [namespace, snapshot.root_namespace]
    if pod.namespace != snapshot.root_namespace:
        searched.insert(0, pod.namespace)
    for place in dict.fromkeys(searched):
        found = [rule for rule in rules if rule.namespace == place]
        for own in (True, False):  # a rule with a workloadSelector comes before one without
            candidates = [rule for rule in found if bool(rule.spec.workload_selector) is own]
            if best := _most_specific(candidates, host):
                return _merge(best)
    return None


def _meant_for(spec: DestinationRuleSpec, pod: Pod, namespace: str) -> bool:
    if spec.workload_selector is None:
        return True
    return namespace == pod.namespace and names.selects(
        spec.workload_selector.match_labels, pod.labels
    )


def _most_specific(rules: Iterable[Resource], host: str) -> list[Resource]:
    by_host: dict[str, list[Resource]] = {}
    for rule in rules:
        pattern = names.expand(rule.spec.host, rule.namespace)
        if names.matches(pattern, host):
            by_host.setdefault(pattern, []).append(rule)
    if not by_host:
        return []
    best = max(by_host, key=lambda pattern: (not pattern.startswith("*"), len(pattern)))
    return by_host[best]


def _merge(rules: list[Resource]) -> Rule:
    subsets: dict[str, tuple[Subset, Resource, int]] = {}
    for rule in rules:
        for index, subset in enumerate(rule.spec.subsets):
            subsets.setdefault(subset.name, (subset, rule, index))
    return Rule(tuple(subsets.values()), tuple(rules))


_PORT_FIELDS = ("load_balancer", "connection_pool", "outlier_detection", "tls")
_FIELDS = (*_PORT_FIELDS, "retry_budget")
_Found = dict[str, tuple[Any, Origin]]


def effective(rule: Rule | None, port: int, subset: str | None = None) -> Policy:
    """Returns the policy for a port (and subset) of a host, each field with its origin.

    A port's own settings replace the general ones without inheriting, a subset's override field
    by field, and a subset's port settings replace those.
    """
    found: _Found = {}
    for policy, origin in _traffic_policies(rule, subset) if rule else ():
        found |= _set_fields(policy, _FIELDS, origin)
        for index, settings in enumerate(policy.port_level_settings):
            if settings.port and settings.port.number == port:
                path = (*origin.path, "portLevelSettings", index)
                own = replace(origin, path=path)
                kept = {name: found[name] for name in found if name not in _PORT_FIELDS}
                found = kept | _set_fields(settings, _PORT_FIELDS, own)
                break
    values = {name: value for name, (value, _) in found.items()}
    return Policy(**values, origins={name: origin for name, (_, origin) in found.items()})


def _traffic_policies(rule: Rule, subset: str | None) -> Iterator[tuple[TrafficPolicy, Origin]]:
    """The traffic policies that a destination meets: the host's, then its subset's."""
    for resource in rule.resources:
        if resource.spec.traffic_policy is not None:
            origin = Origin(resource.source, ("spec", "trafficPolicy"), resource)
            yield resource.spec.traffic_policy, origin
            break
    for own, resource, index in rule.subsets:
        if own.name == subset and own.traffic_policy is not None:
            path = ("spec", "subsets", index, "trafficPolicy")
            yield own.traffic_policy, Origin(resource.source, path, resource)


def _set_fields(
    settings: TrafficPolicy | PortTrafficPolicy, names: Iterable[str], origin: Origin
) -> _Found:
    """The fields that are set, each with the origin of its value."""
    aliases = {name: field.alias or name for name, field in type(settings).model_fields.items()}
    return {
        name: (value, replace(origin, path=(*origin.path, aliases[name])))
        for name in names
        if (value := getattr(settings, name)) is not None
    }


def circuit_breakers(pool: ConnectionPoolSettings | None, budget: RetryBudget | None) -> Json:
    """The thresholds Istio always sets: unlimited, where Envoy's own defaults are 1024 and 3."""
    threshold: Json = {
        "max_connections": UNLIMITED,
        "max_pending_requests": UNLIMITED,
        "max_requests": UNLIMITED,
        "max_retries": UNLIMITED,
        "track_remaining": True,
    }
    http = pool.http if pool else None
    tcp = pool.tcp if pool else None
    for name, value in (
        ("max_connections", tcp.max_connections if tcp else 0),
        ("max_pending_requests", http.http1_max_pending_requests if http else 0),
        ("max_requests", http.http2_max_requests if http else 0),
        ("max_retries", http.max_retries if http else 0),
    ):
        if value > 0:
            threshold[name] = value
    if budget is not None:
        threshold["retry_budget"] = {
            "budget_percent": {"value": 20.0 if budget.percent is None else budget.percent},
            **(
                {"min_retry_concurrency": budget.min_retry_concurrency}
                if budget.min_retry_concurrency is not None
                else {}
            ),
        }
    return {"thresholds": [threshold]}


def common_http_options(pool: ConnectionPoolSettings | None) -> Json:
    """`common_http_protocol_options` of a cluster; empty when the pool sets none."""
    options: Json = {}
    if pool and pool.http:
        if pool.http.max_requests_per_connection > 0:
            options["max_requests_per_connection"] = pool.http.max_requests_per_connection
        if pool.http.idle_timeout is not None:
            options["idle_timeout"] = duration(pool.http.idle_timeout)
    if pool and pool.tcp:
        if pool.tcp.idle_timeout is not None:
            options.setdefault("idle_timeout", duration(pool.tcp.idle_timeout))
        if pool.tcp.max_connection_duration is not None:
            options["max_connection_duration"] = duration(pool.tcp.max_connection_duration)
    return options


def keepalive(pool: ConnectionPoolSettings | None) -> Json | None:
    """`upstream_connection_options`, when the pool asks for TCP keep-alive."""
    settings = pool.tcp.tcp_keepalive if pool and pool.tcp else None
    if settings is None:
        return None
    result: Json = {}
    if settings.probes:
        result["keepalive_probes"] = settings.probes
    if settings.time is not None:
        result["keepalive_time"] = int(settings.time.total_seconds())
    if settings.interval is not None:
        result["keepalive_interval"] = int(settings.interval.total_seconds())
    return {"tcp_keepalive": result}


def outlier_detection(outlier: OutlierDetection) -> Json:
    """What is unset here has Envoy's default: 5 errors in a row, 10 s, 30 s, at most 10 %."""
    result: Json = {"enforcing_success_rate": 0}
    if (errors := outlier.consecutive_5xx_errors) is not None:
        result["enforcing_consecutive_5xx"] = 100 if errors else 0
        if errors:
            result["consecutive_5xx"] = errors
    if (errors := outlier.consecutive_gateway_errors) is not None:
        result["enforcing_consecutive_gateway_failure"] = 100 if errors else 0
        if errors:
            result["consecutive_gateway_failure"] = errors
    if outlier.interval is not None:
        result["interval"] = duration(outlier.interval)
    if outlier.base_ejection_time is not None:
        result["base_ejection_time"] = duration(outlier.base_ejection_time)
    if outlier.max_ejection_percent:
        result["max_ejection_percent"] = outlier.max_ejection_percent
    if outlier.split_external_local_origin_errors:
        result["split_external_local_origin_errors"] = True
        if (errors := outlier.consecutive_local_origin_failures) is not None:
            result["enforcing_consecutive_local_origin_failure"] = 100 if errors else 0
            if errors:
                result["consecutive_local_origin_failure"] = errors
        result["enforcing_local_origin_success_rate"] = 0
    return result


def load_balancing(balancer: LoadBalancer | None) -> Json:
    """The cluster's `lb_policy` and its options; Istio's default is LEAST_REQUEST."""
    if balancer is None:
        return {"lb_policy": "LEAST_REQUEST"}
    if balancer.consistent_hash is not None:
        return _hashing(balancer.consistent_hash)
    policy = balancer.simple or "UNSPECIFIED"
    if policy in ("UNSPECIFIED", "LEAST_CONN"):
        policy = "LEAST_REQUEST"
    result: Json = {"lb_policy": policy}
    slow_start = _slow_start(balancer)
    if slow_start and policy in ("LEAST_REQUEST", "ROUND_ROBIN"):
        key = "least_request_lb_config" if policy == "LEAST_REQUEST" else "round_robin_lb_config"
        result[key] = {"slow_start_config": slow_start}
    return result


def _slow_start(balancer: LoadBalancer) -> Json | None:
    if balancer.warmup is not None:
        result: Json = {"slow_start_window": duration(balancer.warmup.duration)}
        if balancer.warmup.aggression is not None:
            result["aggression"] = {
                "default_value": balancer.warmup.aggression,
                "runtime_key": "aggression",
            }
        if balancer.warmup.minimum_percent is not None:
            result["min_weight_percent"] = {"value": balancer.warmup.minimum_percent}
        return result
    if balancer.warmup_duration_secs is not None:
        return {"slow_start_window": duration(balancer.warmup_duration_secs)}
    return None


def _hashing(hashing: ConsistentHash) -> Json:
    if hashing.maglev is not None:
        result: Json = {"lb_policy": "MAGLEV"}
        if hashing.maglev.table_size:
            result["maglev_lb_config"] = {"table_size": hashing.maglev.table_size}
        return result
    size = (hashing.ring_hash.minimum_ring_size if hashing.ring_hash else 0) or (
        hashing.minimum_ring_size or 0
    )
    return {
        "lb_policy": "RING_HASH",
        "ring_hash_lb_config": {"minimum_ring_size": size or 1024},
    }


def hash_policy(balancer: LoadBalancer | None) -> list[Json]:
    """What a route hashes when its destination uses consistent hashing."""
    hashing = balancer.consistent_hash if balancer else None
    if hashing is None:
        return []
    if hashing.http_header_name is not None:
        return [{"header": {"header_name": hashing.http_header_name}}]
    if cookie := hashing.http_cookie:
        spec: Json = {"name": cookie.name}
        if cookie.ttl is not None:
            spec["ttl"] = duration(cookie.ttl)
        if cookie.path:
            spec["path"] = cookie.path
        if cookie.attributes:
            spec["attributes"] = [
                {"name": item.name, "value": item.value or ""} for item in cookie.attributes
            ]
        return [{"cookie": spec}]
    if hashing.http_query_parameter_name is not None:
        return [{"query_parameter": {"name": hashing.http_query_parameter_name}}]
    if hashing.use_source_ip:
        return [{"connection_properties": {"source_ip": True}}]
    return []
