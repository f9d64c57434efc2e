"""Kubernetes' core group: Namespace, Pod, Service, ServiceAccount, ConfigMap, Secret."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from lab.kinds.kubernetes.pod_spec import NO_TOKENS, POD_CHECKS, PodSpec, Port, PortName, mounts
from lab.kinds.mesh_config import annotation
from lab.resources.fields import declared, inert, refused
from lab.resources.resource import Check, Kind, Model, Problem
from lab.resources.values import duplicates, host_problem


class NamespaceSpec(Model):
    finalizers: list[str] | None = None


class Namespace(Model):
    spec: NamespaceSpec = Field(default_factory=NamespaceSpec)


class Pod(Model):
    spec: PodSpec


class ServicePort(Model):
    port: Port
    name: PortName = ""
    target_port: Port | PortName | None = None
    protocol: Literal["TCP"] = "TCP"
    app_protocol: str | None = None
    node_port: Port | None = None


class ServiceSpec(Model):
    ports: list[ServicePort] = Field(default_factory=list)
    selector: dict[str, str] = Field(default_factory=dict)
    type: Literal["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"] = "ClusterIP"
    cluster_ip: str | None = Field(default=None, alias="clusterIP")
    cluster_ips: list[str] | None = Field(default=None, alias="clusterIPs")
    publish_not_ready_addresses: bool = False
    external_name: str | None = None
    external_ips: Any = refused("the lab has no other nodes", alias="externalIPs")
    load_balancer_ip: Any = refused("the lab has node ports alone", alias="loadBalancerIP")
    session_affinity: Literal["None"] | None = None
    ip_families: list[str] | None = inert("the lab has IPv4 only")
    ip_family_policy: str | None = inert("the lab has IPv4 only")
    internal_traffic_policy: str | None = inert("the lab has one node")
    external_traffic_policy: str | None = inert("the lab has one node")
    allocate_load_balancer_node_ports: bool | None = inert("the lab has node ports alone")
    load_balancer_source_ranges: list[str] | None = refused("use an AuthorizationPolicy")


class Service(Model):
    spec: ServiceSpec


class ServiceAccount(Model):
    automount_service_account_token: bool | None = inert(NO_TOKENS)
    image_pull_secrets: list[dict[str, str]] | None = inert("no image is pulled")
    secrets: list[dict[str, str]] | None = inert(NO_TOKENS)


class ConfigMap(Model):
    data: dict[str, str] | None = None
    binary_data: dict[str, str] | None = None
    immutable: bool | None = None


class Secret(Model):
    data: dict[str, str] | None = None
    string_data: dict[str, str] | None = None
    type: str = "Opaque"
    immutable: bool | None = None

    def decoded(self) -> dict[str, bytes]:
        """Returns the values as bytes; `stringData` wins over `data`, as in the API server."""
        values = {key: base64.b64decode(value) for key, value in (self.data or {}).items()}
        return values | {key: text.encode() for key, text in (self.string_data or {}).items()}


def _base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


def _port_names(ports: list[ServicePort]) -> Iterator[Problem]:
    if len(ports) > 1 and any(not port.name for port in ports):
        yield Problem((), "with several ports each needs a name")
    for index, name in duplicates(port.name for port in ports):
        if name:
            yield Problem((index, "name"), f'"{name}" is used twice')


WITH_NODE_PORTS = ("NodePort", "LoadBalancer")
"""The types of Services whose ports have node ports."""

OUT_OF_RANGE = "provided port is not in the valid range. The range of valid ports is 30000-32767"


def _node_ports(spec: ServiceSpec) -> Iterator[Problem]:
    for index, port in enumerate(spec.ports):
        place = ("ports", index, "nodePort")
        if port.node_port is None:
            continue
        if spec.type not in WITH_NODE_PORTS:
            yield Problem(place, f"may not be used when `type` is '{spec.type}'")
        # The gateway's have numbers of `up --port`, which `get -o yaml` shows.
        elif not (30000 <= port.node_port < 32768 or port.port in (80, 443)):
            yield Problem(place, OUT_OF_RANGE)


def _selection(spec: ServiceSpec) -> Iterator[Problem]:
    if spec.type == "ExternalName":
        if problem := host_problem(spec.external_name or "", wildcard=False):
            yield Problem(("externalName",), problem)
        return
    if spec.external_name:
        yield Problem(("externalName",), "it is for Services of type ExternalName")
    if not spec.ports:
        yield Problem(("ports",), "required: a Service without ports leads nowhere")


POD = (*declared(Pod), *POD_CHECKS, Check("spec", mounts), *annotation.CHECKS)
SERVICE = (
    *declared(Service),
    Check("spec.ports", _port_names),
    Check("spec", _selection),
    Check("spec", _node_ports),
)
BASE64 = "not base64; plain text goes under stringData"

KINDS: tuple[Kind, ...] = (
    Kind("", "Namespace", "namespaces", ("v1",), Namespace, ("ns",), namespaced=False),
    Kind("", "Pod", "pods", ("v1",), Pod, ("po",), checks=POD),
    Kind("", "Service", "services", ("v1",), Service, ("svc",), checks=SERVICE),
    Kind(
        "",
        "ServiceAccount",
        "serviceaccounts",
        ("v1",),
        ServiceAccount,
        ("sa",),
        checks=tuple(declared(ServiceAccount)),
    ),
    Kind(
        "",
        "ConfigMap",
        "configmaps",
        ("v1",),
        ConfigMap,
        ("cm",),
        checks=(Check("binaryData{}", _base64, BASE64),),
    ),
    Kind("", "Secret", "secrets", ("v1",), Secret, checks=(Check("data{}", _base64, BASE64),)),
)
