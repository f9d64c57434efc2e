"""Checks of a VirtualService's `tcp` and `tls` routes: istiod's validation beyond the schema."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence

from lab import names
from lab.kinds.virtual_service.types import (
    HTTPRoute,
    RouteDestination,
    TCPRoute,
    TLSRoute,
    VirtualServiceSpec,
)
from lab.resources.checks import warned
from lab.resources.resource import Check, Model, Path, Problem
from lab.resources.values import host_problem, is_ip, port_problem


def _subnet(subnet: str) -> str | None:
    if "/" in subnet:
        try:
            ipaddress.ip_interface(subnet)
        except ValueError:
            return f"{subnet} is not a valid CIDR block"
        return None
    return None if is_ip(subnet) else f"{subnet} is not a valid IP"


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


def unused(rules: Sequence[HTTPRoute | TCPRoute | TLSRoute]) -> Iterator[Problem]:
    """Warns about rules and matches that earlier ones leave nothing, as istiod names them."""
    catch_all = False
    seen: dict[str, int] = {}
    for index, rule in enumerate(rules):
        http = isinstance(rule, HTTPRoute)
        what = f"virtualService rule {named(rule, index)}"
        if catch_all and not rule.match:
            reason = f"{what} not used (only the last rule can have no matches)"
            yield Problem((index,), reason, "warning")
        repeated = 0
        for position, match in enumerate(rule.match):
            path = (index, "match", position) if http else (index,)
            key = match.model_dump_json(exclude={"name"})
            if catch_all:
                reason = f"{what} not used (route without matches defined before)"
                yield Problem(path, reason, "warning")
                if not http:
                    break
            elif key in seen:
                repeated += 1
                earlier = named(rules[seen[key]], seen[key])
                reason = overlaps(what, named(match, position), earlier)
                yield Problem((index, "match", position), reason, "warning")
            seen.setdefault(key, index)
        if repeated and repeated == len(rule.match):
            reason = f"{what} not used (all matches used by prior rules)"
            yield Problem((index,), reason, "warning")
        catch_all = catch_all or not rule.match


def named(part: Model, index: int) -> str:
    """Returns the name of a rule or of a match, else its number."""
    name = getattr(part, "name", None)
    return f'"{name}"' if name else f"#{index}"


def overlaps(rule: str, match: str, earlier: str) -> str:
    return f"{rule} match {match} is not used (duplicate/overlapping match in rule {earlier})"


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
    Check("**.destinationSubnets[]", _subnet),
    Check("spec.tls[]|tcp[].match[].port", lambda port: port_problem(port) if port else None),
    Check("spec.tls[]", lambda rule: bool(rule.route), "TLS route is required"),
    Check("spec.tcp[]", lambda rule: bool(rule.route), "TCP route is required"),
    Check("spec.tls[]|tcp[].route", _weights, "total destination weight = 0"),
    Check("spec.tls|tcp", unused),
)
