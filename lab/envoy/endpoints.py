"""Endpoints: the addresses behind each cluster."""

from __future__ import annotations

from lab import names
from lab.envoy import tls
from lab.kinds.destination_rule import becomes as destination_rule
from lab.kinds.destination_rule import locality
from lab.kinds.services import Endpoint, Host
from lab.kinds.visible import View
from lab.model import Json, ServicePort
from lab.xds import given, socket_address


def assignments(view: View) -> list[Json]:
    """Returns the ClusterLoadAssignment of every cluster that discovers its endpoints."""
    return [
        assignment(view, host, port, subset)
        for host in view.destinations.values()
        if host.resolution in ("STATIC", "NONE")
        for port in host.cluster_ports
        for subset in view.subsets(host)
        if not discovers_none(view, host, port, subset)
    ]


def discovers_none(view: View, host: Host, port: ServicePort, subset: str) -> bool:
    """Returns whether the proxy connects to the original destination of connections to a host."""
    if view.pod.proxy == "sidecar" and (host.headless or host.resolution == "NONE"):
        return True
    passes = destination_rule.passes(view.policy(host.name, port.port, subset).load_balancer)
    return passes and host.resolution != "DYNAMIC_DNS"


def addresses(view: View) -> dict[str, tuple[str, ...]]:
    """Returns the addresses of each host: its own, of a headless Service those of its pods."""
    found: dict[str, tuple[str, ...]] = {}
    for host in view.destinations.values():
        own = host.addresses
        if host.headless:
            pods = (end.address for port in host.ports for end in view.endpoints(host, port.port))
            own = tuple(dict.fromkeys(pods))
        if own:
            found[host.name] = own
    return found


def assignment(view: View, host: Host, port: ServicePort, subset: str) -> Json:
    """Returns one cluster's endpoints: those whose labels include the subset's."""
    found = members(view, host, port, subset)
    outlier = view.policy(host.name, port.port, subset).outlier_detection
    if outlier is not None and (outlier.min_health_percent or 0) > 0:
        found = [item for item in found if item.ready]  # Envoy may use others in a panic.
    if not found and host.resolution in ("DNS", "DNS_ROUND_ROBIN"):
        found = [Endpoint(address=host.name, port=int(port.target_port), labels={})]
    if host.resolution == "DNS_ROUND_ROBIN":
        found = found[:1]  # Envoy takes no more for LOGICAL_DNS.
    grouped = _grouped(view, host, port, subset, found)
    share = locality.weight(view.policy(host.name, port.port, subset).load_balancer)
    localities = [
        given(
            locality={},
            priority=priority or None,
            lb_endpoints=[
                _endpoint(view, host, port, subset, item) for item in (group if share != 0 else ())
            ],
            load_balancing_weight=share or sum(item.weight for item in group),
        )
        for priority, group in enumerate(grouped)
    ]
    return {"cluster_name": names.cluster(port.port, host.name, subset), "endpoints": localities}


def groups(view: View, host: Host, port: ServicePort, subset: str) -> list[list[Endpoint]]:
    """Returns the endpoints of a subset in groups, of which the first is preferred.

    There are none where `distribute` names other places alone.
    """
    if locality.weight(view.policy(host.name, port.port, subset).load_balancer) == 0:
        return []
    return _grouped(view, host, port, subset, members(view, host, port, subset))


def _grouped(
    view: View, host: Host, port: ServicePort, subset: str, found: list[Endpoint]
) -> list[list[Endpoint]]:
    policy = view.policy(host.name, port.port, subset)
    outlier = policy.outlier_detection
    if host.resolution in ("STATIC", "NONE"):  # istiod looks at the rule's own detection alone.
        rule = view.rules.get(host.name)
        outlier = destination_rule.effective(rule, port.port, subset).outlier_detection
    ejects = outlier is not None
    return locality.by_priority(policy.load_balancer, view.pod.labels, found, ejects=ejects)


def members(view: View, host: Host, port: ServicePort, subset: str) -> list[Endpoint]:
    """Returns the endpoints of a subset; of the host when `subset` is empty."""
    found = [item for item in view.endpoints(host, port.port) if not item.ending]
    if not subset:
        return found
    rule = view.rules.get(host.name)
    chosen = rule.subset(subset) if rule else None
    labels = chosen.labels if chosen else {}
    return [item for item in found if names.selects(labels, item.labels)]


def _endpoint(view: View, host: Host, port: ServicePort, subset: str, endpoint: Endpoint) -> Json:
    result: Json = {
        "endpoint": {"address": socket_address(endpoint.address, endpoint.port)},
        "load_balancing_weight": endpoint.weight,
    }
    if endpoint.checked:
        result["health_status"] = "HEALTHY" if endpoint.ready else "UNHEALTHY"
    if tls.speaks_mtls(view, host, port, subset, endpoint):
        match = {"envoy.transport_socket_match": {"tlsMode": "istio"}}
        result["metadata"] = {"filter_metadata": match}
    return result
