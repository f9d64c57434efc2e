"""The mesh as one proxy sees it: the hosts, rules and routes visible to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lab import names
from lab.kinds import services
from lab.kinds.destination_rule import becomes as destination_rule
from lab.kinds.destination_rule.becomes import Policy, Rule
from lab.kinds.mesh_config import becomes as mesh_config
from lab.kinds.mesh_config.checks import MeshConfig
from lab.kinds.service_entry import becomes as service_entry
from lab.kinds.services import Endpoint, Host
from lab.kinds.sidecar import becomes as sidecar
from lab.model import Pod, Snapshot
from lab.resources.resource import Origin, Resource


@dataclass(frozen=True, slots=True)
class View:
    snapshot: Snapshot
    pod: Pod
    hosts: Mapping[str, Host]
    rules: Mapping[str, Rule]
    """The DestinationRule of each host that has one."""
    virtual_services: tuple[Resource, ...]
    """Those visible to the proxy, oldest first."""
    outbound_mode: sidecar.OutboundMode
    outbound_origin: Origin
    sidecar: Resource | None
    mesh: MeshConfig
    """The mesh's configuration, with Istio's defaults."""

    def endpoints(self, host: Host, port: int) -> list[Endpoint]:
        found = host.port(port)
        if found is None:
            return []
        if host.service is not None:
            return services.endpoints(host.service, found, self.snapshot.pods)
        if host.entry is not None:
            return service_entry.endpoints(self.snapshot, host.entry, found)
        return []

    def tunnel_ports(self) -> list[int]:
        """The ports on which some host is reached through TLS or, outside the cluster, TCP."""
        return sorted(
            {
                port.port
                for host in self.hosts.values()
                for port in host.ports
                if port.protocol in ("TLS", "HTTPS")
                or (port.protocol == "TCP" and host.service is None)
            }
        )

    def policy(self, host: str, port: int, subset: str | None = None) -> Policy:
        """The effective traffic policy towards a destination."""
        return destination_rule.effective(self.rules.get(host), port, subset)


def view(snapshot: Snapshot, pod: Pod) -> View:
    """Everything the pod's proxy is allowed to see, by exportTo and by its Sidecar."""
    scope = sidecar.applicable(snapshot, pod)
    outbound_mode, outbound_origin = sidecar.outbound_mode(scope, snapshot)
    hosts: dict[str, Host] = {}
    for host in _all_hosts(snapshot):
        if not services.exported(host.export_to, host.namespace, pod.namespace):
            continue
        if not sidecar.imports(scope, host.namespace, host.name):
            continue
        hosts[host.name] = _join(hosts.get(host.name), host)
    rules = {
        name: rule
        for name, host in hosts.items()
        if (rule := destination_rule.applicable(snapshot, pod, name, host.namespace))
    }
    return View(
        snapshot=snapshot,
        pod=pod,
        hosts=hosts,
        rules=rules,
        virtual_services=tuple(
            found
            for found in snapshot.of("VirtualService")
            if services.exported(found.spec.export_to, found.namespace, pod.namespace)
            and (
                pod.proxy == "gateway"
                or any(
                    sidecar.imports(scope, found.namespace, names.expand(host, found.namespace))
                    for host in found.spec.hosts
                )
            )
        ),
        outbound_mode=outbound_mode,
        outbound_origin=outbound_origin,
        sidecar=scope,
        mesh=mesh_config.defaults(snapshot.mesh),
    )


def _all_hosts(snapshot: Snapshot) -> list[Host]:
    hosts = [services.of_service(service) for service in snapshot.services]
    for entry in snapshot.of("ServiceEntry"):
        hosts.extend(service_entry.hosts(entry))
    return hosts


def _join(first: Host | None, second: Host) -> Host:
    """Two definitions of one name: the first one's, which is Kubernetes' or the oldest's."""
    return first or second
