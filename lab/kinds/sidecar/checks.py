"""Sidecar: the typed body and what istiod's validation says about it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from lab.kinds.destination_rule.types import ConnectionPoolSettings
from lab.resources.istio import (
    NETWORKING_VERSIONS,
    IstioModel,
    Text,
    field_problems,
    host_problem,
    is_dns_label,
    refused,
)
from lab.resources.resource import Kind, Path, Problem, Resource


class IstioEgressListener(IstioModel):
    hosts: list[Text]
    port: dict[str, object] | None = refused("listeners for one port; list the hosts only")
    bind: Text | None = refused("listeners for one address; list the hosts only")
    capture_mode: Text | None = refused("there are no iptables in the lab to choose from")


class OutboundTrafficPolicy(IstioModel):
    mode: Literal["REGISTRY_ONLY", "ALLOW_ANY"] = "REGISTRY_ONLY"
    egress_proxy: dict[str, object] | None = refused("an egress proxy for unknown destinations")


class WorkloadSelector(IstioModel):
    labels: dict[str, str] = Field(default_factory=dict)


class SidecarSpec(IstioModel):
    workload_selector: WorkloadSelector | None = None
    egress: list[IstioEgressListener] = Field(default_factory=list)
    outbound_traffic_policy: OutboundTrafficPolicy | None = None
    inbound_connection_pool: ConnectionPoolSettings | None = None
    ingress: list[object] | None = refused(
        "inbound listeners of one's own; those of the pod's Services are generated"
    )


class Sidecar(IstioModel):
    spec: SidecarSpec


def validate(resource: Resource) -> Iterator[Problem]:
    """What istiod's webhook says of a Sidecar, and what the lab does not translate."""
    spec: SidecarSpec = resource.spec
    path: Path = ("spec",)
    yield from field_problems(spec, path)
    if not (spec.egress or spec.ingress or spec.inbound_connection_pool) and (
        spec.outbound_traffic_policy is None
    ):
        yield Problem(
            path, "sidecar: empty configuration provided. Please provide ingress or egress"
        )
    pool = spec.inbound_connection_pool
    if pool is not None and pool.http is not None and pool.http.h2_upgrade_policy is not None:
        yield Problem(
            (*path, "inboundConnectionPool", "http", "h2UpgradePolicy"),
            "a client's connections are upgraded, not a server's: no effect here",
            "warning",
        )
    for index, listener in enumerate(spec.egress):
        where = (*path, "egress", index, "hosts")
        if not listener.hosts:
            yield Problem(where, "sidecar: egress listener must contain at least one host")
        for position, host in enumerate(listener.hosts):
            yield from _host(host, (*where, position))
    if len(spec.egress) > 1:
        yield Problem(
            (*path, "egress"), "sidecar: egress listeners without a port: there can be only one"
        )


def _host(host: str, path: Path) -> Iterator[Problem]:
    namespace, slash, name = host.partition("/")
    if not slash:
        yield Problem(path, f'host must be of form namespace/dnsName, found "{host}"')
        return
    if namespace not in ("*", ".", "~") and not is_dns_label(namespace):
        yield Problem(path, f'namespace "{namespace}" in host "{host}" is invalid')
    if name != "*" and (problem := host_problem(name)):
        yield Problem(path, problem)


KINDS: tuple[Kind, ...] = (
    Kind(
        group="networking.istio.io",
        kind="Sidecar",
        plural="sidecars",
        versions=NETWORKING_VERSIONS,
        body=Sidecar,
        validate=validate,
    ),
)
