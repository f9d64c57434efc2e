"""Endpoints: the addresses behind each cluster."""

from __future__ import annotations

from collections.abc import Iterable

from lab.envoy import tls
from lab.kinds.destination_rule import becomes as destination_rule
from lab.kinds.destination_rule import locality
from lab.kinds.destination_rule.locality import Group
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
    found = upstream.endpoints()
    outlier = upstream.policy.outlier_detection
    if outlier is not None and (outlier.min_health_percent or 0) > 0:
        found = [item for item in found if item.ready]  # Envoy may use others in a panic.
    if upstream.host.resolution == "DNS_ROUND_ROBIN":
        found = found[:1]  # Envoy takes no more for LOGICAL_DNS.
    localities = [
        given(
            locality=_locality(group.locality),
            priority=group.priority or None,
            lb_endpoints=[_endpoint(upstream, item) for item in group.endpoints],
            load_balancing_weight=group.weight,
        )
        for group in _grouped(upstream, found)
    ]
    return {"cluster_name": upstream.name, "endpoints": localities}


def _locality(text: str) -> Json:
    parts = zip(("region", "zone", "sub_zone"), text.split("/"), strict=False)
    return {name: part for name, part in parts if part}


def groups(upstream: Upstream) -> list[list[Endpoint]]:
    """Returns the endpoints of a cluster by their priority, the preferred ones first."""
    found: dict[int, list[Endpoint]] = {}
    for group in _grouped(upstream, upstream.endpoints()):
        found.setdefault(group.priority, []).extend(group.endpoints)
    return list(found.values())


def _grouped(upstream: Upstream, found: list[Endpoint]) -> list[Group]:
    view, policy = upstream.view, upstream.policy
    outlier = policy.outlier_detection
    if upstream.host.resolution in ("STATIC", "NONE"):  # istiod looks at the rule's own alone.
        rule = view.rules.get(upstream.host.name)
        own = destination_rule.effective(rule, upstream.port.port, upstream.subset)
        outlier = own.outlier_detection
    ejects = outlier is not None
    return locality.groups(policy.load_balancer, view.pod.labels, found, ejects=ejects)


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
