"""Checks of a PeerAuthentication: istiod's validation beyond the schema."""

from __future__ import annotations

from collections.abc import Iterator

from lab.kinds.peer_authentication.types import PeerAuthentication, PeerAuthenticationSpec
from lab.kinds.selection import SELECTOR
from lab.resources.istio import kind
from lab.resources.resource import Check, Problem, Resource


def _selects(spec: PeerAuthenticationSpec) -> bool:
    return spec.selector is not None and bool(spec.selector.match_labels)


def _ports(spec: PeerAuthenticationSpec) -> Iterator[Problem]:
    if spec.port_level_mtls and not _selects(spec):
        yield Problem(
            ("portLevelMtls",),
            "mesh/namespace peer authentication cannot have port level mTLS; it needs a selector",
        )
    for port in spec.port_level_mtls or ():
        if not 1 <= port <= 65535:
            yield Problem(("portLevelMtls", port), "port must be in range 1..65535")


def _root_namespace(resource: Resource) -> Iterator[Problem]:
    if resource.namespace == "istio-system" and _selects(resource.spec):
        yield Problem(
            ("spec", "selector"),
            "the lab remarks: Istio ignores a policy with a selector in the root namespace; put it "
            "into the workload's",
            "warning",
        )


CHECKS = (*SELECTOR, Check("spec", _ports), Check("", _root_namespace))

KINDS = (kind("PeerAuthentication", PeerAuthentication, CHECKS),)
