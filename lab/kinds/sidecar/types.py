"""Sidecar: types of the API of Istio.

Written by `python -m scripts.istio_schema` from lab/resources/istio.json.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from lab.kinds.destination_rule.types import ConnectionPoolSettings
from lab.resources.resource import Check, Kind, Model


class IstioEgressListener(Model):
    bind: Any = None
    capture_mode: Any = None
    hosts: list[str]
    port: Any = None


class OutboundTrafficPolicy(Model):
    egress_proxy: Any = None
    mode: Literal["REGISTRY_ONLY", "ALLOW_ANY"] = "REGISTRY_ONLY"


class WorkloadSelector(Model):
    labels: dict[str, Annotated[str, Field(max_length=63)]] = Field(
        default_factory=dict, max_length=256
    )


class SidecarSpec(Model):
    egress: list[IstioEgressListener] = Field(default_factory=list)
    inbound_connection_pool: ConnectionPoolSettings | None = None
    ingress: Any = None
    outbound_traffic_policy: OutboundTrafficPolicy | None = None
    workload_selector: WorkloadSelector | None = None


class Sidecar(Model):
    spec: SidecarSpec


def kind(checks: tuple[Check, ...]) -> Kind:
    """Returns the kind, with its names and versions."""
    versions = ("v1", "v1beta1", "v1alpha3")
    names = ("networking.istio.io", "Sidecar", "sidecars")
    return Kind(*names, versions, Sidecar, (), checks=checks)
