"""Rollouts: the next step of a Deployment or a StatefulSet, as pure functions."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass

from lab.kinds.kubernetes.apps import DeploymentSpec, RollingUpdate, StatefulSetSpec, of_replicas
from lab.resources.resource import Resource

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""Kubernetes' letters for generated names: no vowels, so that no words come out."""

CAUSE = "kubernetes.io/change-cause"
"""The annotation of a workload that says why its template is as it is."""


@dataclass(frozen=True, slots=True)
class Replica:
    """A pod as its controller sees it."""

    name: str
    template: str
    ready: bool
    terminating: bool
    created: float


@dataclass(frozen=True, slots=True)
class Step:
    """The number of pods to create, and the names of those to delete."""

    create: int = 0
    delete: tuple[str, ...] = ()


def template_hash(workload: Resource) -> str:
    """Returns the `pod-template-hash` of a workload: the same for the same template."""
    template = json.dumps(workload.raw["spec"]["template"], sort_keys=True)
    digest = hashlib.sha256(template.encode()).digest()
    return "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in digest[:10])


def suffix() -> str:
    """Returns the five random characters that end a pod's name."""
    return "".join(random.choice(_ALPHABET) for _ in range(5))  # noqa: S311 - a name, no secret


def deployment_step(spec: DeploymentSpec, current: str, pods: Sequence[Replica]) -> Step:
    """Returns one step towards `replicas` pods of the template `current`."""
    alive = [pod for pod in pods if not pod.terminating]
    new = [pod for pod in alive if pod.template == current]
    old = [pod for pod in alive if pod.template != current]
    # Not ready first, then the youngest: those serve least.
    surplus = sorted(new, key=lambda pod: (pod.ready, -pod.created))[
        : max(0, len(new) - spec.replicas)
    ]
    if spec.strategy.type == "Recreate":
        if any(pod.template != current for pod in pods):
            return Step(delete=tuple(pod.name for pod in old))
        return Step(max(0, spec.replicas - len(new)), tuple(pod.name for pod in surplus))
    rolling = spec.strategy.rolling_update or RollingUpdate()
    surge = of_replicas(rolling.max_surge, spec.replicas, up=True)
    unavailable = of_replicas(rolling.max_unavailable, spec.replicas, up=False)
    if surge == 0 and unavailable == 0:
        unavailable = 1
    room = spec.replicas + surge - len(alive)
    create = max(0, min(spec.replicas - len(new), room))
    ready = sum(pod.ready for pod in alive)
    spare = max(0, ready - (spec.replicas - unavailable))
    broken = [pod for pod in old if not pod.ready]
    serving = sorted((pod for pod in old if pod.ready), key=lambda pod: pod.created)
    delete = [pod.name for pod in (*surplus, *broken, *serving[:spare])]
    return Step(create, tuple(delete))


def stateful_set_step(
    spec: StatefulSetSpec, current: str, pods: Sequence[Replica]
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Returns the ordinals to create and the pods to delete, one at a time unless Parallel."""
    by_ordinal = {int(pod.name.rpartition("-")[2]): pod for pod in pods}
    parallel = spec.pod_management_policy == "Parallel"
    missing = [ordinal for ordinal in range(spec.replicas) if ordinal not in by_ordinal]
    excess = sorted((n for n in by_ordinal if n >= spec.replicas), reverse=True)
    leaving = [by_ordinal[n].name for n in excess if not by_ordinal[n].terminating]
    if parallel:
        create: tuple[int, ...] = tuple(missing)
    else:
        first = missing[:1]
        blocked = first and any(not by_ordinal[n].ready for n in range(first[0]) if n in by_ordinal)
        create = () if blocked else tuple(first)
        leaving = leaving[:1]
    if create or leaving:
        return create, tuple(leaving)
    settled = all(pod.ready and not pod.terminating for pod in pods if pod.template == current)
    outdated = [
        pod
        for _, pod in sorted(by_ordinal.items(), reverse=True)
        if pod.template != current and not pod.terminating
    ]
    if outdated and settled and not missing:
        return (), (outdated[0].name,)
    return (), ()
