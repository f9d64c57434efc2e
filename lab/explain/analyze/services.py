"""Services: ports whose name says no protocol."""

from __future__ import annotations

from collections.abc import Iterator

from lab.explain.analyze.finding import Finding
from lab.model import Snapshot


def port_names(snapshot: Snapshot) -> Iterator[Finding]:
    """Yields ports whose name says no protocol (IST0118, of an ExternalName IST0150)."""
    for service in snapshot.services:
        for index, port in enumerate(service.ports):
            if service.namespace == snapshot.root_namespace:
                continue
            place = service.source.at("spec", "ports", index)
            at = "Service", service.namespace, service.name
            if service.external_name and (port.protocol == "AUTO" or port.name == "tcp"):
                text = (
                    "Port name for ExternalName service is invalid. Proxy may prevent tcp named "
                    "ports and unmatched traffic for ports serving TCP protocol from being "
                    "forwarded correctly"
                )
                yield Finding("IST0150", *at, text, place)
            elif port.protocol == "AUTO":
                text = (
                    f"Port name {port.name} (port: {port.port}, targetPort: {port.target_port}) "
                    "doesn't follow the naming convention of Istio port."
                )
                yield Finding("IST0118", *at, text, place)
