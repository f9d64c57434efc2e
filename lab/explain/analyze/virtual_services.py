"""VirtualServices: destinations, subsets and gateways that are not there, conflicts, vain rules."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from itertools import chain

from lab import names
from lab.explain.analyze import hosts
from lab.explain.analyze.finding import LAB, Finding, about
from lab.kinds import selection
from lab.kinds.services import Host
from lab.kinds.types import Destination
from lab.kinds.virtual_service import becomes as virtual_service
from lab.kinds.virtual_service.checks import claim_path
from lab.kinds.virtual_service.types import HTTPRoute
from lab.kinds.virtual_service.unused import unused
from lab.model import Snapshot
from lab.resources.resource import Path, Resource


def destinations(snapshot: Snapshot) -> Iterator[Finding]:
    """Yields destinations whose host, port or subset is not there (IST0101, IST0112)."""
    known = hosts.registry(snapshot)
    subsets = _subsets(snapshot)
    for resource in snapshot.of("VirtualService"):
        for what, path, destination in _destinations(resource):
            readers = resource.spec.export_to or (resource.namespace,)
            found = hosts.find(known, resource.namespace, readers, destination.host)
            at = (*path, "host")
            if not found:
                hint = _similar(destination.host, known, resource.namespace)
                text = f'Referenced {what}host not found: "{destination.host}"{hint}'
                yield about("IST0101", resource, text, *at)
            else:
                yield from _ports(resource, destination, found, at)
            target = names.expand(destination.host, resource.namespace), destination.subset
            if destination.subset and target not in subsets:
                kind = "mirror+subset" if what else "host+subset"
                name = f"{destination.host}+{destination.subset}"
                text = f'Referenced {kind} in destinationrule not found: "{name}"'
                yield about("IST0101", resource, text, *path, "subset")


def _destinations(resource: Resource) -> Iterator[tuple[str, Path, Destination]]:
    """Yields each destination with its place, and `mirror ` before its name if it is one."""
    for index, http in enumerate(resource.spec.http):
        yield from _of_route(http, ("spec", "http", index))
    for kind, routes in (("tcp", resource.spec.tcp), ("tls", resource.spec.tls)):
        for index, route in enumerate(routes):
            for position, entry in enumerate(route.route):
                path = ("spec", kind, index, "route", position, "destination")
                yield "", path, entry.destination


def _of_route(http: HTTPRoute, path: Path) -> Iterator[tuple[str, Path, Destination]]:
    for index, entry in enumerate(http.route):
        yield "", (*path, "route", index, "destination"), entry.destination
    if http.mirror is not None:
        yield "mirror ", (*path, "mirror"), http.mirror
    for index, policy in enumerate(http.mirrors):
        yield "mirror ", (*path, "mirrors", index, "destination"), policy.destination


def _ports(
    resource: Resource, destination: Destination, found: Sequence[Host], at: Path
) -> Iterator[Finding]:
    numbers = list(dict.fromkeys(port.port for host in found for port in host.ports))
    if destination.port is None:
        if len(numbers) > 1:
            shown = " ".join(map(str, numbers))
            text = (
                f'This VirtualService routes to a service "{destination.host}" that exposes '
                f"multiple ports [{shown}]. Specifying a port in the destination is required to "
                "disambiguate."
            )
            yield about("IST0112", resource, text, *at)
    elif destination.port.number not in numbers:
        name = f"{destination.host}:{destination.port.number}"
        text = f'Referenced host:port not found: "{name}"'
        yield about("IST0101", resource, text, *at[:-1], "port", "number")


def _subsets(snapshot: Snapshot) -> set[tuple[str, str]]:
    return {
        (names.expand(rule.spec.host, rule.namespace), subset.name)
        for rule in snapshot.of("DestinationRule")
        for subset in rule.spec.subsets
    }


def _similar(host: str, known: Sequence[Host], namespace: str) -> str:
    """Returns a hint at a host of nearly the same name, if there is one."""
    ending = f".{namespace}.svc.cluster.local"
    candidates = [item.name for item in known]
    if "." not in host:
        candidates = [name.removesuffix(ending) for name in candidates if name.endswith(ending)]
    near = difflib.get_close_matches(host, candidates, n=1, cutoff=0.8)
    return f" (there is {near[0]})" if near else ""


def misspelt(snapshot: Snapshot) -> Iterator[Finding]:
    """Yields hosts of VirtualServices that nobody has, where another is called nearly so.

    istioctl finds no fault in them, and their rules meet no request.
    """
    known = hosts.registry(snapshot)
    for resource in snapshot.of("VirtualService"):
        if names.MESH not in (resource.spec.gateways or (names.MESH,)):
            continue
        for index, name in enumerate(virtual_service.hosts(resource)):
            host = resource.spec.hosts[index]
            hint = _similar(host.lower(), known, resource.namespace)
            if hint and not any(hosts.overlap(item.name, name) for item in known):
                nobody = f"no Service or ServiceEntry has {host}{hint}"
                text = f"{nobody}: no request meets the rules"
                yield about(LAB, resource, text, "spec", "hosts", index)


def gateways(snapshot: Snapshot) -> Iterator[Finding]:
    """Yields gateways that are not there (IST0101), or don't have the hosts (IST0132)."""
    known = {f"{item.namespace}/{item.name}": item for item in snapshot.of("Gateway")}
    for resource in snapshot.of("VirtualService"):
        for index, given in enumerate(resource.spec.gateways):
            if given == names.MESH:
                continue
            name = names.gateway(given, resource.namespace)
            at = ("spec", "gateways", index)
            if name not in known:
                text = f'Referenced gateway not found: "{given}"'
                yield about("IST0101", resource, text, *at)
            if name not in known or not _served(known[name], resource):
                shown = " ".join(resource.spec.hosts)
                text = (
                    f"one or more host [{shown}] defined in VirtualService "
                    f"{resource.namespace}/{resource.name} not found in Gateway {name}."
                )
                yield about("IST0132", resource, text, *at)


