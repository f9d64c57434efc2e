"""The mesh as one proxy sees it: visible hosts, rules and routes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from lab import names
from lab.kinds import services
from lab.kinds.destination_rule import becomes as destination_rule
from lab.kinds.destination_rule.becomes import Policy, Rule
from lab.kinds.destination_rule.checks import secret_of
from lab.kinds.destination_rule.types import ClientTLSSettings
from lab.kinds.mesh_config import becomes as mesh_config
from lab.kinds.mesh_config.checks import DefaultTrafficPolicy, MeshConfig, OutboundMode
from lab.kinds.proxy_config import becomes as proxy_config
from lab.kinds.service_entry import becomes as service_entry
from lab.kinds.services import Endpoint, Host
from lab.kinds.sidecar import becomes as sidecar
from lab.kinds.sidecar.types import IstioEgressListener
from lab.kinds.types import Destination
from lab.kinds.virtual_service import delegate
from lab.kinds.workload_entry import becomes as workload_entry
from lab.model import Pod, ServicePort, Snapshot
from lab.resources.resource import Origin, Resource


@dataclass(frozen=True, slots=True)
class Egress:
    """An egress listener of a Sidecar: what the proxy's application reaches through it."""

    listener: IstioEgressListener
    hosts: Mapping[str, Host]
    virtual_services: tuple[Resource, ...]
    """Private ones, then those exported to this namespace, then public ones; the oldest first."""

    @property
    def port(self) -> int | None:
        """Its port, if it is for one; 0 for a Unix socket."""
        return self.listener.port.number if self.listener.port else None

    @property
    def proxies(self) -> bool:
        """Whether it is an HTTP proxy, for the hosts of all ports."""
        port = self.listener.port
        return port is not None and port.protocol.upper() == "HTTP_PROXY"

    @property
    def one_port(self) -> int | None:
        """The one port of its hosts; None where it has all of them."""
        return None if self.proxies else self.port or None


