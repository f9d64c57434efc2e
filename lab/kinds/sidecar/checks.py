"""Checks of a Sidecar: istiod's validation beyond the schema, and the lab's limits."""

from __future__ import annotations

from collections.abc import Iterator

from lab.kinds.destination_rule.checks import CONNECTION_POOL
from lab.kinds.sidecar.types import kind
from lab.resources.checks import never, refused
from lab.resources.resource import Check, Problem
from lab.resources.values import is_dns_label, listed_host_problems


def _host(host: str) -> Iterator[Problem]:
    namespace, slash, name = host.partition("/")
    if not slash:
        yield Problem((), f'host must be of form namespace/dnsName, found "{host}"')
        return
    if namespace not in ("*", ".", "~") and not is_dns_label(namespace):
        yield Problem((), f'namespace "{namespace}" in host "{host}" is invalid')
    yield from (Problem((), problem) for problem in listed_host_problems(name))


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
        "sidecar: empty configuration provided. Please provide ingress or egress",
    ),
    *CONNECTION_POOL,
    Check(
        "spec.inboundConnectionPool.http.h2UpgradePolicy",
        never,
        "a client's connections are upgraded, not a server's: no effect here",
        "warning",
    ),
    Check("spec.egress[].hosts", bool, "sidecar: egress listener must contain at least one host"),
    Check("spec.egress[].hosts[]", _host),
    Check(
        "spec.egress",
        lambda listeners: len(listeners) <= 1,
        "sidecar: egress listeners without a port: there can be only one",
    ),
)

KINDS = (kind(CHECKS),)
