"""Endpoints: the addresses behind each cluster, and whether each speaks mutual TLS."""

from __future__ import annotations

from lab import names
from lab.kinds.peer_authentication import becomes as peer_authentication
from lab.kinds.services import Endpoint, Host
from lab.kinds.visible import View
from lab.model import Json, ServicePort
from lab.xds import socket_address


def assignments(view: View) -> list[Json]:
    """The ClusterLoadAssignment of every cluster that discovers its endpoints."""
    result: list[Json] = []
    for host in view.hosts.values():
        if host.resolution != "STATIC":
            continue
        rule = view.rules.get(host.name)
        for port in host.ports:
            result.append(assignment(view, host, port, ""))
            result.extend(
                assignment(view, host, port, subset.name)
                for subset, _, _ in (rule.subsets if rule else ())
            )
    return result


def assignment(view: View, host: Host, port: ServicePort, subset: str) -> Json:
    """One cluster's endpoints: those whose labels include the subset's."""
    found = members(view, host, port, subset)
    if not found and host.resolution in ("DNS", "DNS_ROUND_ROBIN"):
        found = [Endpoint(address=host.name, port=int(port.target_port), labels={})]
    result: Json = {"cluster_name": names.cluster(port.port, host.name, subset), "endpoints": []}
    if found:
        result["endpoints"] = [
            {
                "lb_endpoints": [_endpoint(view, host, port, subset, item) for item in found],
                "load_balancing_weight": sum(item.weight for item in found),
            }
        ]
    return result


def members(view: View, host: Host, port: ServicePort, subset: str) -> list[Endpoint]:
    """The ready endpoints of a subset; of the host when `subset` is empty."""
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
    if speaks_mtls(view, host, port, subset, endpoint):
        result["metadata"] = {
            "filter_metadata": {"envoy.transport_socket_match": {"tlsMode": "istio"}}
        }
    return result


def speaks_mtls(view: View, host: Host, port: ServicePort, subset: str, endpoint: Endpoint) -> bool:
    """Whether an endpoint of a cluster is spoken to in mutual TLS."""
    policy = view.policy(host.name, port.port, subset)
    if policy.tls is not None:
        return policy.tls.mode == "ISTIO_MUTUAL"
    if not view.snapshot.certificates:
        return False
    if endpoint.pod is None:
        return endpoint.labels.get("security.istio.io/tlsMode") == "istio"
    if endpoint.pod.proxy == "none":
        return False
    mode, _ = peer_authentication.mode(view.snapshot, endpoint.pod, endpoint.port)
    return mode != "DISABLE"


def auto_mtls(view: View, host: Host) -> bool:
    """Whether a cluster offers mutual TLS to endpoints that speak it."""
    if not view.snapshot.certificates or host.external:
        return False
    if peer_authentication.namespace_mode(view.snapshot, host.namespace)[0] == "DISABLE":
        return False
    return view.snapshot.mesh.get("enableAutoMtls") is not False