@dataclass(frozen=True, slots=True)
class Upstream:
    """A port of a host, or a subset of it, as one proxy connects to it: an outbound cluster."""

    view: View
    host: Host
    port: ServicePort
    subset: str
    """Empty for the whole host."""
    policy: Policy

    @property
    def name(self) -> str:
        return names.cluster(self.port.port, self.host.name, self.subset)

    @property
    def direct(self) -> bool:
        """Whether the proxy connects to the original destination of each connection."""
        if self.view.pod.proxy == "sidecar" and (
            self.host.headless or self.host.resolution == "NONE"
        ):
            return True
        passes = destination_rule.passes(self.policy.load_balancer)
        return passes and self.host.resolution != "DYNAMIC_DNS"

    @property
    def sniffs(self) -> bool:
        """Whether the proxy finds out the protocol of a port without one."""
        return self.view.pod.proxy == "sidecar"

    @property
    def http2(self) -> bool:
        """Whether the proxy speaks HTTP/2 to the endpoints, whatever its client speaks."""
        return destination_rule.is_http2(self.port, self.policy, sniffed=self.sniffs)

    def endpoints(self) -> list[Endpoint]:
        """Returns the endpoints that do not end and whose labels include the subset's."""
        found = self.view.endpoints(self.host, self.port.port)
        rule = self.view.rules.get(self.host.name)
        chosen = rule.subset(self.subset) if rule else None
        labels = chosen.labels if chosen else {}
        return [item for item in found if not item.ending and names.selects(labels, item.labels)]


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
    egress: tuple[Egress, ...]
    """In order; the last may be the one for all ports that the others don't have."""
    outbound_mode: OutboundMode
    outbound_origin: Origin
    sidecar: Resource | None
    mesh: MeshConfig
    """With Istio's defaults, and what the pod's own annotation says."""

    @property
    def virtual_services(self) -> tuple[Resource, ...]:
        """The VirtualServices of all egress listeners."""
        if len(self.egress) == 1:
            return self.egress[0].virtual_services
        found = {id(one): one for part in self.egress for one in part.virtual_services}
        return tuple(found.values())

    def through(self, egress: Egress) -> View:
        """Returns what is to be seen through one egress listener."""
        return replace(self, hosts=egress.hosts, egress=(egress,))

    def at(self, port: int, bind: str = "") -> View:
        """Returns what is to be seen at a port, or at a Unix socket."""
        for found in self.egress:
            if found.port is None or (found.port == port and (port or found.listener.bind == bind)):
                return self.through(found)
        return replace(self, hosts={}, egress=())

    def upstream(self, host: Host, port: ServicePort, subset: str = "") -> Upstream:
        """Returns a port of a host, or a subset of it, with its traffic policy."""
        policy = self.policy(host.name, port.port, subset)
        policy = destination_rule.upgraded(policy, port, self.mesh)
        return Upstream(self, host, port, subset, policy)

    def upstreams(self) -> Iterator[Upstream]:
        """Yields what the proxy has clusters for: of each port the whole host, then its subsets.

        A cluster that resolves names has at least one.
        """
        for host in self.destinations.values():
            rule = self.rules.get(host.name)
            subsets = [subset.name for subset, _, _ in rule.subsets] if rule else []
            for port in host.cluster_ports if host.resolution != "ALIAS" else ():
                for subset in ("", *subsets):
                    found = self.upstream(host, port, subset)
                    if not host.resolution.startswith("DNS") or found.endpoints():
                        yield found

    def endpoints(self, host: Host, port: int) -> list[Endpoint]:
        """Returns the endpoints of a host's port, of all definitions of the host."""
        result: list[Endpoint] = []
        for part in host.parts or (host,):
            if (found := part.port(port)) is None:
                continue
            if part.service is not None:
                result += services.endpoints(part.service, found, self.snapshot.pods)
                result += workload_entry.of_service(self.snapshot, part.service, found)
            else:
                result += service_entry.endpoints(self.snapshot, part, found)
        return result

    def service_accounts(self, host: Host) -> set[str]:
        """Returns those of a host's endpoints, of all its ports."""
        ports = host.service.ports if host.service is not None else host.ports
        ends = (end for port in ports for end in self.endpoints(host, port.port))
        return {end.service_account for end in ends} - {""}

    def policy(self, host: str, port: int, subset: str | None = None) -> Policy:
        """Returns the effective traffic policy towards a destination.

        TLS with a Secret holds at sidecars that the rule selects; others speak plain text.
        """
        default = self.default_policy()
        rule = self.rules.get(host)
        found = destination_rule.effective(rule, port, subset, default)
        secret = secret_of(found.tls)
        selects = rule is not None and rule.resources[0].spec.workload_selector is not None
        if secret and self.pod.proxy == "sidecar" and not selects:
            found = replace(found, tls=ClientTLSSettings(mode="DISABLE"))
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
    mesh = mesh_config.defaults(proxy_config.merged(snapshot, pod))
    outbound_mode, outbound_origin = sidecar.outbound_mode(scope, mesh, snapshot)
    every = all_hosts(snapshot)
    exported = [
        host for host in every if services.exported(host.export_to, host.namespace, pod.namespace)
    ]
    egress = tuple(_egress(snapshot, pod, listener, exported) for listener in sidecar.egress(scope))
    hosts = _together(one.hosts for one in egress)
    # Its own namespace's hosts are known to a VirtualService even if they are exported elsewhere.
    known = _merged(exported) | _merged(one for one in every if one.namespace == pod.namespace)
    routed = (_destinations(snapshot, pod, one, known) for one in egress)
    destinations = _together((hosts, *routed))
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
        egress=egress,
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


def _together(found: Iterable[Mapping[str, Host]]) -> dict[str, Host]:
    """Returns the hosts of several listeners, each with the ports that it has in any of them."""
    result: dict[str, Host] = {}
    for hosts in found:
        for name, host in hosts.items():
            known = result.setdefault(name, host)
            more = tuple(port for port in host.ports if known.port(port.port) is None)
            if more:
                result[name] = replace(known, ports=(*known.ports, *more))
    return result


