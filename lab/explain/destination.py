"""Steps of one destination: its traffic policy, its endpoints and their answers."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from lab import names
from lab.envoy import endpoints
from lab.explain import envoy_filters, server
from lab.explain.interpret.matchers import Request
from lab.explain.interpret.routing import by_name
from lab.explain.steps import Step, Target
from lab.kinds.destination_rule import becomes as destination_rule
from lab.kinds.destination_rule.becomes import Policy
from lab.kinds.services import Endpoint
from lab.kinds.visible import Upstream, View
from lab.model import ProxyConfig
from lab.xds import duration

ANY_ADDRESS = "whatever address the host name resolves to"


def target(view: View, config: ProxyConfig, request: Request, cluster: str, share: float) -> Target:
    """Returns a destination of a client's route: a cluster of its proxy, with its steps."""
    if cluster in (names.PASSTHROUGH, names.DYNAMIC_DNS):
        return Target(cluster, share, (), (Step("endpoints", f"{ANY_ADDRESS}, as it is sent"),))
    known = by_name(config.clusters, cluster)
    if known is None:
        closed = "connection closed" if request.tcp else "503, empty"
        step = Step("answer", f"{closed}: there is no such host, port or subset (flag NC)")
        return Target(cluster, share, (), (step,))
    parts = cluster.split("|")
    number, subset, name = parts[1:] if len(parts) == 4 else ("0", "", "")
    host = view.destinations.get(name)
    port = host.port(int(number)) if host else None
    if host is None or port is None:
        return Target(cluster, share, ())
    upstream = view.upstream(host, port, subset)
    steps = [*_policies(upstream)]
    steps += envoy_filters.of_cluster(view, known)
    groups = endpoints.groups(upstream)
    ready = [group for group in ([one for one in group if one.ready] for group in groups) if group]
    found, *others = ready or [[]]
    if upstream.direct or host.resolution == "DYNAMIC_DNS":
        steps.append(Step("endpoints", ANY_ADDRESS, host.source.at()))
    elif host.resolution in ("DNS", "DNS_ROUND_ROBIN"):
        steps.append(Step("endpoints", "by DNS", host.source.at()))
    elif not found:
        closed = "connection closed:" if request.tcp else "503"
        says = f"{closed} no healthy upstream (flag UH): no ready pod fits"
        steps.append(Step("answer", says))
    if others:
        later = ", ".join(dict.fromkeys(_named(one) for group in others for one in group))
        steps.append(Step("failover", f"{later}: when too many of the others are ejected"))
    steps += server.steps(upstream, request)
    pods = tuple(dict.fromkeys(map(_named, found)))
    return Target(cluster, share, pods, tuple(steps))


def _named(endpoint: Endpoint) -> str:
    return endpoint.pod.name if endpoint.pod else f"{endpoint.address}:{endpoint.port}"


_FIELDS = {
    "load balancing": "load_balancer",
    "connection pool": "connection_pool",
    "outlier detection": "outlier_detection",
    "PROXY protocol": "proxy_protocol",
    "TLS": "tls",
}


def _policies(upstream: Upstream) -> Iterator[Step]:
    rule, subset = upstream.view.rules.get(upstream.host.name), upstream.subset
    for own, resource, index in rule.subsets if rule else ():
        if own.name == subset:
            labels = ", ".join(f"{key}={value}" for key, value in own.labels.items())
            place = resource.source.at("spec", "subsets", index)
            yield Step("subset", f"{subset} ({labels or 'all'})", place)
    policy = upstream.policy
    for what, name in _FIELDS.items():
        if (value := getattr(policy, name)) != getattr(Policy(), name):
            given = value.model_dump(by_alias=True, exclude_unset=True)
            if name == "proxy_protocol":
                given = {"version": value.version or "V1"}
            yield Step(what, _flat(given), policy.origins[name].at())
    tunnel, origin = destination_rule.tunnel(rule, subset)
    if tunnel is not None:
        to = f"{tunnel.protocol or 'CONNECT'} {tunnel.target_host}:{tunnel.target_port}"
        yield Step("tunnel", f"{to}, for connections without HTTP", origin.at())


def _flat(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(
            f"{key} {{{_flat(item)}}}" if isinstance(item, dict) else f"{key} {_flat(item)}"
            for key, item in value.items()
        )
    return duration(value) if isinstance(value, timedelta) else str(value)
