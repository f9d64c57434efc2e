"""All analyses of a mesh, and those that an `apply` warns of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

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
from lab.explain.analyze.finding import LAB, LEVELS, Finding, origin
from lab.model import Pod, Service, Snapshot
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
    providers.unknown,
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

IST0173 is not among them: a subset comes before its pods, so that no request goes astray. Of a
finding that is certain `apply` warns in any case.
"""


_SUPPRESS = "galley.istio.io/analyze-suppress"


def analyze(snapshot: Snapshot) -> list[Finding]:
    """Returns all findings, errors first, each once, but for those that an object suppresses."""
    return _findings(snapshot, ANALYSES)


def _findings(
    snapshot: Snapshot, analyses: Iterable[Callable[[Snapshot], Iterable[Finding]]]
) -> list[Finding]:
    suppressed = dict(_suppressed(snapshot))
    found = {
        finding: None
        for each in analyses
        for finding in each(snapshot)
        if suppressed.get(finding.origin, frozenset()).isdisjoint((finding.code, "*"))
    }
    return sorted(found, key=_order)


def _suppressed(snapshot: Snapshot) -> Iterator[tuple[str, frozenset[str]]]:
    """Yields each object with an annotation that suppresses findings, and their codes."""
    for kind, found in snapshot.config.items():
        yield from _codes(kind, found)
    yield from _codes("Service", snapshot.services)
    yield from _codes("Pod", snapshot.pods)


def _codes(
    kind: str, items: Iterable[Resource | Service | Pod]
) -> Iterator[tuple[str, frozenset[str]]]:
    for item in items:
        if codes := item.annotations.get(_SUPPRESS):
            yield origin(kind, item.namespace, item.name), frozenset(codes.split(","))


def _order(finding: Finding) -> tuple[int, str, str, str, str, str]:
    """Returns the place of a finding among others, which is istioctl's."""
    name = finding.kind, finding.name, finding.namespace
    return (LEVELS.index(finding.level), finding.code, *name, finding.line())


def at_apply(snapshot: Snapshot, applied: Sequence[Resource]) -> Iterator[str]:
    """Yields warnings about resources that were just applied, with their places of that moment."""
    given = {origin(item.kind, item.namespace, item.name): item.source for item in applied}
    config = {
        kind: tuple(
            replace(item, source=given.get(origin(kind, item.namespace, item.name), item.source))
            for item in items
        )
        for kind, items in snapshot.config.items()
    }
    # `apply` gives the remarks of the webhook by itself.
    analyses = (each for each in ANALYSES if each is not remarks.warnings)
    for finding in _findings(replace(snapshot, config=config), analyses):
        told = finding.certain or finding.code in AT_APPLY
        if told and not given.keys().isdisjoint((finding.origin, finding.also)):
            place = f"{finding.place}: " if finding.place else ""
            yield f"{place}{finding.kind} {finding.name}: {finding.text} [{finding.code}]"
