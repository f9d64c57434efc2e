"""Remarks of istiod's webhook about resources, and deprecated fields."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lab.explain.analyze.finding import Finding, about
from lab.manifests import registry
from lab.model import Snapshot
from lab.resources.checks import problems


def warnings(snapshot: Snapshot) -> Iterator[Finding]:
    """Yields what istiod warns of when a resource is applied (IST0133)."""
    for kind in registry.KINDS:
        for resource in snapshot.of(kind.kind) if kind.group in _GROUPS else ():
            for found in problems(resource, kind.checks):
                if found.severity == "warning" and not _IS_OTHER.search(found.reason):
                    text = f"Schema validation warning: {found.reason}"
                    yield about("IST0133", resource, text, *found.path)


_GROUPS = ("networking.istio.io", "security.istio.io", "telemetry.istio.io")
_IS_OTHER = re.compile(r"\bthe lab\b|^virtualService rule ")
"""Remarks of the lab's own, and those that have another code."""


def deprecated(snapshot: Snapshot) -> Iterator[Finding]:
    """Yields fields that Istio replaced or ignores (IST0002)."""
    for resource in snapshot.of("VirtualService"):
        for index, http in enumerate(resource.spec.http):
            if http.fault and http.fault.delay and (http.fault.delay.percent or 0) > 0:
                text = (
                    "Deprecated: HTTPRoute.fault.delay.percent is deprecated; use "
                    "HTTPRoute.fault.delay.percentage"
                )
                path = ("spec", "http", index, "fault", "delay", "percent")
                yield about("IST0002", resource, text, *path)
    for resource in snapshot.of("Sidecar"):
        policy = resource.spec.outbound_traffic_policy
        if policy is not None and policy.egress_proxy is not None:
            text = "Deprecated: OutboundTrafficPolicy.EgressProxy ignored"
            yield about("IST0002", resource, text, "spec", "outboundTrafficPolicy", "egressProxy")
