"""Checks of a VirtualService's `tcp` and `tls` routes: istiod's validation beyond the schema."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lab import names
from lab.kinds.virtual_service.types import (
    RouteDestination,
    VirtualServiceSpec,
)
from lab.resources.checks import warned
from lab.resources.resource import Check, Path, Problem
from lab.resources.values import host_problem, is_ip, network_problem, port_problem


def _sni_hosts(spec: VirtualServiceSpec) -> Iterator[Problem]:
    for index, tls in enumerate(spec.tls):
        for position, match in enumerate(tls.match):
            for place, name in enumerate(match.sni_hosts):
                path = ("tls", index, "match", position, "sniHosts", place)
                yield from _sni_host(name, spec.hosts, path)


def _sni_host(name: str, hosts: Sequence[str], path: Path) -> Iterator[Problem]:
    if is_ip(name):
        reason = (
            f'using an IP address ("{name}") goes against SNI spec and most clients do not '
            "support this"
        )
        yield Problem(path, reason, "warning")
    elif problem := host_problem(name):
        yield Problem(path, problem)
    elif not any(names.matches(host, name) for host in hosts):
        listed = ", ".join(hosts)
        reason = f'SNI host "{name}" is not a compatible subset of any of the virtual service hosts'
        yield Problem(path, f"{reason}: [{listed}]")


def _weights(route: list[RouteDestination]) -> bool:
    return len(route) < 2 or sum(entry.weight for entry in route) > 0


CONNECTIONS = (
    warned("**.sourceSubnet", "Istio does not look at it"),
    Check(
        "spec.tls[].match",
        bool,
        "TLS route must have at least one match condition",
    ),
    Check(
        "spec.tls[].match[].sniHosts",
        bool,
        "TLS match must have at least one SNI host",
    ),
    Check("spec", _sni_hosts),
    Check("**.destinationSubnets[]", network_problem),
    Check("spec.tls[]|tcp[].match[].port", lambda port: port_problem(port) if port else None),
    Check("spec.tls[]", lambda rule: bool(rule.route), "TLS route is required"),
    Check("spec.tcp[]", lambda rule: bool(rule.route), "TCP route is required"),
    Check("spec.tls[]|tcp[].route", _weights, "total destination weight = 0"),
)
