"""Kinds the lab keeps and prints, and that change nothing on one machine; apply says so."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from lab.resources.kubernetes import KubernetesModel
from lab.resources.resource import Kind, Problem, Resource


class Declared(KubernetesModel):
    spec: dict[str, Any]


def _warning(reason: str) -> Callable[[Resource], Iterable[Problem]]:
    return lambda _resource: (Problem((), f"no effect in the lab: {reason}", "warning"),)


KINDS: tuple[Kind, ...] = (
    Kind(
        "policy",
        "PodDisruptionBudget",
        "poddisruptionbudgets",
        ("v1",),
        Declared,
        ("pdb",),
        validate=_warning("it has one node, which is never drained"),
    ),
    Kind(
        "autoscaling",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
        ("v2",),
        Declared,
        ("hpa",),
        validate=_warning("use `guestbook scale`"),
    ),
    Kind(
        "networking.k8s.io",
        "NetworkPolicy",
        "networkpolicies",
        ("v1",),
        Declared,
        ("netpol",),
        validate=_warning("local processes can't be kept apart by it; use an AuthorizationPolicy"),
    ),
)
