"""Translation, istiod's work: from the resources of a mesh to the configuration of one proxy."""

from __future__ import annotations

from lab.envoy import (
    clusters,
    endpoints,
    gateway,
    inbound_listener,
    outbound_listeners,
    routes,
)
from lab.kinds import visible
from lab.kinds.destination_rule.checks import secret_of
from lab.kinds.envoy_filter import becomes as envoy_filter
from lab.kinds.gateway import becomes as gateway_kind
from lab.kinds.visible import View
from lab.model import Pod, ProxyConfig, Snapshot


def proxy_config(snapshot: Snapshot, pod: Pod) -> ProxyConfig:
    """Returns the complete configuration of a pod's proxy (a sidecar's or a gateway's)."""
    return envoy_filter.apply(snapshot, pod, generated(visible.view(snapshot, pod)))


def generated(view: View) -> ProxyConfig:
    """Returns the configuration before EnvoyFilters."""
    upstreams = tuple(view.upstreams())
    credentials = {name for one in upstreams if (name := secret_of(one.policy.tls))}
    if view.pod.proxy == "gateway":
        return ProxyConfig(
            listeners=gateway.listeners(view),
            clusters=clusters.outbound(view, upstreams),
            routes=gateway.route_configurations(view),
            endpoints=endpoints.assignments(upstreams),
            addresses=endpoints.addresses(view),
            secrets=gateway_kind.secrets(
                view.snapshot,
                view.pod.namespace,
                (*gateway_kind.credentials(view.snapshot, view.pod), *sorted(credentials)),
            ),
        )
    outbound = outbound_listeners.listeners(view)
    return ProxyConfig(
        listeners=[*outbound, *inbound_listener.listeners(view)],
        clusters=[*clusters.outbound(view, upstreams), *clusters.inbound(view)],
        routes=routes.sidecar_configurations(view, outbound),
        endpoints=endpoints.assignments(upstreams),
        addresses=endpoints.addresses(view),
        secrets=gateway_kind.secrets(view.snapshot, view.pod.namespace, sorted(credentials)),
    )
