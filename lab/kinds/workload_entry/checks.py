"""Checks of a WorkloadEntry, and of the endpoints of a ServiceEntry, which have the same fields."""

from __future__ import annotations

from collections.abc import Iterator

from lab.kinds.types import WorkloadEntrySpec
from lab.kinds.workload_entry.types import WorkloadEntry
from lab.resources.checks import warned
from lab.resources.istio import kind
from lab.resources.resource import Check, Problem
from lab.resources.values import host_problem, is_dns_label, is_ip, port_problem, tag_problems


def _entry(spec: WorkloadEntrySpec) -> Iterator[Problem]:
    address = spec.address or ""
    if not address:
        reason = "not supported by the lab: an entry of another network without an address"
        yield Problem(("address",), reason if spec.network else "address is required")
    elif address.startswith("unix://"):
        yield Problem(("address",), UNIX)
    elif not is_ip(address) and host_problem(address, wildcard=False):
        reason = f'endpoint address "{address}" is not a valid FQDN or an IP address'
        yield Problem(("address",), reason)
    for name, port in spec.ports.items():
        if not is_dns_label(name):
            yield Problem(("ports", name), f"invalid port name: {name}")
        if problem := port_problem(port):
            yield Problem(("ports", name), problem)
    for label in tag_problems(spec.labels):
        yield Problem(("labels", *label.path), label.reason)


UNIX = "not supported by the lab: unix domain sockets"
NETWORK = "the lab is one network: it is a label of the endpoint and nothing else"

CHECKS = (warned("spec.network", NETWORK), Check("spec", _entry))

KINDS = (kind("WorkloadEntry", WorkloadEntry, CHECKS),)
