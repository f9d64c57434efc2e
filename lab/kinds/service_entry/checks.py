"""ServiceEntry: the typed body and what istiod's validation says about it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from lab.resources.istio import (
    NETWORKING_VERSIONS,
    Integer,
    IstioModel,
    Port,
    Text,
    export_to_problems,
    field_problems,
    host_problem,
    is_dns_label,
    port_problem,
    refused,
)
from lab.resources.resource import Kind, Path, Problem, Resource

PROTOCOLS = ("HTTP", "HTTP2", "GRPC", "GRPC-WEB", "HTTPS", "TLS", "TCP", "MONGO", "REDIS", "MYSQL")


class ServiceEntryPort(IstioModel):
    number: Port
    name: Text
    protocol: Text | None = None
    target_port: Port | None = None


class WorkloadEntry(IstioModel):
    address: Text | None = None
    ports: dict[str, Port] = Field(default_factory=dict)
    labels: dict[str, str] = Field(default_factory=dict)
    weight: Integer | None = None
    service_account: Text | None = None
    network: Text | None = refused("the lab is one network")
    locality: Text | None = refused("the lab is one locality")


class WorkloadSelector(IstioModel):
    labels: dict[str, str] = Field(default_factory=dict)


class ServiceEntrySpec(IstioModel):
    hosts: list[Text]
    addresses: list[Text] = Field(default_factory=list)
    ports: list[ServiceEntryPort] = Field(default_factory=list)
    location: Literal["MESH_EXTERNAL", "MESH_INTERNAL"] = "MESH_EXTERNAL"
    resolution: Literal["NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS"] = "NONE"
    endpoints: list[WorkloadEntry] = Field(default_factory=list)
    workload_selector: WorkloadSelector | None = None
    export_to: list[Text] | None = None
    subject_alt_names: list[Text] = Field(default_factory=list)


class ServiceEntry(IstioModel):
    spec: ServiceEntrySpec


def validate(resource: Resource) -> Iterator[Problem]:
    """What istiod's webhook says of a ServiceEntry, and what the lab does not translate."""
    spec: ServiceEntrySpec = resource.spec
    path: Path = ("spec",)
    yield from field_problems(spec, path)
    yield from export_to_problems(spec.export_to, (*path, "exportTo"))
    if not spec.hosts:
        yield Problem((*path, "hosts"), "service entry must have at least one host")
    for index, host in enumerate(spec.hosts):
        if host == "*":
            yield Problem((*path, "hosts", index), "invalid host *")
        elif problem := host_problem(host):
            yield Problem((*path, "hosts", index), problem)
    if spec.subject_alt_names and spec.location == "MESH_EXTERNAL":
        yield Problem(
            (*path, "subjectAltNames"),
            "no effect in the lab on hosts outside the mesh; put them into the tls of a "
            "DestinationRule",
            "warning",
        )
    yield from _ports(spec, path)
    yield from _addresses(spec, path)
    yield from _resolution(spec, path)


def _ports(spec: ServiceEntrySpec, path: Path) -> Iterator[Problem]:
    if not spec.ports:
        yield Problem((*path, "ports"), "service entry must have at least one port")
    names: set[str] = set()
    numbers: set[int] = set()
    for index, port in enumerate(spec.ports):
        where: Path = (*path, "ports", index)
        if not is_dns_label(port.name):
            yield Problem((*where, "name"), f"invalid port name: {port.name}")
        if port.name in names:
            yield Problem(where, f'service entry port name "{port.name}" already defined')
        if port.number in numbers:
            yield Problem(where, f"service entry port {port.number} already defined")
        names.add(port.name)
        numbers.add(port.number)
        for field, number in (("number", port.number), ("targetPort", port.target_port)):
            if number is not None and (problem := port_problem(number)):
                yield Problem((*where, field), problem)
        if not port.protocol:
            yield Problem(
                where,
                "without protocol Istio looks at the first bytes of a connection; the lab goes by "
                "the name of the port, and takes another for HTTP",
                "warning",
            )
        elif port.protocol.upper() not in PROTOCOLS:
            reason = (
                "not supported by the lab: UDP"
                if port.protocol.upper() == "UDP"
                else f"unsupported protocol: {port.protocol}"
            )
            yield Problem((*where, "protocol"), reason)


