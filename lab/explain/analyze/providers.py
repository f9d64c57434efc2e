"""Providers of the mesh configuration that Telemetries and policies name."""

from __future__ import annotations

from collections.abc import Iterator

from lab.explain.analyze.finding import LAB, Finding, about
from lab.kinds.authorization_policy import custom
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


_OF_ISTIO = ("envoy", "prometheus", "stackdriver")
"""Providers that the mesh has without its configuration."""


def unknown(snapshot: Snapshot) -> Iterator[Finding]:
    """Yields Telemetries and CUSTOM policies with a provider that is not there.

    istioctl finds no fault in them: nothing is reported, and requests are denied.
    """
    known = {one["name"] for one in snapshot.mesh.get("extensionProviders") or ()}
    for resource in snapshot.of("Telemetry"):
        for field, blocks in (
            ("accessLogging", resource.spec.access_logging),
            ("tracing", resource.spec.tracing),
        ):
            for index, block in enumerate(blocks):
                for position, provider in enumerate(block.providers):
                    if provider.name not in (*known, *_OF_ISTIO):
                        text = (
                            f"extensionProviders of the mesh configuration has no {provider.name}: "
                            "nothing is sent to it."
                        )
                        path = ("spec", field, index, "providers", position, "name")
                        yield about(LAB, resource, text, *path)
    for policy in snapshot.of("AuthorizationPolicy"):
        if policy.spec.action != "CUSTOM" or policy.spec.provider is None:
            continue
        if reason := custom.fault(snapshot, policy.spec.provider.name):
            text = f"{reason}: the requests that the rules match are denied."
            yield about(LAB, policy, text, "spec", "provider", "name")
