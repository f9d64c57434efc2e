"""Endpoints: the addresses behind each cluster."""

from __future__ import annotations

from lab import names
from lab.envoy import tls
from lab.kinds.services import Endpoint, Host
from lab.kinds.visible import View
from lab.model import Json, ServicePort
from lab.xds import socket_address


def assignments(view: View) -> list[Json]:
    """Returns the ClusterLoadAssignment of every cluster that discovers its endpoints."""
    sidecar = view.pod.proxy == "sidecar"
    return [
        assignment(view, host, port, subset)
        for host in view.destinations.values()
        if host.resolution in ("STATIC", "NONE") and not (sidecar and discovers_none(host))
        for port in host.cluster_ports
        for subset in view.subsets(host)
    ]


def discovers_none(host: Host) -> bool:
    """Returns whether sidecars connect to the original destination of a host's connections."""
    return host.headless or host.resolution == "NONE"


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
    locality = {
        "locality": {},
        "lb_endpoints": [_endpoint(view, host, port, subset, item) for item in found],
        "load_balancing_weight": sum(item.weight for item in found),
    }
    name = names.cluster(port.port, host.name, subset)
    return {"cluster_name": name, "endpoints": [locality] if found else []}


def members(view: View, host: Host, port: ServicePort, subset: str) -> list[Endpoint]:
    """Returns the endpoints of a subset; of the host when `subset` is empty."""
    found = view.endpoints(host, port.port)
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
    if endpoint.pod is not None:
        result["health_status"] = "HEALTHY" if endpoint.ready else "UNHEALTHY"
    if tls.speaks_mtls(view, host, port, subset, endpoint):
        match = {"envoy.transport_socket_match": {"tlsMode": "istio"}}
        result["metadata"] = {"filter_metadata": match}
    return result