def _addresses(spec: ServiceEntrySpec, path: Path) -> Iterator[Problem]:
    for index, address in enumerate(spec.addresses):
        try:
            ipaddress.ip_network(address, strict=False)
        except ValueError:
            yield Problem(
                (*path, "addresses", index), f"address {address} is no IP address or CIDR"
            )
        else:
            if "/" in address and spec.resolution not in ("NONE", "STATIC"):
                yield Problem(
                    (*path, "addresses", index),
                    "CIDR addresses are allowed only for NONE/STATIC resolution types",
                )
    if not spec.addresses and any((port.protocol or "").upper() == "TCP" for port in spec.ports):
        yield Problem(
            (*path, "addresses"),
            "addresses are required for ports serving TCP (or unset) protocol: without them the "
            "port is this entry's for every host",
            "warning",
        )


def _resolution(spec: ServiceEntrySpec, path: Path) -> Iterator[Problem]:
    if spec.workload_selector and spec.endpoints:
        yield Problem(path, "only one of WorkloadSelector or Endpoints is allowed in Service Entry")
    where: Path = (*path, "endpoints")
    match spec.resolution:
        case "NONE" | "DYNAMIC_DNS" if spec.endpoints:
            kind = "none" if spec.resolution == "NONE" else "dynamic_dns"
            yield Problem(where, f"no endpoints should be provided for resolution type {kind}")
        case "DYNAMIC_DNS":
            for index, host in enumerate(spec.hosts):
                if not host.startswith("*"):
                    yield Problem((*path, "hosts", index), "DYNAMIC_DNS is for wildcard hosts only")
        case "DNS" | "DNS_ROUND_ROBIN":
            if not spec.endpoints and not spec.workload_selector:
                for index, host in enumerate(spec.hosts):
                    if host.startswith("*"):
                        yield Problem(
                            (*path, "hosts", index),
                            "hosts must be FQDN or contain only prefix wildcards if no endpoints "
                            "are provided for resolution mode DNS, and a wildcard cannot be "
                            "resolved: use resolution NONE",
                        )
            if spec.resolution == "DNS_ROUND_ROBIN" and len(spec.endpoints) > 1:
                yield Problem(
                    where,
                    "there must only be 0 or 1 endpoint for resolution mode DNS_ROUND_ROBIN",
                )
    names = {port.name for port in spec.ports}
    for index, endpoint in enumerate(spec.endpoints):
        yield from _endpoint(spec, endpoint, names, (*where, index))


def _endpoint(
    spec: ServiceEntrySpec, endpoint: WorkloadEntry, names: set[str], path: Path
) -> Iterator[Problem]:
    address = endpoint.address or ""
    if not address:
        yield Problem((*path, "address"), "address is required")
    elif address.startswith("unix://"):
        yield Problem((*path, "address"), "not supported by the lab: unix domain sockets")
    elif spec.resolution == "STATIC":
        try:
            ipaddress.ip_address(address)
        except ValueError:
            yield Problem(
                (*path, "address"), f"{address} is no IP address, and resolution is STATIC"
            )
    elif problem := host_problem(address, wildcard=False):
        yield Problem((*path, "address"), problem)
    for name, number in endpoint.ports.items():
        if name not in names:
            yield Problem(
                (*path, "ports", name), f"endpoint port {name} is not defined by the service entry"
            )
        if problem := port_problem(number):
            yield Problem((*path, "ports", name), problem)
    if endpoint.weight is not None and endpoint.weight < 0:
        yield Problem((*path, "weight"), "weight must not be negative")


KINDS: tuple[Kind, ...] = (
    Kind(
        group="networking.istio.io",
        kind="ServiceEntry",
        plural="serviceentries",
        versions=NETWORKING_VERSIONS,
        body=ServiceEntry,
        short_names=("se",),
        validate=validate,
    ),
)
