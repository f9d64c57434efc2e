"""Checks of a ServiceEntry: istiod's validation beyond the schema, and the lab's limits."""

from __future__ import annotations

from collections.abc import Iterator

from lab.kinds.selection import selector
from lab.kinds.service_entry.types import (
    ServiceEntry,
    ServiceEntryPort,
    ServiceEntrySpec,
)
from lab.kinds.types import WorkloadEntrySpec
from lab.kinds.workload_entry.checks import NETWORK, UNIX
from lab.model import PROTOCOLS
from lab.resources.checks import warned
from lab.resources.istio import kind
from lab.resources.resource import Check, Problem, Resource
from lab.resources.values import (
    duplicates,
    export_to,
    host_problem,
    is_dns_label,
    is_ip,
    network_problem,
    partial_wildcard,
    port_problem,
    tag_problems,
)

_USE_WAYPOINT = "istio.io/use-waypoint"
_ALLOCATION = "networking.istio.io/enable-autoallocate-ip"


def _names(spec: ServiceEntrySpec) -> Iterator[Problem]:
    if spec.subject_alt_names and spec.location == "MESH_EXTERNAL":
        yield Problem(
            ("subjectAltNames",),
            "no effect in the lab on hosts outside the mesh; put them into the tls of a "
            "DestinationRule",
            "warning",
        )
    for index, host in enumerate(spec.hosts):
        if host == "*":
            yield Problem(("hosts", index), "invalid host *")
        elif problem := host_problem(host):
            yield Problem(("hosts", index), problem)
        elif spec.resolution != "DYNAMIC_DNS" and (problem := partial_wildcard(host)):
            yield Problem(("hosts", index), problem, "warning")


def _ports(ports: list[ServiceEntryPort]) -> Iterator[Problem]:
    for index, name in duplicates(port.name for port in ports):
        yield Problem((index,), f'service entry port name "{name}" already defined')
    for index, number in duplicates(port.number for port in ports):
        yield Problem((index,), f"service entry port {number} already defined")


def _protocol(protocol: str) -> str | None:
    if protocol and protocol.upper() not in (*PROTOCOLS, "UDP"):
        return f"unsupported protocol: {protocol}"
    if protocol.upper() in ("UDP", "HTTP_PROXY"):
        return f"not supported by the lab: {protocol.upper()}"
    return None


def without_address(entry: Resource) -> bool:
    """Returns whether an entry has no address, and istiod gives it none."""
    spec: ServiceEntrySpec = entry.spec
    off = entry.labels.get(_ALLOCATION, "").lower() == "false"
    return not spec.addresses and (off or spec.resolution == "NONE")


def _addresses(entry: Resource) -> Iterator[Problem]:
    spec: ServiceEntrySpec = entry.spec
    for index, address in enumerate(spec.addresses):
        if problem := network_problem(address):
            yield Problem(("spec", "addresses", index), problem)
        elif "/" in address and spec.resolution not in ("NONE", "STATIC"):
            reason = "CIDR addresses are allowed only for NONE/STATIC resolution types"
            yield Problem(("spec", "addresses", index), reason)
    if without_address(entry):
        for index, port in enumerate(spec.ports):
            if port.protocol in (None, "", "TCP"):
                yield Problem(
                    ("spec", "ports", index),
                    "addresses are required for ports serving TCP (or unset) protocol when IP "
                    "Autoallocation is not enabled",
                    "warning",
                )


def _resolution(entry: Resource) -> Iterator[Problem]:
    spec: ServiceEntrySpec = entry.spec
    protocols = [(port.protocol or "").upper() for port in spec.ports]
    match spec.resolution:
        case "NONE":
            if spec.endpoints:
                reason = "no endpoints should be provided for resolution type none"
                yield Problem(("spec", "endpoints"), reason)
            if spec.workload_selector is not None:
                reason = "workloadSelector should not be set when resolution mode is NONE"
                yield Problem(("spec", "workloadSelector"), reason, "warning")
        case "DYNAMIC_DNS":
            yield from _dynamic_dns(entry, protocols)
        case "DNS" | "DNS_ROUND_ROBIN":
            for index, host in enumerate([] if spec.endpoints else spec.hosts):
                if problem := host_problem(host, wildcard=False):
                    yield Problem(
                        ("spec", "hosts", index),
                        "hosts must be FQDN or contain only prefix wildcards if no endpoints are "
                        f"provided for resolution mode {spec.resolution}, {problem}",
                    )
            if spec.resolution == "DNS_ROUND_ROBIN" and len(spec.endpoints) > 1:
                reason = "there must only be 0 or 1 endpoint for resolution mode DNS_ROUND_ROBIN"
                yield Problem(("spec", "endpoints"), reason)
    if spec.resolution != "NONE" and len(spec.hosts) > 1:
        if any(PROTOCOLS.get(protocol, "TCP") == "TCP" for protocol in protocols):
            reason = "multiple hosts provided with non-HTTP, non-TLS ports"
            yield Problem(("spec", "hosts"), reason)
        elif (
            spec.resolution.startswith("DNS") and spec.addresses and {*protocols} & {"HTTPS", "TLS"}
        ):
            yield Problem(
                ("spec", "hosts"),
                "service entry can not have more than one host specified simultaneously with "
                "address and tcp port",
                "warning",
            )


