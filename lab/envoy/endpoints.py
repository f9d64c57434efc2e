"""Endpoints: the addresses behind each cluster."""

from __future__ import annotations

from collections.abc import Iterable

from lab.envoy import tls
from lab.kinds.destination_rule import becomes as destination_rule
from lab.kinds.destination_rule import locality
from lab.kinds.services import Endpoint
from lab.kinds.visible import Upstream, View
from lab.model import Json
from lab.xds import given, socket_address


def assignments(upstreams: Iterable[Upstream]) -> list[Json]:
    """Returns the ClusterLoadAssignment of every cluster that discovers its endpoints."""
    return [
        assignment(upstream)
        for upstream in upstreams
        if upstream.host.resolution in ("STATIC", "NONE") and not upstream.direct
    ]


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


def assignment(upstream: Upstream) -> Json:
    """Returns one cluster's endpoints."""
    host, port, policy = upstream.host, upstream.port, upstream.policy
    found = upstream.endpoints()
    outlier = policy.outlier_detection
    if outlier is not None and (outlier.min_health_percent or 0) > 0:
        found = [item for item in found if item.ready]  # Envoy may use others in a panic.
    if not found and host.resolution in ("DNS", "DNS_ROUND_ROBIN"):
        own = Endpoint(address=host.name, port=int(port.target_port), labels={})
        found = [own] * max(1, len(host.addresses))
    if host.resolution == "DNS_ROUND_ROBIN":
        found = found[:1]  # Envoy takes no more for LOGICAL_DNS.
    share = locality.weight(policy.load_balancer)
    localities = [
        given(
            locality={},
            priority=priority or None,
            lb_endpoints=[_endpoint(upstream, item) for item in (group if share != 0 else ())],
            load_balancing_weight=share or sum(item.weight for item in group),
        )
        for priority, group in enumerate(_grouped(upstream, found))
    ]
    return {"cluster_name": upstream.name, "endpoints": localities}


def groups(upstream: Upstream) -> list[list[Endpoint]]:
    """Returns the endpoints of a cluster in groups, of which the first is preferred.

    There are none where `distribute` names other places alone.
    """
    if locality.weight(upstream.policy.load_balancer) == 0:
        return []
    return _grouped(upstream, upstream.endpoints())


def _grouped(upstream: Upstream, found: list[Endpoint]) -> list[list[Endpoint]]:
    view, policy = upstream.view, upstream.policy
    outlier = policy.outlier_detection
    if upstream.host.resolution in ("STATIC", "NONE"):  # istiod looks at the rule's own alone.
        rule = view.rules.get(upstream.host.name)
        own = destination_rule.effective(rule, upstream.port.port, upstream.subset)
        outlier = own.outlier_detection
    ejects = outlier is not None
    return locality.by_priority(policy.load_balancer, view.pod.labels, found, ejects=ejects)


def _endpoint(upstream: Upstream, endpoint: Endpoint) -> Json:
    result: Json = {
        "endpoint": {"address": socket_address(endpoint.address, endpoint.port)},
        "load_balancing_weight": endpoint.weight,
    }
    if endpoint.checked:
        result["health_status"] = "HEALTHY" if endpoint.ready else "UNHEALTHY"
    if tls.offers_mtls(endpoint) and tls.speaks_mtls(upstream, endpoint):
        match = {"envoy.transport_socket_match": {"tlsMode": "istio"}}
        result["metadata"] = {"filter_metadata": match}
    return result