def _egress(
    snapshot: Snapshot, pod: Pod, listener: IstioEgressListener, exported: Sequence[Host]
) -> Egress:
    found = Egress(listener, {}, _virtual_services(snapshot, pod, listener))
    imported = _merged(
        host
        for host in exported
        if sidecar.imports(listener, pod.namespace, host.namespace, host.name)
    )
    listed = {
        name: replace(
            host,
            aliases=tuple(
                alias
                for alias in host.aliases
                if sidecar.imports(listener, pod.namespace, host.namespace, alias)
            ),
        )
        if host.aliases
        else host
        for name, host in imported.items()
    }
    return replace(found, hosts=_limited(listed, found.one_port))


def _limited(hosts: Mapping[str, Host], port: int | None) -> dict[str, Host]:
    """Returns the hosts with one of their ports alone, if it is given."""
    if port is None:
        return dict(hosts)
    return {
        name: replace(host, ports=(found,))
        for name, host in hosts.items()
        if (found := host.port(port)) is not None
    }


def _virtual_services(
    snapshot: Snapshot, pod: Pod, listener: IstioEgressListener
) -> tuple[Resource, ...]:
    visible = (
        found
        for found in snapshot.of("VirtualService")
        if (pod.proxy == "gateway" or names.MESH in (found.spec.gateways or (names.MESH,)))
        and services.exported(found.spec.export_to, found.namespace, pod.namespace)
        and any(
            sidecar.imports(
                listener,
                pod.namespace,
                found.namespace,
                names.expand(host, found.namespace),
                covers=True,
            )
            for host in found.spec.hosts
        )
    )
    return tuple(sorted(visible, key=_publicity))


def _destinations(
    snapshot: Snapshot, pod: Pod, egress: Egress, known: Mapping[str, Host]
) -> dict[str, Host]:
    """Returns the hosts that VirtualServices route to, with the ports that they route to."""
    wanted: dict[str, set[int]] = {}
    for found in egress.virtual_services:
        for name, port in _routed(snapshot, pod, found):
            wanted.setdefault(name, set()).add(egress.one_port or port)
    result = {}
    for name, ports in wanted.items():
        host = known.get(name)
        if host is None:
            continue
        own = tuple(port for port in host.ports if 0 in ports or port.port in ports)
        if own:
            result[name] = replace(host, ports=own)
    return result


def _routed(snapshot: Snapshot, pod: Pod, virtual_service: Resource) -> Iterator[tuple[str, int]]:
    """Yields the hosts and ports that a VirtualService, or a delegate of it, routes or mirrors to.

    A port is 0 where none is named.
    """
    found: list[Destination] = []
    for rule in delegate.rules(snapshot, virtual_service):
        http = rule.http
        sources = {match.source_namespace for match in http.match if match.source_namespace}
        if pod.proxy == "sidecar" and sources and pod.namespace not in sources:
            continue
        found += [entry.destination for entry in http.route]
        found += [http.mirror] if http.mirror else []
        found += [mirror.destination for mirror in http.mirrors]
    for forwarded in (*virtual_service.spec.tcp, *virtual_service.spec.tls):
        found += [entry.destination for entry in forwarded.route]
    for destination in found:
        host = names.expand(destination.host, virtual_service.namespace)
        yield host, destination.port.number if destination.port else 0


def _publicity(virtual_service: Resource) -> int:
    """Returns the place of a VirtualService by its exportTo, as istiod sorts them."""
    targets = virtual_service.spec.export_to or ("*",)
    return 2 if "*" in targets else 0 if "." in targets else 1


def all_hosts(snapshot: Snapshot) -> list[Host]:
    """Returns the hosts of all namespaces, whoever may see them."""
    hosts = [services.of_service(service) for service in snapshot.services]
    for entry in snapshot.of("ServiceEntry"):
        hosts.extend(service_entry.hosts(entry))
    aliases = services.aliases(snapshot)
    return [
        replace(host, aliases=aliases[host.name]) if host.name in aliases else host
        for host in hosts
    ]
