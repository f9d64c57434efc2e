"""VirtualService: the rules of its `tcp` and `tls` routes, for connections that are not HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from lab import names
from lab.kinds.virtual_service.becomes import hosts, only_port
from lab.kinds.virtual_service.types import L4MatchAttributes, RouteDestination, TLSMatchAttributes
from lab.kinds.visible import View
from lab.model import ServicePort
from lab.resources.resource import Origin, Resource

TLS_PROTOCOLS = ("TLS", "HTTPS")

Match = L4MatchAttributes | TLSMatchAttributes
Fits = Callable[[Resource, Match], bool]


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of a VirtualService for the connections of one port."""

    resource: Resource
    origin: Origin
    route: Sequence[RouteDestination]
    server_names: tuple[str, ...] = ()
    """The names in the client's TLS hello; empty for any."""
    subnets: tuple[str, ...] = ()
    """The destination's addresses; empty for any."""
    named: bool = True
    """Whether istiod names the VirtualService in the metadata of its filter chain."""


def for_host(
    view: View, host: str, port: ServicePort, subnets: Sequence[str]
) -> tuple[list[Rule], bool]:
    """Returns the rules of a sidecar for a host's port, and whether some connections have none.

    `subnets` are the host's own, if it has any.
    """
    found = [
        resource
        for resource in view.virtual_services
        if any(
            names.matches(pattern, host) or names.matches(host, pattern)
            for pattern in hosts(resource)
        )
    ]
    fits = partial(_concerns, view, port.port)
    if port.protocol in TLS_PROTOCOLS:
        rules = list(_of_server_names(tls(found, fits), tuple(subnets)))
        return rules, not rules
    rules = list(tcp(found, fits, tuple(subnets)))
    complete = any(sorted(rule.subnets) == sorted(subnets) for rule in rules)
    return rules, not complete


def _of_server_names(rules: Iterator[Rule], subnets: tuple[str, ...]) -> Iterator[Rule]:
    """Yields the first rule for server names and subnets; those without subnets have the host's."""
    seen: set[tuple[tuple[str, ...], tuple[str, ...]]] = set()
    for rule in rules:
        # istiod keeps the subnets of one match for all that follow it.
        subnets = rule.subnets or subnets
        key = (rule.server_names, rule.subnets)
        if key not in seen:
            seen.add(key)
            yield replace(rule, subnets=subnets)


def tls(resources: Iterable[Resource], fits: Fits) -> Iterator[Rule]:
    """Yields a rule for each match of `tls` routes that fits."""
    for resource in resources:
        for index, route in enumerate(resource.spec.tls):
            for position, match in enumerate(route.match):
                if fits(resource, match):
                    path = ("spec", "tls", index, "match", position)
                    origin = Origin(resource.source, path, resource)
                    wanted = (tuple(match.sni_hosts), tuple(match.destination_subnets))
                    yield Rule(resource, origin, route.route, *wanted)


def tcp(resources: Iterable[Resource], fits: Fits, subnets: tuple[str, ...] = ()) -> Iterator[Rule]:
    """Yields TCP rules, up to the first for all addresses; one of several subnets has them all."""
    for resource in resources:
        for index, route in enumerate(resource.spec.tcp):
            origin = Origin(resource.source, ("spec", "tcp", index), resource)
            own = [match for match in route.match if fits(resource, match)]
            if not route.match or any(not match.destination_subnets for match in own):
                yield Rule(resource, origin, route.route, (), subnets)
                return
            if own:
                chosen = tuple(subnet for match in own for subnet in match.destination_subnets)
                yield Rule(resource, origin, route.route, (), chosen, named=False)


def _concerns(view: View, port: int, resource: Resource, match: Match) -> bool:
    return (
        at(names.MESH, port, resource, match)
        and match.source_namespace in (None, "", view.pod.namespace)
        and names.selects(match.source_labels, view.pod.labels)
    )


def at(gateway: str, port: int, resource: Resource, match: Match) -> bool:
    """Returns whether a match holds at a port of a gateway, or of all sidecars (`mesh`)."""
    bound = [names.gateway(name, resource.namespace) for name in match.gateways]
    return match.port in (None, 0, port) and (not bound or gateway in bound)


def clusters(view: View, rule: Rule, port: int) -> list[tuple[str, int]]:
    """Returns the clusters of a rule with their weights.

    A destination without a port has its host's only one, else that of the listener.
    """
    result = []
    for entry in rule.route:
        destination = entry.destination
        host = names.expand(destination.host, rule.resource.namespace)
        number = destination.port.number if destination.port else only_port(view, host) or port
        result.append((names.cluster(number, host, destination.subset or ""), entry.weight))
    return result
