"""Endpoints and EndpointSlice: addresses that a manifest gives a Service."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from pydantic import Field

from lab.kinds.kubernetes.pod_spec import HostName, Port, PortName
from lab.model import WrittenEndpoint
from lab.resources.fields import declared, inert
from lab.resources.resource import Check, Kind, Model, Problem, Resource
from lab.resources.values import duplicates

SERVICE_NAME = "kubernetes.io/service-name"
"""The label of an EndpointSlice that names its Service."""

MANAGED_BY = {
    "Endpoints": "endpoints.kubernetes.io/managed-by",
    "EndpointSlice": "endpointslice.kubernetes.io/managed-by",
}
"""The label of objects that a controller writes, by kind."""

_BY_ADDRESS = "the lab knows a pod by its address"
_ONE_PLACE = "the lab has one node"


class EndpointPort(Model):
    port: Port
    name: PortName = ""
    protocol: Literal["TCP"] = "TCP"
    app_protocol: str | None = inert("the Service's own counts")


class EndpointAddress(Model):
    ip: str
    hostname: HostName | None = None
    target_ref: dict[str, Any] | None = inert(_BY_ADDRESS)
    node_name: str | None = inert(_ONE_PLACE)


class EndpointSubset(Model):
    addresses: list[EndpointAddress] = Field(default_factory=list)
    not_ready_addresses: list[EndpointAddress] = Field(default_factory=list)
    ports: list[EndpointPort] = Field(default_factory=list)


class Endpoints(Model):
    subsets: list[EndpointSubset] = Field(default_factory=list)


class Conditions(Model):
    ready: bool | None = None
    serving: bool | None = inert("an endpoint is used when it is ready")
    terminating: bool | None = None


class SliceEndpoint(Model):
    addresses: list[str] = Field(min_length=1)
    conditions: Conditions = Field(default_factory=Conditions)
    hostname: HostName | None = None
    target_ref: dict[str, Any] | None = inert(_BY_ADDRESS)
    node_name: str | None = inert(_ONE_PLACE)
    zone: str | None = inert(_ONE_PLACE)
    hints: dict[str, Any] | None = inert(_ONE_PLACE)


class SlicePort(Model):
    port: Port
    name: PortName | None = None
    protocol: Literal["TCP"] | None = None
    app_protocol: str | None = inert("the Service's own counts")


class EndpointSlice(Model):
    address_type: Literal["IPv4", "IPv6", "FQDN"]
    endpoints: list[SliceEndpoint] = Field(default_factory=list)
    ports: list[SlicePort] = Field(default_factory=list)


def _address(text: str) -> str | None:
    """Returns the reason why an address can't be an endpoint's, mostly the API server's."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return f'"{text}" is no IP address; a name goes into a Service of type ExternalName'
    if found.version == 6:
        return "the lab has IPv4 only"
    if found.is_loopback:
        return "may not be in the loopback range (127.0.0.0/8); 10.244.0.2 is this machine's"
    if found.is_unspecified:
        return "may not be unspecified (0.0.0.0)"
    if found.is_link_local:
        return "may not be in the link-local range (169.254.0.0/16)"
    if found.is_multicast:
        return "may not be a multicast address"
    return None


def _subset(subset: EndpointSubset) -> Iterator[Problem]:
    if not subset.addresses and not subset.not_ready_addresses:
        yield Problem((), "must specify `addresses` or `notReadyAddresses`")
    yield from _ports(subset.ports)


def _ports(ports: list[EndpointPort] | list[SlicePort]) -> Iterator[Problem]:
    if len(ports) > 1 and any(not port.name for port in ports):
        yield Problem(("ports",), "with several ports each needs a name")
    for index, name in duplicates(port.name or "" for port in ports):
        if name:
            yield Problem(("ports", index, "name"), f'"{name}" is used twice')


def _slice(resource: Resource) -> Iterator[Problem]:
    body: EndpointSlice = resource.body
    if not resource.labels.get(SERVICE_NAME):
        reason = f"no effect: without the label {SERVICE_NAME} it is of no Service"
        yield Problem(("metadata", "labels"), reason, "warning")
    if body.address_type == "IPv6":
        yield Problem(("addressType",), "the lab has IPv4 only")
        return
    if body.address_type == "FQDN":
        reason = "kube-proxy and istiod leave names alone; use a Service of type ExternalName"
        yield Problem(("addressType",), reason)
        return
    yield from _ports(body.ports)
    for index, endpoint in enumerate(body.endpoints):
        if len(endpoint.addresses) > 1:
            reason = "of several addresses kube-proxy takes the first alone: write an endpoint each"
            yield Problem(("endpoints", index, "addresses"), reason)
        for number, address in enumerate(endpoint.addresses):
            if problem := _address(address):
                yield Problem(("endpoints", index, "addresses", number), problem)


def written(service: Resource, resources: Iterable[Resource]) -> tuple[WrittenEndpoint, ...]:
    """Returns the endpoints that Endpoints and EndpointSlices give a Service.

    The Endpoints of a Service with a selector are Kubernetes' own, and a written one is lost.
    """
    found: dict[tuple[str, str], WrittenEndpoint] = {}
    for resource in resources:
        if resource.namespace != service.namespace:
            continue
        if resource.kind == "Endpoints":
            own = resource.name == service.name and not service.spec.selector
            places = _of_endpoints(resource.body) if own else ()
        else:
            own = resource.labels.get(SERVICE_NAME) == service.name
            places = _of_slice(resource.body) if own else ()
        for place in places:
            found.setdefault((place.address, place.port_name), place)
    return tuple(found.values())


def _of_endpoints(body: Endpoints) -> Iterator[WrittenEndpoint]:
    for subset in body.subsets:
        for ready, addresses in ((True, subset.addresses), (False, subset.not_ready_addresses)):
            for address in addresses:
                for port in subset.ports:
                    name = address.hostname or ""
                    yield WrittenEndpoint(
                        address.ip, port.port, port.name, name, ready=ready, ending=not ready
                    )


def _of_slice(body: EndpointSlice) -> Iterator[WrittenEndpoint]:
    for endpoint in body.endpoints:
        ready = endpoint.conditions.ready is not False
        ending = not ready and endpoint.conditions.terminating is not False
        for address in endpoint.addresses:
            for port in body.ports:
                name = endpoint.hostname or ""
                yield WrittenEndpoint(
                    address, port.port, port.name or "", name, ready=ready, ending=ending
                )


KINDS: tuple[Kind, ...] = (
    Kind(
        "",
        "Endpoints",
        "endpoints",
        ("v1",),
        Endpoints,
        ("ep",),
        checks=(
            *declared(Endpoints),
            Check("subsets[]", _subset),
            Check("subsets[].addresses[].ip", _address),
            Check("subsets[].notReadyAddresses[].ip", _address),
        ),
    ),
    Kind(
        "discovery.k8s.io",
        "EndpointSlice",
        "endpointslices",
        ("v1",),
        EndpointSlice,
        checks=(*declared(EndpointSlice), Check("", _slice)),
    ),
)
