"""Sidecar: types of the API of Istio.

Written by `python -m scripts.istio_schema` from lab/resources/istio.json.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from lab.kinds.destination_rule.types import ConnectionPoolSettings
from lab.kinds.gateway.types import ServerTLSSettings
from lab.kinds.types import Destination, WorkloadSelector
from lab.resources.resource import Model
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


class OutboundTrafficPolicy(Model):
    egress_proxy: Destination | None = None
    mode: Literal["REGISTRY_ONLY", "ALLOW_ANY"] = "REGISTRY_ONLY"


class SidecarSpec(Model):
    egress: list[IstioEgressListener] = Field(default_factory=list)
    inbound_connection_pool: ConnectionPoolSettings | None = None
    ingress: list[IstioIngressListener] = Field(default_factory=list)
    outbound_traffic_policy: OutboundTrafficPolicy | None = None
    workload_selector: WorkloadSelector | None = None


class Sidecar(Model):
    spec: SidecarSpec
