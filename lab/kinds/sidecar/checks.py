"""Checks of a Sidecar: istiod's validation beyond the schema, and the lab's limits."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from lab.kinds.destination_rule.checks import CONNECTION_POOL
from lab.kinds.selection import selector
from lab.kinds.sidecar.types import kind
from lab.resources.checks import refused, warned
from lab.resources.resource import Check, Problem, Resource
from lab.resources.values import listed_host_problems


def _hosts(sidecar: Resource) -> Iterator[Problem]:
    for index, listener in enumerate(sidecar.spec.egress):
        seen: dict[str, set[str]] = {}
        for position, host in enumerate(listener.hosts):
            namespace, slash, name = host.partition("/")
            if not slash or namespace.startswith("~"):
                continue
            names = seen.setdefault(sidecar.namespace if namespace == "." else namespace, set())
            if names if name == "*" else names & {name, "*"}:
                where = ("spec", "egress", index, "hosts", position)
                yield Problem(where, f"duplicated egress host: {host}", "warning")
            names.add(name)
        if "*" in seen.get("*", ()) and len(seen) > 1:
            reason = "`*/*` host select all resources, no other hosts can be added"
            yield Problem(("spec", "egress", index, "hosts"), reason, "warning")


CHECKS = (
    refused("spec.egress[].port", "listeners for one port; list the hosts only"),
    refused("spec.egress[].bind", "listeners for one address; list the hosts only"),
    refused("spec.egress[].captureMode", "there are no iptables in the lab to choose from"),
    refused("spec.outboundTrafficPolicy.egressProxy", "an egress proxy for unknown destinations"),
    refused(
        "spec.ingress",
        "inbound listeners of one's own; those of the pod's Services are generated",
    ),
    Check(
        "spec",
        lambda spec: (
            bool(spec.egress or spec.ingress or spec.inbound_connection_pool)
            or spec.outbound_traffic_policy is not None
        ),
        "sidecar: empty configuration provided",
    ),
    *selector(
        "spec.workloadSelector",
        "sidecar: workload selector specified without labels, will be applied to all services in "
        "namespace",
    ),
    *CONNECTION_POOL,
    warned(
        "spec.inboundConnectionPool.http.h2UpgradePolicy",
        "the lab remarks: a client's connections are upgraded, not a server's, so it has no effect",
    ),
    Check("spec.egress[].hosts", bool, "sidecar: egress listener must contain at least one host"),
    Check("spec.egress[].hosts[]", functools.partial(listed_host_problems, gateway=False)),
    Check("", _hosts),
    Check(
        "spec.egress",
        lambda listeners: len(listeners) <= 1,
        "sidecar: the egress listener with empty port should be the last listener in the list",
    ),
)

KINDS = (kind(CHECKS),)
