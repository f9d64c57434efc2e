"""Deployment and StatefulSet (group apps)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from lab.kinds.kubernetes.pod_spec import Count, PodTemplate, template_problems
from lab.resources.istio import refused
from lab.resources.kubernetes import KubernetesModel, LabelSelector, inert
from lab.resources.resource import Kind, Problem, Resource

IntOrPercent = Count | Annotated[str, StringConstraints(pattern=r"^\d+%$")]


def of_replicas(value: int | str, replicas: int, *, up: bool) -> int:
    """An `IntOrPercent` as a number of pods; Kubernetes rounds maxSurge up, maxUnavailable down."""
    if isinstance(value, int):
        return value
    share = int(value[:-1]) * replicas / 100
    return math.ceil(share) if up else math.floor(share)


class RollingUpdate(KubernetesModel):
    max_surge: IntOrPercent = "25%"
    max_unavailable: IntOrPercent = "25%"


class DeploymentStrategy(KubernetesModel):
    type: Literal["RollingUpdate", "Recreate"] = "RollingUpdate"
    rolling_update: RollingUpdate | None = None


class DeploymentSpec(KubernetesModel):
    selector: LabelSelector
    template: PodTemplate
    replicas: Count = 1
    strategy: DeploymentStrategy = Field(default_factory=DeploymentStrategy)
    min_ready_seconds: Count = 0
    progress_deadline_seconds: Count = 600
    revision_history_limit: int | None = inert("a rollout cannot be undone in the lab")
    paused: Any = refused("change the Deployment when it shall roll")


class Deployment(KubernetesModel):
    spec: DeploymentSpec


class ClaimMetadata(KubernetesModel):
    name: str
    labels: dict[str, str] | None = None
    creation_timestamp: str | None = None


class ClaimSpec(KubernetesModel):
    access_modes: list[str] | None = None
    resources: dict[str, dict[str, str]] | None = None
    storage_class_name: str | None = None
    volume_mode: str | None = None


class VolumeClaimTemplate(KubernetesModel):
    metadata: ClaimMetadata
    spec: ClaimSpec = Field(default_factory=ClaimSpec)
    api_version: str | None = None
    kind: str | None = None
    status: Any = None


class StatefulSetRollingUpdate(KubernetesModel):
    partition: Literal[0] = 0


class StatefulSetStrategy(KubernetesModel):
    type: Literal["RollingUpdate"] = "RollingUpdate"
    rolling_update: StatefulSetRollingUpdate | None = None


class StatefulSetSpec(KubernetesModel):
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


class StatefulSet(KubernetesModel):
    spec: StatefulSetSpec


def _deployment(resource: Resource) -> Iterator[Problem]:
    spec: DeploymentSpec = resource.spec
    if spec.strategy.type == "Recreate" and spec.strategy.rolling_update is not None:
        yield Problem(
            ("spec", "strategy", "rollingUpdate"), "may not be given when `type` is Recreate"
        )
    rolling = spec.strategy.rolling_update or RollingUpdate()
    if rolling.max_surge in (0, "0%") and rolling.max_unavailable in (0, "0%"):
        yield Problem(
            ("spec", "strategy", "rollingUpdate"), "maxSurge and maxUnavailable may not both be 0"
        )
    if spec.template.spec.restart_policy != "Always":
        yield Problem(("spec", "template", "spec", "restartPolicy"), "must be Always")
    yield from template_problems(spec.template, spec.selector)


def _stateful_set(resource: Resource) -> Iterator[Problem]:
    spec: StatefulSetSpec = resource.spec
    claims = tuple(claim.metadata.name for claim in spec.volume_claim_templates)
    yield from template_problems(spec.template, spec.selector, claims)


_GROUP = "apps"
KINDS: tuple[Kind, ...] = (
    Kind(_GROUP, "Deployment", "deployments", ("v1",), Deployment, ("deploy",), True, _deployment),
    Kind(
        _GROUP, "StatefulSet", "statefulsets", ("v1",), StatefulSet, ("sts",), True, _stateful_set
    ),
)
