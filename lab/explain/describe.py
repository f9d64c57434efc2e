"""A pod or a Service in the mesh: what applies to it, as `istioctl x describe` says it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from pydantic.alias_generators import to_camel

from lab import names
from lab.envoy import tls
from lab.explain import mutual_tls
from lab.kinds import selection, services
from lab.kinds.destination_rule.types import PortTrafficPolicy, TrafficPolicy
from lab.kinds.gateway import becomes as gateway
from lab.kinds.services import Host
from lab.kinds.virtual_service import becomes as virtual_service
from lab.kinds.virtual_service import delegate
from lab.kinds.virtual_service.types import HTTPMatchRequest, HTTPRoute, StringMatch
from lab.kinds.visible import view
from lab.model import Pod, Service, Snapshot
from lab.resources.resource import Resource, dotted
from lab.xds import duration

RULER = "--------------------"


def pod(snapshot: Snapshot, chosen: Pod) -> Iterator[str]:
    """Yields the Services, rules and policies that apply to a pod."""
    yield f"Pod: {_name(chosen)}"
    if chosen.proxy == "none":
        yield f"   WARNING: {_name(chosen)} is not part of mesh; no Istio sidecar"
    yield f"   Pod Ports: {', '.join(str(number) for number in chosen.ports.values()) or 'none'}"
    if not chosen.ready:
        yield f"WARNING: Pod {_name(chosen)} NOT READY"
    found = services.services_of(snapshot, chosen)
    if not found:
        yield f"Warning: No Kubernetes Services select pod {_name(chosen)}"
    for service in found:
        yield RULER
        yield from _service(snapshot, service, [chosen])
    if chosen.proxy != "none":
        yield RULER
        yield from _policies(snapshot, chosen)
    yield from _exposed(snapshot, found)


def service(snapshot: Snapshot, chosen: Service) -> Iterator[str]:
    """Yields the rules that apply to a Service, and the policies of its first pod."""
    pods = [item for item in snapshot.pods if services.selected(chosen, item)]
    yield from _service(snapshot, chosen, pods)
    meshed = [item for item in pods if item.proxy != "none"]
    if not meshed:
        word = "Istio pods" if pods else "pods"
        yield f'Service "{_name(chosen)}" has no {word}.'
    else:
        yield RULER
        yield from _policies(snapshot, meshed[0])
    yield from _exposed(snapshot, [chosen])


def _name(item: Pod | Service | Resource) -> str:
    return item.name if item.namespace == "default" else f"{item.name}.{item.namespace}"


def _service(snapshot: Snapshot, chosen: Service, pods: Sequence[Pod]) -> Iterator[str]:
    yield f"Service: {_name(chosen)}"
    for port in chosen.ports:
        target = services.resolve_port(pods[0], port.target_port) if pods else port.target_port
        protocol = "auto-detect" if port.protocol == "AUTO" else port.protocol
        name = port.name or "<unnamed>"
        yield f"   Port: {name} {port.port}/{protocol} targets pod port {target}"
    if not pods:
        return
    host = services.of_service(chosen)
    rule = view(snapshot, pods[0]).rules.get(host.name)
    for resource in rule.resources if rule is not None else ():
        yield from _destination_rule(resource, pods)
    told: dict[str, mutual_tls.Conflict] = {}
    for one in mutual_tls.conflicts(snapshot):
        if one.host == host.name and one.pod in pods:
            told.setdefault(one.text, one)
    for conflict in told.values():
        yield f"WARNING: {conflict.failure}.  {conflict.origin}"
    for resource in snapshot.of("VirtualService"):
        if virtual_service.applies(resource, names.MESH) and _is_for(resource, host):
            yield from _virtual_service(snapshot, resource)


def _is_for(resource: Resource, host: Host) -> bool:
    return any(names.matches(one, host.name) for one in virtual_service.hosts(resource))


def _routes_to(snapshot: Snapshot, resource: Resource, host: Host) -> bool:
    return any(
        names.expand(entry.destination.host, resource.namespace) == host.name
        for rule in delegate.rules(snapshot, resource)
        for entry in rule.http.route
    )


def _destination_rule(resource: Resource, pods: Sequence[Pod]) -> Iterator[str]:
    spec = resource.spec
    yield f'DestinationRule: {_name(resource)} for "{spec.host}"  {resource.source.at("spec")}'
    fits: dict[bool, list[str]] = {True: [], False: []}
    for subset in spec.subsets:
        fits[any(names.selects(subset.labels, item.labels) for item in pods)].append(subset.name)
    if spec.subsets:
        if not fits[True]:
            others = ",".join(fits[False])
            yield f"   WARNING POD DOES NOT MATCH ANY SUBSETS.  (Non matching subsets {others})"
        yield f"   Matching subsets: {','.join(fits[True])}"
        if fits[False]:
            yield f"      (Non-matching subsets {','.join(fits[False])})"
    policy = spec.traffic_policy
    if policy is None:
        yield "   No Traffic Policy"
        return
    yield from _traffic_policy(policy, "   ", "Traffic Policy TLS Mode")
    if policy.port_level_settings:
        yield "   Port Level Settings:"
    for settings in policy.port_level_settings:
        yield f"    {settings.port.number if settings.port else ''}:"
        yield from _traffic_policy(settings, "      ", "TLS Mode")


def _traffic_policy(
    policy: TrafficPolicy | PortTrafficPolicy, indent: str, title: str
) -> Iterator[str]:
    if policy.tls is not None:
        yield f"{indent}{title}: {policy.tls.mode}"
    parts = ("load_balancer", "connection_pool", "outlier_detection")
    if given := [name.replace("_", " ") for name in parts if getattr(policy, name) is not None]:
        yield f"{indent}Policies: {'/'.join(given)}"


def _virtual_service(snapshot: Snapshot, resource: Resource) -> Iterator[str]:
    yield f"VirtualService: {_name(resource)}"
    for rule in delegate.rules(snapshot, resource):
        name = f" “{rule.http.name}”" if rule.http.name else ""
        yield f"   {dotted(rule.origin.path[1:])}{name}  {rule.origin}"
        for match, _ in rule.matches:
            yield f"      Match: {_match(match)}"
        yield from (f"      {fact}" for fact in _facts(rule.http))


def _facts(http: HTTPRoute) -> Iterator[str]:
    total = sum(entry.weight for entry in http.route)
    for entry in http.route:
        subset = f" subset {entry.destination.subset}" if entry.destination.subset else ""
        weight = f" with weight {entry.weight}%" if len(http.route) > 1 and total else ""
        yield f'Route to host "{entry.destination.host}"{subset}{weight}'
    for field in ("redirect", "direct_response", "fault", "rewrite", "mirror", "retries"):
        if (value := getattr(http, field)) is not None:
            given = value.model_dump(mode="json", by_alias=True, exclude_unset=True)
            yield f"{to_camel(field)}: {json.dumps(given)}"
    if http.timeout is not None:
        yield f"timeout: {duration(http.timeout)}"


def _match(match: HTTPMatchRequest | None) -> str:
    """The conditions of a match; a path as istioctl writes it, `/hello*`."""
    if match is None:
        return "/*"
    parts = [_text(match.uri) if match.uri is not None else "/*"]
    parts += [
        f"{name} {_text(found)}"
        for name in ("method", "authority", "scheme")
        if (found := getattr(match, name)) is not None
    ]
    parts += [f"when headers have {name}={_text(one)}" for name, one in match.headers.items()]
    parts += [f"without {name}={_text(one)}" for name, one in match.without_headers.items()]
    parts += [f"?{name}={_text(one)}" for name, one in match.query_params.items()]
    parts += [f"from {key}={value}" for key, value in match.source_labels.items()]
    parts += [f"port {match.port}"] if match.port else []
    return ", ".join(parts)


def _text(match: StringMatch | None) -> str:
    if match is None:
        return "*"
    return match.exact or (f"{match.prefix}*" if match.prefix else f"~{match.regex}")


def _policies(snapshot: Snapshot, chosen: Pod) -> Iterator[str]:
    """Yields the mode of mutual TLS, and the policies that a proxy follows."""
    server = view(snapshot, chosen)
    if chosen.proxy == "sidecar":
        yield "Effective PeerAuthentication:"
        mode, origin = tls.inbound_mode(server, 0)
        yield f"   Workload mTLS mode: {mode}{f'  {origin}' if origin.source else ''}"
        ports = {number: tls.inbound_mode(server, number)[0] for number in chosen.ports.values()}
        if others := {number: one for number, one in ports.items() if one != mode}:
            yield "   Port Level mTLS mode:"
            yield from (f"      {number}: {one}" for number, one in others.items())
    for kind in ("RequestAuthentication", "AuthorizationPolicy"):
        if found := selection.for_pod(snapshot, kind, chosen):
            yield f"Applied {kind}:"
            for policy in found:
                action = f" ({policy.spec.action or 'ALLOW'})" if kind[0] == "A" else ""
                yield f"   {policy.namespace}/{policy.name}{action}  {policy.source.at('spec')}"


def _exposed(snapshot: Snapshot, found: Sequence[Service]) -> Iterator[str]:
    """Yields the VirtualServices by which gateways lead, or would lead, to Services."""
    known = {f"{item.namespace}/{item.name}" for item in snapshot.of("Gateway")}
    for chosen in found:
        host = services.of_service(chosen)
        for resource in snapshot.of("VirtualService"):
            bound = {names.gateway(name, resource.namespace) for name in resource.spec.gateways}
            if not bound - {names.MESH} or not _routes_to(snapshot, resource, host):
                continue
            yield RULER
            for item in snapshot.pods:
                for server in gateway.servers(snapshot, item) if item.proxy == "gateway" else ():
                    if server.gateway in bound:
                        port = server.server.port
                        shown = f"{server.gateway}, port {port.number}/{port.protocol}"
                        yield f"Exposed on Ingress Gateway {shown}"
            for index, given in enumerate(resource.spec.gateways):
                name = names.gateway(given, resource.namespace)
                if name not in {names.MESH, *known}:
                    place = resource.source.at("spec", "gateways", index)
                    told = (
                        f"VirtualService {_name(resource)} references non-existent gateway {name}"
                    )
                    yield f"WARNING: {told}  {place}"
            yield from _virtual_service(snapshot, resource)
