"""What istiod does: from the resources of a mesh to the configuration of one proxy."""

from __future__ import annotations

from lab.envoy import clusters, endpoints, gateway, listeners, routes
from lab.kinds.envoy_filter import becomes as envoy_filter
from lab.kinds.visible import View, view
from lab.model import Pod, ProxyConfig, Snapshot


def proxy_config(snapshot: Snapshot, pod: Pod) -> ProxyConfig:
    """The complete configuration of a pod's proxy (a sidecar's or a gateway's)."""
    return envoy_filter.apply(snapshot, pod, generated(view(snapshot, pod)))


def generated(seen: View) -> ProxyConfig:
    """The configuration before EnvoyFilters."""
    if seen.pod.proxy == "gateway":
        return ProxyConfig(
            listeners=gateway.listener_configs(seen),
            clusters=clusters.outbound(seen),
            routes=gateway.route_configurations(seen),
            endpoints=endpoints.assignments(seen),
        )
    return ProxyConfig(
        listeners=listeners.sidecar(seen),
        clusters=[*clusters.outbound(seen), *clusters.inbound(seen)],
        routes=[routes.sidecar_configuration(seen)],
        endpoints=endpoints.assignments(seen),
    )
