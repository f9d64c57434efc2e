"""Kinds the lab keeps and prints, and that change nothing on one machine; apply says so."""

from __future__ import annotations

from typing import Any

from lab.resources.checks import never
from lab.resources.resource import Check, Kind, Model


class Declared(Model):
    spec: dict[str, Any]


def _kind(group: str, kind: str, plural: str, version: str, short: str, reason: str) -> Kind:
    warning = Check("", never, f"no effect in the lab: {reason}", "warning")
    return Kind(group, kind, plural, (version,), Declared, (short,), checks=(warning,))


KINDS: tuple[Kind, ...] = (
    _kind(
        "policy",
        "PodDisruptionBudget",
        "poddisruptionbudgets",
        "v1",
        "pdb",
        "it has one node, which is never drained",
    ),
    _kind(
        "autoscaling",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
        "v2",
        "hpa",
        "use `guestbook scale`",
    ),
    _kind(
        "networking.k8s.io",
        "NetworkPolicy",
        "networkpolicies",
        "v1",
        "netpol",
        "local processes can't be kept apart by it; use an AuthorizationPolicy",
    ),
)
