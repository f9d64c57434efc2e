"""Kubernetes' core group: Namespace, Pod, Service, ServiceAccount, ConfigMap, Secret."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from lab.kinds.kubernetes.pod_spec import NO_TOKENS, PodSpec, Port, PortName, pod_problems
from lab.resources.istio import refused
from lab.resources.kubernetes import KubernetesModel, inert, spec_problems
from lab.resources.resource import Kind, Problem, Resource


class NamespaceSpec(KubernetesModel):
    finalizers: list[str] | None = None


class Namespace(KubernetesModel):
    spec: NamespaceSpec = Field(default_factory=NamespaceSpec)


class Pod(KubernetesModel):
    spec: PodSpec


class ServicePort(KubernetesModel):
    port: Port
    name: PortName = ""
    target_port: Port | PortName | None = None
    protocol: Literal["TCP"] = "TCP"
    app_protocol: str | None = None
    node_port: int | None = inert("the lab has no nodes; the gateway's port is `up --port`")


class ServiceSpec(KubernetesModel):
    ports: list[ServicePort] = Field(min_length=1)
    selector: dict[str, str] = Field(default_factory=dict)
    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    cluster_ip: str | None = Field(default=None, alias="clusterIP")
    cluster_ips: list[str] | None = Field(default=None, alias="clusterIPs")
    publish_not_ready_addresses: bool = False
    external_name: Any = refused("use a ServiceEntry")
    external_ips: Any = refused("the lab has no other nodes", alias="externalIPs")
    load_balancer_ip: Any = refused("the lab publishes on localhost", alias="loadBalancerIP")
    session_affinity: Literal["None"] | None = None
    ip_families: list[str] | None = inert("the lab has IPv4 only")
    ip_family_policy: str | None = inert("the lab has IPv4 only")
    internal_traffic_policy: str | None = inert("the lab has one node")
    external_traffic_policy: str | None = inert("the lab has one node")
    allocate_load_balancer_node_ports: bool | None = inert("the lab has no nodes")
    load_balancer_source_ranges: list[str] | None = refused("use an AuthorizationPolicy")


class Service(KubernetesModel):
    spec: ServiceSpec


class ServiceAccount(KubernetesModel):
    automount_service_account_token: bool | None = inert(NO_TOKENS)
    image_pull_secrets: list[dict[str, str]] | None = inert("no image is pulled")
    secrets: list[dict[str, str]] | None = inert(NO_TOKENS)


class ConfigMap(KubernetesModel):
    data: dict[str, str] | None = None
    binary_data: dict[str, str] | None = None
    immutable: bool | None = None


class Secret(KubernetesModel):
    data: dict[str, str] | None = None
    string_data: dict[str, str] | None = None
    type: str = "Opaque"
    immutable: bool | None = None

    def decoded(self) -> dict[str, bytes]:
        """The values as bytes; `stringData` wins over `data`, as in the API server."""
        values = {key: base64.b64decode(value) for key, value in (self.data or {}).items()}
        return values | {key: text.encode() for key, text in (self.string_data or {}).items()}


def _base64_problems(values: dict[str, str] | None, field: str) -> Iterator[Problem]:
    for key, value in (values or {}).items():
        try:
            base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            yield Problem((field, key), "not base64; plain text goes under stringData")


def _pod(resource: Resource) -> Iterator[Problem]:
    yield from pod_problems(resource.spec, ("spec",))


def _service(resource: Resource) -> Iterator[Problem]:
    spec: ServiceSpec = resource.spec
    yield from spec_problems(spec, ("spec",))
    names = [port.name for port in spec.ports]
    if len(spec.ports) > 1 and "" in names:
        yield Problem(("spec", "ports"), "with several ports each needs a name")
    for index, port in enumerate(spec.ports):
        if port.name and names.index(port.name) != index:
            yield Problem(("spec", "ports", index, "name"), f'"{port.name}" is used twice')
    if not spec.selector:
        yield Problem(("spec", "selector"), "a Service without selector is not supported")


def _config_map(resource: Resource) -> Iterator[Problem]:
    yield from _base64_problems(resource.body.binary_data, "binaryData")


def _secret(resource: Resource) -> Iterator[Problem]:
    yield from _base64_problems(resource.body.data, "data")


def _account(resource: Resource) -> Iterator[Problem]:
    yield from spec_problems(resource.body, ())


KINDS: tuple[Kind, ...] = (
    Kind("", "Namespace", "namespaces", ("v1",), Namespace, ("ns",), namespaced=False),
    Kind("", "Pod", "pods", ("v1",), Pod, ("po",), validate=_pod),
    Kind("", "Service", "services", ("v1",), Service, ("svc",), validate=_service),
    Kind("", "ServiceAccount", "serviceaccounts", ("v1",), ServiceAccount, ("sa",), True, _account),
    Kind("", "ConfigMap", "configmaps", ("v1",), ConfigMap, ("cm",), validate=_config_map),
    Kind("", "Secret", "secrets", ("v1",), Secret, (), validate=_secret),
)
