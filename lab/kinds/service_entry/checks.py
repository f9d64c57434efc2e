"""Checks of a ServiceEntry: istiod's validation beyond the schema, and the lab's limits."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterator

from lab.kinds.service_entry.types import ServiceEntryPort, ServiceEntrySpec, WorkloadEntry, kind
from lab.resources.checks import refused
from lab.resources.resource import Check, Problem
from lab.resources.values import (
    duplicates,
    export_to,
    host_problem,
    is_dns_label,
    is_ip,
    port_problem,
)

PROTOCOLS = ("HTTP", "HTTP2", "GRPC", "GRPC-WEB", "HTTPS", "TLS", "TCP", "MONGO", "REDIS", "MYSQL")


def _names(spec: ServiceEntrySpec) -> Iterator[Problem]:
    if spec.subject_alt_names and spec.location == "MESH_EXTERNAL":
        yield Problem(
            ("subjectAltNames",),
            "no effect in the lab on hosts outside the mesh; put them into the tls of a "
            "DestinationRule",
            "warning",
        )


def _ports(ports: list[ServiceEntryPort]) -> Iterator[Problem]:
    for index, name in duplicates(port.name for port in ports):
        yield Problem((index,), f'service entry port name "{name}" already defined')
    for index, number in duplicates(port.number for port in ports):
        yield Problem((index,), f"service entry port {number} already defined")


def _protocol(protocol: str) -> str | None:
    if not protocol or protocol.upper() in PROTOCOLS:
        return None
    if protocol.upper() == "UDP":
        return "not supported by the lab: UDP"
    return f"unsupported protocol: {protocol}"


def _addresses(spec: ServiceEntrySpec) -> Iterator[Problem]:
    for index, address in enumerate(spec.addresses):
        reason = ""
        try:
            ipaddress.ip_network(address, strict=False)
        except ValueError:
            reason = f"address {address} is no IP address or CIDR"
        else:
            if "/" in address and spec.resolution not in ("NONE", "STATIC"):
                reason = "CIDR addresses are allowed only for NONE/STATIC resolution types"
        if reason:
            yield Problem(("addresses", index), reason)
    if not spec.addresses and any((port.protocol or "").upper() == "TCP" for port in spec.ports):
        yield Problem(
            ("addresses",),
            "addresses are required for ports serving TCP (or unset) protocol: without them the "
            "port is this entry's for every host",
            "warning",
        )


def _resolution(spec: ServiceEntrySpec) -> Iterator[Problem]:
    wildcards = [index for index, host in enumerate(spec.hosts) if host.startswith("*")]
    match spec.resolution:
        case "NONE" | "DYNAMIC_DNS" if spec.endpoints:
            resolution = spec.resolution.lower()
            reason = f"no endpoints should be provided for resolution type {resolution}"
            yield Problem(("endpoints",), reason)
        case "DYNAMIC_DNS":
            for index in range(len(spec.hosts)):
                if index not in wildcards:
                    yield Problem(("hosts", index), "DYNAMIC_DNS is for wildcard hosts only")
        case "DNS" | "DNS_ROUND_ROBIN":
            if not spec.endpoints and not spec.workload_selector:
                for index in wildcards:
                    yield Problem(
                        ("hosts", index),
                        "hosts must be FQDN or contain only prefix wildcards if no endpoints are "
                        "provided for resolution mode DNS, and a wildcard cannot be resolved: use "
                        "resolution NONE",
                    )
            if spec.resolution == "DNS_ROUND_ROBIN" and len(spec.endpoints) > 1:
                reason = "there must only be 0 or 1 endpoint for resolution mode DNS_ROUND_ROBIN"
                yield Problem(("endpoints",), reason)


def _endpoints(spec: ServiceEntrySpec) -> Iterator[Problem]:
    names = {port.name for port in spec.ports}
    for index, endpoint in enumerate(spec.endpoints):
        where = ("endpoints", index)
        if reason := _address(spec, endpoint):
            yield Problem((*where, "address"), reason)
        for name in endpoint.ports:
            if name not in names:
                reason = f"endpoint port {name} is not defined by the service entry"
                yield Problem((*where, "ports", name), reason)


def _address(spec: ServiceEntrySpec, endpoint: WorkloadEntry) -> str | None:
    address = endpoint.address or ""
    if not address:
        return "address is required"
    if address.startswith("unix://"):
        return "not supported by the lab: unix domain sockets"
    if spec.resolution != "STATIC":
        return None if is_ip(address) else host_problem(address, wildcard=False)
    return None if is_ip(address) else f"{address} is no IP address, and resolution is STATIC"


CHECKS = (
    refused("**.endpoints[].network", "the lab is one network"),
    refused("**.endpoints[].locality", "the lab is one locality"),
    Check("spec.exportTo", functools.partial(export_to, nobody=True)),
    Check("spec.hosts[]", lambda host: "invalid host *" if host == "*" else host_problem(host)),
    Check("spec", _names),
    Check("spec.ports", bool, "service entry must have at least one port"),
    Check("spec.ports[].name", is_dns_label, "invalid port name: {value}"),
    Check("spec.ports", _ports),
    Check("spec.ports[].number|targetPort", port_problem),
    Check(
        "spec.ports[]",
        lambda port: bool(port.protocol),
        "without protocol Istio looks at the first bytes of a connection; the lab goes by the name "
        "of the port, and takes another for HTTP",
        "warning",
    ),
    Check("spec.ports[].protocol", _protocol),
    Check("spec", _addresses),
    Check(
        "spec",
        lambda spec: not (spec.workload_selector and spec.endpoints),
        "only one of WorkloadSelector or Endpoints is allowed in Service Entry",
    ),
    Check("spec", _resolution),
    Check("spec", _endpoints),
    Check("spec.endpoints[].ports{}", port_problem),
)

KINDS = (kind(CHECKS),)
