"""Providers of the mesh configuration that Telemetries and policies name."""

from __future__ import annotations

from collections.abc import Iterator

from lab.explain.analyze.finding import Finding, about
from lab.model import Snapshot


def missing(snapshot: Snapshot) -> Iterator[Finding]:
    """Yields access logs without a provider where the mesh has none by default (IST0157)."""
    if (snapshot.mesh.get("defaultProviders") or {}).get("accessLogging"):
        return
    for resource in snapshot.of("Telemetry"):
        for index, logging in enumerate(resource.spec.access_logging):
            if not logging.disabled and not logging.providers:
                text = (
                    f'The Telemetry {resource.name} in namespace "{resource.namespace}" with '
                    "empty providers will be ignored."
                )
                yield about("IST0157", resource, text, "spec", "accessLogging", index)
