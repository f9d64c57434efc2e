"""Sidecar: types of the API of Istio.

Written by `python -m scripts.istio_schema` from lab/resources/istio.json.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from lab.kinds.destination_rule.types import ConnectionPoolSettings
from lab.kinds.gateway.types import ServerTLSSettings
from lab.resources.resource import Check, Kind, Model
from lab.resources.values import Unsigned


class SidecarPort(Model):
    name: str = ""
    number: Unsigned = 0
    protocol: str = ""
    target_port: Any = None


class IstioEgressListener(Model):
    bind: str = ""
    capture_mode: Literal["DEFAULT", "IPTABLES", "NONE"] = "DEFAULT"
    hosts: list[str]
    port: SidecarPort | None = None


class IstioIngressListener(Model):
    bind: str = ""
    capture_mode: Literal["DEFAULT", "IPTABLES", "NONE"] = "DEFAULT"
    connection_pool: ConnectionPoolSettings | None = None
    default_endpoint: str = ""
    port: SidecarPort
    tls: ServerTLSSettings | None = None


class PortSelector(Model):
    number: Unsigned = 0


class Destination(Model):
    host: str
    port: PortSelector | None = None
    subset: str | None = None


class OutboundTrafficPolicy(Model):
    egress_proxy: Destination | None = None
    mode: Literal["REGISTRY_ONLY", "ALLOW_ANY"] = "REGISTRY_ONLY"


class WorkloadSelector(Model):
    labels: dict[str, Annotated[str, Field(max_length=63)]] = Field(
        default_factory=dict, max_length=256
    )


class SidecarSpec(Model):
    egress: list[IstioEgressListener] = Field(default_factory=list)
    inbound_connection_pool: ConnectionPoolSettings | None = None
    ingress: list[IstioIngressListener] = Field(default_factory=list)
    outbound_traffic_policy: OutboundTrafficPolicy | None = None
    workload_selector: WorkloadSelector | None = None


class Sidecar(Model):
    spec: SidecarSpec


def kind(checks: tuple[Check, ...]) -> Kind:
    """Returns the kind, with its names and versions."""
    versions = ("v1", "v1beta1", "v1alpha3")
    names = ("networking.istio.io", "Sidecar", "sidecars")
    return Kind(*names, versions, Sidecar, (), checks=checks)
