"""The client of a test case that names none: any place where its VirtualService is in force."""

from __future__ import annotations

from dataclasses import replace

from lab import names
from lab.explain.analyze import hosts
from lab.kinds.gateway import becomes as gateway
from lab.kinds.virtual_service import becomes as virtual_service
from lab.manifests import load
from lab.model import Pod, Snapshot
from lab.resources.resource import Resource

ANY = "any"

_ADDRESS = "127.77.255.254"
_NO_DELEGATE = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{http: [{{directResponse: {{status: 404}}}}]}}
"""
ABSENT = "(not in the files)"
"""The file of what stands in for a delegate that the files lack."""


def anybody(namespace: str) -> Pod:
    """Returns a pod of the mesh without labels, with the identity of the default account."""
    return Pod(
        namespace=namespace,
        name=ANY,
        labels={},
        annotations={},
        service_account="default",
        address=_ADDRESS,
        inside_address=names.inside(_ADDRESS),
        ports={},
        ready=True,
        proxy="sidecar",
    )


def place(snapshot: Snapshot, authority: str) -> tuple[Snapshot, Pod, str, int | None, list[str]]:
    """Returns where the rules for a host are in force: mesh, client, scheme, port and notes.

    The client is a pod of the mesh, or the gateway of the VirtualService. Where no manifest has
    that Gateway, the rules are read as if they were for the mesh.
    """
    rule = rule_for(snapshot, authority)
    if rule is not None and _host(authority) in _registry(snapshot) and not _names(rule, authority):
        rule = None  # A rule for every host, perhaps of a gateway; the mesh has a Service.
    if rule is None or virtual_service.applies(rule, names.MESH):
        return snapshot, anybody(rule.namespace if rule else "default"), "http", None, []
    bound = {names.gateway(name, rule.namespace) for name in rule.spec.gateways}
    for pod in snapshot.pods:
        if pod.proxy != "gateway":
            continue
        servers = [one for one in gateway.servers(snapshot, pod) if one.gateway in bound]
        servers.sort(key=lambda one: not one.plain_http)
        if servers:
            scheme = "http" if servers[0].plain_http else "https"
            return snapshot, pod, scheme, servers[0].server.port.number, []
    missing = ", ".join(sorted(bound))
    note = f"no gateway serves {missing}: its rules are read as if they were for the mesh"
    return _in_the_mesh(snapshot, rule), anybody(rule.namespace), "http", None, [note]


def rule_for(snapshot: Snapshot, authority: str) -> Resource | None:
    """Returns the VirtualService for a host: of its very name, else with the longest wildcard."""
    host = _host(authority)
    best: tuple[bool, int] = (False, -1)
    found = None
    for resource in snapshot.of("VirtualService"):
        full = names.expand(host, resource.namespace)
        for pattern in virtual_service.hosts(resource):
            rank = (pattern == full, len(pattern))
            if names.matches(pattern, full) and rank > best:
                best, found = rank, resource
    return found


def _host(authority: str) -> str:
    return authority.rpartition(":")[0] or authority


def _names(rule: Resource, authority: str) -> bool:
    """Whether a VirtualService has a host by its very name, without a wildcard."""
    return names.expand(_host(authority), rule.namespace) in virtual_service.hosts(rule)


def _registry(snapshot: Snapshot) -> set[str]:
    """The names of all Services and ServiceEntries, as a pod of `default` may write them."""
    found = hosts.registry(snapshot)
    return {name for host in found for name in names.alternatives(host.name, "default")}


def _in_the_mesh(snapshot: Snapshot, rule: Resource) -> Snapshot:
    """The snapshot with a VirtualService bound to the mesh alone."""
    http = [
        one.model_copy(
            update={"match": [match.model_copy(update={"gateways": []}) for match in one.match]}
        )
        for one in rule.spec.http
    ]
    spec = rule.spec.model_copy(update={"gateways": [names.MESH], "http": http})
    bound = replace(rule, body=rule.body.model_copy(update={"spec": spec}))
    rules = tuple(bound if one is rule else one for one in snapshot.of("VirtualService"))
    return replace(snapshot, config={**snapshot.config, "VirtualService": rules})


def with_delegates(snapshot: Snapshot) -> Snapshot:
    """Returns the mesh with something in the place of each delegate that is not there.

    istiod leaves such a rule out; a test of some files alone asks whether it delegates.
    """
    rules = snapshot.of("VirtualService")
    known = {(one.namespace, one.name) for one in rules}
    wanted = {
        (http.delegate.namespace or one.namespace, http.delegate.name): None
        for one in rules
        for http in one.spec.http
        if http.delegate is not None and http.delegate.name
    }
    texts = [
        (ABSENT, _NO_DELEGATE.format(name=name, namespace=namespace))
        for namespace, name in wanted
        if (namespace, name) not in known
    ]
    added = load.parse(texts).resources
    return replace(snapshot, config={**snapshot.config, "VirtualService": (*rules, *added)})