def _served(gateway: Resource, virtual_service: Resource) -> bool:
    """Returns whether a server of the gateway has one of the VirtualService's hosts."""
    for given in chain.from_iterable(server.hosts for server in gateway.spec.servers):
        namespace, slash, host = given.rpartition("/")
        where = gateway.namespace if namespace == "." else namespace
        if slash and where not in ("*", virtual_service.namespace):
            continue
        if any(hosts.overlap(host, other) for other in virtual_service.spec.hosts):
            return True
    return False


def conflicts(snapshot: Snapshot) -> Iterator[Finding]:
    """Yields VirtualServices of the mesh that have the same host (IST0109)."""
    scoped: dict[tuple[str, str], list[Resource]] = {}
    for resource in snapshot.of("VirtualService"):
        if names.MESH in (resource.spec.gateways or [names.MESH]):
            for scope in hosts.scopes(resource):
                for host in resource.spec.hosts:
                    key = scope, names.expand(host, resource.namespace)
                    scoped.setdefault(key, []).append(resource)
    reported: set[tuple[str, str]] = set()
    for (scope, host), owners in scoped.items():
        rivals = list(owners)
        if scope != "*":
            rivals += [
                rival
                for (other, pattern), found in scoped.items()
                if other == "*" and hosts.overlap(host, pattern)
                for rival in found
            ]
        listed = ",".join(sorted(f"{item.namespace}/{item.name}" for item in rivals))
        for resource in rivals if len(rivals) > 1 else ():
            if (resource.namespace, resource.name) in reported:
                continue
            reported.add((resource.namespace, resource.name))
            text = (
                f"The VirtualServices {listed} associated with mesh gateway define the same host "
                f"{scope}/{host} which can lead to undefined behavior. This can be fixed by "
                "merging the conflicting VirtualServices into a single resource."
            )
            yield about("IST0109", resource, text, "spec", "hosts")


def unreachable(snapshot: Snapshot) -> Iterator[Finding]:
    """Yields rules that are not used (IST0130), and matches that earlier ones cover (IST0131)."""
    for resource in snapshot.of("VirtualService"):
        for found in unused(resource.spec):
            code = "IST0131" if found.one_match else "IST0130"
            yield about(code, resource, f"VirtualService {found.text}.", "spec", *found.path)


def without_subset(snapshot: Snapshot) -> Iterator[Finding]:
    """Yields routes of gateways to a host whose subsets are chosen by rules that do not hold there
    (IST0140)."""
    owners: dict[str, list[Resource]] = {}
    for resource in snapshot.of("VirtualService"):
        for destination in _of_http(resource):
            if destination.subset and destination.host in resource.spec.hosts:
                owners.setdefault(destination.host, []).append(resource)
    for resource in snapshot.of("VirtualService"):
        if not resource.spec.gateways:
            continue
        for index, http in enumerate(resource.spec.http):
            for position, entry in enumerate(http.route):
                if entry.destination.subset:
                    continue
                path = ("spec", "http", index, "route", position, "destination", "host")
                for owner in owners.get(entry.destination.host, ()):
                    text = (
                        f"Subset in virtual service {owner.namespace}/{owner.name} has no effect "
                        f"on ingress gateway {resource.namespace}/{resource.name} requests"
                    )
                    yield about("IST0140", resource, text, *path)


def _of_http(resource: Resource) -> Iterator[Destination]:
    for http in resource.spec.http:
        for entry in http.route:
            yield entry.destination


def claims(snapshot: Snapshot) -> Iterator[Finding]:
    """Yields rules by claims of a token at gateways whose pods check no token (IST0149)."""
    known = {f"{item.namespace}/{item.name}": item for item in snapshot.of("Gateway")}
    for resource in snapshot.of("VirtualService"):
        key, path = next(_claims(resource), ("", ()))
        for given in resource.spec.gateways if key else ():
            if (gateway := known.get(names.gateway(given, resource.namespace))) is None:
                continue
            for pod in snapshot.pods:
                if names.selects(gateway.spec.selector, pod.labels) and not selection.for_pod(
                    snapshot, "RequestAuthentication", pod
                ):
                    text = (
                        f"The virtual service uses the JWT claim based routing (key: {key}) but "
                        f"found no request authentication for the gateway ({gateway.namespace}/"
                        f"{gateway.name}) pod ({pod.name}). The request authentication must first "
                        "be applied for the gateway pods to validate the JWT token and make the "
                        "claims available for routing."
                    )
                    yield about("IST0149", resource, text, *path)


def _claims(resource: Resource) -> Iterator[tuple[str, Path]]:
    for index, http in enumerate(resource.spec.http):
        for position, match in enumerate(http.match):
            for field, headers in (
                ("headers", match.headers),
                ("withoutHeaders", match.without_headers),
            ):
                for name in headers:
                    if claim_path(name) is not None:
                        yield name, ("spec", "http", index, "match", position, field, name)