def _dynamic_dns(entry: Resource, protocols: list[str]) -> Iterator[Problem]:
    spec: ServiceEntrySpec = entry.spec
    for index, host in enumerate(spec.hosts):
        if not host.startswith("*"):
            reason = "host must be wildcarded for resolution mode DYNAMIC_DNS"
            yield Problem(("spec", "hosts", index), reason)
    if spec.addresses:
        reason = (
            "addresses cannot be set for resolution type DYNAMIC_DNS. HTTP route domains will only "
            "be generated from the hosts field values"
        )
        yield Problem(("spec", "addresses"), reason)
    if spec.endpoints:
        reason = (
            "endpoints cannot be set for resolution type DYNAMIC_DNS. Destination IP address "
            "determined from hosts field values"
        )
        yield Problem(("spec", "endpoints"), reason)
    for index, protocol in enumerate(protocols):
        if protocol not in ("HTTP", "TLS", "GRPC", "HTTP2"):
            reason = (
                "only HTTP, TLS, GRPC, and HTTP2 protocols are supported for resolution type "
                "DYNAMIC_DNS"
            )
            yield Problem(("spec", "ports", index, "protocol"), reason)
    waypoint = entry.labels.get(_USE_WAYPOINT, "none").lower() not in ("", "none")
    if spec.location == "MESH_INTERNAL" and waypoint:
        reason = (
            "location MESH_INTERNAL with resolution type DYNAMIC_DNS is not supported when using "
            "waypoints"
        )
        yield Problem(("spec", "location"), reason)


def _endpoints(spec: ServiceEntrySpec) -> Iterator[Problem]:
    names = {port.name for port in spec.ports}
    checked = spec.endpoints if spec.resolution in ("STATIC", "DNS", "DNS_ROUND_ROBIN") else []
    for index, endpoint in enumerate(checked):
        where = ("endpoints", index)
        if reason := _address(spec, endpoint):
            yield Problem((*where, "address"), reason)
        for label in tag_problems(endpoint.labels):
            yield Problem((*where, "labels", *label.path), label.reason)
        for name, port in endpoint.ports.items():
            if name not in names:
                reason = f"endpoint port {port} is not defined by the service entry"
                yield Problem((*where, "ports", name), reason)
            if problem := port_problem(port):
                yield Problem((*where, "ports", name), problem)


def _address(spec: ServiceEntrySpec, endpoint: WorkloadEntrySpec) -> str | None:
    address = endpoint.address or ""
    if spec.resolution != "STATIC":
        if is_ip(address) or not host_problem(address, wildcard=False):
            return None
        return f'endpoint address "{address}" is not a valid FQDN or an IP address'
    if not address:
        return "address is required"
    if address.startswith("unix://"):
        return UNIX
    return None if is_ip(address) else f'endpoint address "{address}" is not a valid IP address'


CHECKS = (
    warned("spec.endpoints[].network", NETWORK),
    *selector(
        "spec.workloadSelector",
        "service entry: workload selector specified without labels, will be applied to all "
        "services in namespace",
    ),
    Check("", export_to),
    Check("spec", _names),
    Check("spec.ports[].name", is_dns_label, "invalid port name: {value}"),
    Check("spec.ports", _ports),
    Check("spec.ports[].number", port_problem),
    Check("spec.ports[].targetPort", lambda port: port_problem(port) if port else None),
    Check(
        "spec.ports[]",
        lambda port: bool(port.protocol),
        "without protocol Istio looks at the first bytes of a connection; the lab goes by the name "
        "of the port, and takes another for HTTP",
        "warning",
    ),
    Check("spec.ports[].protocol", _protocol),
    Check("", _addresses),
    Check(
        "spec",
        lambda spec: not spec.model_fields_set >= {"workload_selector", "endpoints"},
        "only one of WorkloadSelector or Endpoints is allowed in Service Entry",
    ),
    Check("", _resolution),
    Check("spec", _endpoints),
)

KINDS = (kind("ServiceEntry", ServiceEntry, CHECKS),)
