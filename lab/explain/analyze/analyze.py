"""All analyses of a mesh, and those that an `apply` warns of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from lab.explain.analyze import (
    annotation,
    deployments,
    destination_rules,
    envoy_filters,
    gateways,
    mutual_tls,
    namespaces,
    providers,
    remarks,
    service_entries,
    services,
    virtual_services,
    workloads,
)
from lab.explain.analyze.finding import LAB, LEVELS, Finding
from lab.model import Snapshot
from lab.resources.resource import Resource

ANALYSES: tuple[Callable[[Snapshot], Iterable[Finding]], ...] = (
    annotation.of_objects,
    deployments.ports,
    deployments.users,
    destination_rules.targets,
    destination_rules.unverified,
    envoy_filters.operations,
    gateways.certificates,
    gateways.conflicts,
    gateways.references,
    mutual_tls.conflicts,
    namespaces.injection,
    namespaces.without_proxy,
    providers.missing,
    remarks.deprecated,
    remarks.warnings,
    service_entries.addresses,
    service_entries.conflicts,
    services.port_names,
    virtual_services.claims,
    virtual_services.conflicts,
    virtual_services.destinations,
    virtual_services.gateways,
    virtual_services.misspelt,
    virtual_services.unreachable,
    virtual_services.without_subset,
    workloads.conflicts,
    workloads.namespaces,
    workloads.policies,
    workloads.selectors,
)

AT_APPLY = ("IST0101", "IST0162", "IST0109", "IST0110", "IST0127", "IST0132", "IST0174", LAB)
"""Codes of which `apply` warns.

IST0173 is not among them: a subset comes before its pods, so that no request goes astray.
"""


def analyze(snapshot: Snapshot) -> list[Finding]:
    """Returns all findings, errors first, each once."""
    found = dict.fromkeys(finding for each in ANALYSES for finding in each(snapshot))
    return sorted(found, key=_order)


def _order(finding: Finding) -> tuple[int, str, str, str, str, str]:
    """Returns the place of a finding among others, which is istioctl's."""
    name = finding.kind, finding.name, finding.namespace
    return (LEVELS.index(finding.level), finding.code, *name, finding.line())


def at_apply(snapshot: Snapshot, applied: Sequence[Resource]) -> Iterator[str]:
    """Yields warnings about resources that were just applied."""
    origins = {f"{item.kind} {item.namespace}/{item.name}" for item in applied}
    for finding in analyze(snapshot):
        if finding.code in AT_APPLY and not origins.isdisjoint((finding.origin, finding.also)):
            place = f"{finding.place}: " if finding.place else ""
            yield f"{place}{finding.kind} {finding.name}: {finding.text} [{finding.code}]"
