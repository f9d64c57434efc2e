"""The mesh as one proxy sees it: visible hosts, rules and routes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from lab import names
from lab.kinds import services
from lab.kinds.destination_rule import becomes as destination_rule
from lab.kinds.destination_rule.becomes import Policy, Rule
from lab.kinds.mesh_config import annotation
from lab.kinds.mesh_config import becomes as mesh_config
from lab.kinds.mesh_config.checks import DefaultTrafficPolicy, MeshConfig, OutboundMode
from lab.kinds.service_entry import becomes as service_entry
from lab.kinds.services import Endpoint, Host
from lab.kinds.sidecar import becomes as sidecar
from lab.kinds.virtual_service import delegate
from lab.model import Pod, Snapshot
from lab.resources.resource import Origin, Resource


@dataclass(frozen=True, slots=True)
class View:
    snapshot: Snapshot
    pod: Pod
    hosts: Mapping[str, Host]
    """The hosts that the proxy has virtual hosts and listeners for."""
    destinations: Mapping[str, Host]
    """The hosts that it has clusters for: also those that its VirtualServices route to."""
    rules: Mapping[str, Rule]
    """The DestinationRule of each host that has one."""
    virtual_services: tuple[Resource, ...]
    """Private ones, then those exported to this namespace, then public ones; the oldest first."""
    outbound_mode: OutboundMode
    outbound_origin: Origin
    sidecar: Resource | None
    mesh: MeshConfig
    """With Istio's defaults, and what the pod's own annotation says."""

    def subsets(self, host: Host) -> list[str]:
        """Returns the subsets of a host, the first of them the whole host with an empty name."""
        rule = self.rules.get(host.name)
        return ["", *(subset.name for subset, _, _ in rule.subsets)] if rule else [""]

    def endpoints(self, host: Host, port: int) -> list[Endpoint]:
        """Returns the endpoints of a host's port, of all definitions of the host."""
        result: list[Endpoint] = []
        for part in host.parts or (host,):
            if (found := part.port(port)) is None:
                continue
            if part.service is not None:
                result += services.endpoints(part.service, found, self.snapshot.pods)
            elif part.entry is not None:
                result += service_entry.endpoints(self.snapshot, part.entry, found)
        return result

    def policy(self, host: str, port: int, subset: str | None = None) -> Policy:
        """Returns the effective traffic policy towards a destination."""
        default = self.default_policy()
        found = destination_rule.effective(self.rules.get(host), port, subset, default)
        return destination_rule.with_mesh(found, self.mesh)

    def default_policy(self) -> tuple[DefaultTrafficPolicy, Origin] | None:
        """Returns the mesh's traffic policy for what no DestinationRule sets."""
        found = self.mesh.default_traffic_policy
        if found is None:
            return None
        return found, mesh_config.origin(self.snapshot, "defaultTrafficPolicy")


def view(snapshot: Snapshot, pod: Pod) -> View:
    """Returns everything that exportTo and its Sidecar let a pod's proxy see."""
    snapshot = mesh_config.with_exports(snapshot)
    scope = sidecar.applicable(snapshot, pod)
    mesh = mesh_config.defaults(annotation.merged(snapshot.mesh, pod.annotations))
    outbound_mode, outbound_origin = sidecar.outbound_mode(scope, mesh, snapshot)
    exported = [
        host
        for host in _all_hosts(snapshot)
        if services.exported(host.export_to, host.namespace, pod.namespace)
    ]
    hosts = _merged(host for host in exported if sidecar.imports(scope, host.namespace, host.name))
    virtual_services = _virtual_services(snapshot, pod, scope)
    wanted = {
        *hosts,
        *(name for found in virtual_services for name in _destinations(snapshot, found)),
    }
    destinations = {
        name: hosts.get(name, host) for name, host in _merged(exported).items() if name in wanted
    }
    rules = {
        name: rule
        for name, host in destinations.items()
        if (rule := destination_rule.applicable(snapshot, pod, name, host.namespace))
    }
    return View(
        snapshot=snapshot,
        pod=pod,
        hosts=hosts,
        destinations=destinations,
        rules=rules,
        virtual_services=virtual_services,
        outbound_mode=outbound_mode,
        outbound_origin=outbound_origin,
        sidecar=scope,
        mesh=mesh,
    )


def _merged(found: Iterable[Host]) -> dict[str, Host]:
    hosts: dict[str, Host] = {}
    for host in found:
        known = hosts.get(host.name)
        hosts[host.name] = services.merged(known, host) if known else host
    return hosts


def _virtual_services(snapshot: Snapshot, pod: Pod, scope: Resource | None) -> tuple[Resource, ...]:
    visible = (
        found
        for found in snapshot.of("VirtualService")
        if (pod.proxy == "gateway" or names.MESH in (found.spec.gateways or (names.MESH,)))
        and services.exported(found.spec.export_to, found.namespace, pod.namespace)
        and any(
            sidecar.imports(scope, found.namespace, names.expand(host, found.namespace))
            for host in found.spec.hosts
        )
    )
    return tuple(sorted(visible, key=_publicity))


def _destinations(snapshot: Snapshot, virtual_service: Resource) -> Iterator[str]:
    """Yields the hosts that a VirtualService, or a delegate of it, routes or mirrors to."""
    for rule in delegate.rules(snapshot, virtual_service):
        http = rule.http
        found = [entry.destination for entry in http.route]
        found += [http.mirror] if http.mirror else []
        found += [mirror.destination for mirror in http.mirrors]
        for destination in found:
            yield names.expand(destination.host, virtual_service.namespace)
    for rule in (*virtual_service.spec.tcp, *virtual_service.spec.tls):
        for entry in rule.route:
            yield names.expand(entry.destination.host, virtual_service.namespace)


def _publicity(virtual_service: Resource) -> int:
    """Returns the place of a VirtualService by its exportTo, as istiod sorts them."""
    targets = virtual_service.spec.export_to or ("*",)
    return 2 if "*" in targets else 0 if "." in targets else 1


def _all_hosts(snapshot: Snapshot) -> list[Host]:
    hosts = [services.of_service(service) for service in snapshot.services]
    for entry in snapshot.of("ServiceEntry"):
        hosts.extend(service_entry.hosts(entry))
    return hosts
