"""The kinds of networking.istio.io that route traffic (EnvoyFilter has its own module)."""

from __future__ import annotations

from lab.manifests import destination_rule, gateway, service_entry, sidecar, virtual_service
from lab.manifests.resource import Kind

KINDS: tuple[Kind, ...] = (
    *gateway.KINDS,
    *virtual_service.KINDS,
    *destination_rule.KINDS,
    *service_entry.KINDS,
    *sidecar.KINDS,
)
