"""Deployment and StatefulSet (group apps)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from lab.kinds.kubernetes.pod_spec import (
    TEMPLATE_CHECKS,
    Count,
    LabelSelector,
    PodTemplate,
    mounts,
)
from lab.resources.fields import declared, inert, refused
from lab.resources.resource import Check, Kind, Model, Problem

IntOrPercent = Count | Annotated[str, StringConstraints(pattern=r"^\d+%$")]


def of_replicas(value: int | str, replicas: int, *, up: bool) -> int:
    """Returns a number of pods; Kubernetes rounds maxSurge up, maxUnavailable down."""
    if isinstance(value, int):
        return value
    share = int(value[:-1]) * replicas / 100
    return math.ceil(share) if up else math.floor(share)


class RollingUpdate(Model):
    max_surge: IntOrPercent = "25%"
    max_unavailable: IntOrPercent = "25%"


class DeploymentStrategy(Model):
    type: Literal["RollingUpdate", "Recreate"] = "RollingUpdate"
    rolling_update: RollingUpdate | None = None


class DeploymentSpec(Model):
    selector: LabelSelector
    template: PodTemplate
    replicas: Count = 1
    strategy: DeploymentStrategy = Field(default_factory=DeploymentStrategy)
    min_ready_seconds: Count = 0
    progress_deadline_seconds: Count = 600
    revision_history_limit: int | None = inert("a rollout cannot be undone in the lab")
    paused: Any = refused("change the Deployment when it shall roll")


class Deployment(Model):
    spec: DeploymentSpec


class ClaimMetadata(Model):
    name: str
    labels: dict[str, str] | None = None
    creation_timestamp: str | None = None


class ClaimSpec(Model):
    access_modes: list[str] | None = None
    resources: dict[str, dict[str, str]] | None = None
    storage_class_name: str | None = None
    volume_mode: str | None = None


class VolumeClaimTemplate(Model):
    metadata: ClaimMetadata
    spec: ClaimSpec = Field(default_factory=ClaimSpec)
    api_version: str | None = None
    kind: str | None = None
    status: Any = None


class StatefulSetRollingUpdate(Model):
    partition: Literal[0] = 0


class StatefulSetStrategy(Model):
    type: Literal["RollingUpdate"] = "RollingUpdate"
    rolling_update: StatefulSetRollingUpdate | None = None


class StatefulSetSpec(Model):
    selector: LabelSelector
    template: PodTemplate
    service_name: str = ""
    replicas: Count = 1
    pod_management_policy: Literal["OrderedReady", "Parallel"] = "OrderedReady"
    update_strategy: StatefulSetStrategy = Field(default_factory=StatefulSetStrategy)
    volume_claim_templates: list[VolumeClaimTemplate] = Field(default_factory=list)
    min_ready_seconds: Count = 0
    revision_history_limit: int | None = inert("a rollout cannot be undone in the lab")
    persistent_volume_claim_retention_policy: dict[str, str] | None = inert(
        "data stay until their folder is removed"
    )


class StatefulSet(Model):
    spec: StatefulSetSpec


def _strategy(strategy: DeploymentStrategy) -> Iterator[Problem]:
    if strategy.type == "Recreate" and strategy.rolling_update is not None:
        yield Problem(("rollingUpdate",), "may not be given when `type` is Recreate")
    rolling = strategy.rolling_update or RollingUpdate()
    if rolling.max_surge in (0, "0%") and rolling.max_unavailable in (0, "0%"):
        yield Problem(("rollingUpdate",), "maxSurge and maxUnavailable may not both be 0")


def _claims(spec: StatefulSetSpec) -> Iterator[Problem]:
    claims = tuple(claim.metadata.name for claim in spec.volume_claim_templates)
    for problem in mounts(spec.template.spec, claims):
        yield Problem(("template", "spec", *problem.path), problem.reason)


DEPLOYMENT = (
    *declared(Deployment),
    Check("spec.strategy", _strategy),
    Check("spec.template.spec.restartPolicy", lambda policy: policy == "Always", "must be Always"),
    *TEMPLATE_CHECKS,
    Check("spec.template.spec", mounts),
)
STATEFUL_SET = (*declared(StatefulSet), *TEMPLATE_CHECKS, Check("spec", _claims))

KINDS: tuple[Kind, ...] = (
    Kind("apps", "Deployment", "deployments", ("v1",), Deployment, ("deploy",), checks=DEPLOYMENT),
    Kind(
        "apps", "StatefulSet", "statefulsets", ("v1",), StatefulSet, ("sts",), checks=STATEFUL_SET
    ),
)
