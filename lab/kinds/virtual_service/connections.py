"""VirtualService: the rules of its `tcp` and `tls` routes, for connections that are not HTTP."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lab import names
from lab.kinds.virtual_service.becomes import hosts, only_port
from lab.kinds.virtual_service.types import L4MatchAttributes, RouteDestination, TLSMatchAttributes
from lab.kinds.visible import View
from lab.model import ServicePort
from lab.resources.resource import Origin, Resource

TLS_PROTOCOLS = ("TLS", "HTTPS")


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
        if any(names.matches(pattern, host) for pattern in hosts(resource))
    ]
    if port.protocol in TLS_PROTOCOLS:
        rules = list(_of_tls(view, found, port.port, tuple(subnets)))
        return rules, not rules
    rules = list(_of_tcp(view, found, port.port, tuple(subnets)))
    complete = any(sorted(rule.subnets) == sorted(subnets) for rule in rules)
    return rules, not complete


def _of_tls(
    view: View, resources: Sequence[Resource], port: int, subnets: tuple[str, ...]
) -> Iterator[Rule]:
    seen: set[tuple[tuple[str, ...], tuple[str, ...]]] = set()
    for resource in resources:
        for index, tls in enumerate(resource.spec.tls):
            for position, match in enumerate(tls.match):
                if not _concerns(view, resource, match, port):
                    continue
                # istiod keeps the subnets of one match for all that follow it.
                subnets = tuple(match.destination_subnets) or subnets
                key = (tuple(match.sni_hosts), tuple(match.destination_subnets))
                if key not in seen:
                    seen.add(key)
                    path = ("spec", "tls", index, "match", position)
                    origin = Origin(resource.source, path, resource)
                    yield Rule(resource, origin, tls.route, tuple(match.sni_hosts), subnets)


def _of_tcp(
    view: View, resources: Sequence[Resource], port: int, subnets: tuple[str, ...]
) -> Iterator[Rule]:
    """Yields TCP rules, up to the first for all addresses; one of several subnets has them all."""
    for resource in resources:
        for index, tcp in enumerate(resource.spec.tcp):
            origin = Origin(resource.source, ("spec", "tcp", index), resource)
            own = [match for match in tcp.match if _concerns(view, resource, match, port)]
            if not tcp.match or any(not match.destination_subnets for match in own):
                yield Rule(resource, origin, tcp.route, (), subnets)
                return
            if own:
                chosen = tuple(subnet for match in own for subnet in match.destination_subnets)
                yield Rule(resource, origin, tcp.route, (), chosen, named=False)


def _concerns(
    view: View, resource: Resource, match: L4MatchAttributes | TLSMatchAttributes, port: int
) -> bool:
    return (
        at(resource, match, names.MESH, port)
        and match.source_namespace in (None, "", view.pod.namespace)
        and names.selects(match.source_labels, view.pod.labels)
    )


def at(
    resource: Resource, match: L4MatchAttributes | TLSMatchAttributes, gateway: str, port: int
) -> bool:
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
