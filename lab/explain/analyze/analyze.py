"""All analyses of a mesh, and those that an `apply` warns of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from lab.explain.analyze import (
    destination_rules,
    mutual_tls,
    namespaces,
    virtual_services,
    workloads,
)
from lab.explain.analyze.finding import LAB, Finding
from lab.model import Snapshot
from lab.resources.resource import Resource

ANALYSES: tuple[Callable[[Snapshot], Iterable[Finding]], ...] = (
    virtual_services.destinations,
    virtual_services.gateways,
    virtual_services.conflicts,
    virtual_services.unreachable,
    virtual_services.misspelt,
    destination_rules.targets,
    destination_rules.unverified,
    mutual_tls.conflicts,
    workloads.gateways,
    workloads.policies,
    workloads.namespaces,
    workloads.sidecars,
    workloads.selectors,
    namespaces.injection,
    namespaces.without_proxy,
    workloads.port_names,
)

_ORDER = ("Error", "Warning", "Info")

AT_APPLY = ("IST0101", "IST0162", "IST0109", "IST0110", "IST0127", "IST0132", "IST0174", LAB)
"""Codes of which `apply` warns.

IST0173 is not among them: a subset comes before its pods, so that no request goes astray.
"""


def analyze(snapshot: Snapshot) -> list[Finding]:
    """Returns all findings, errors first, each once."""
    found = dict.fromkeys(finding for each in ANALYSES for finding in each(snapshot))
    return sorted(found, key=lambda one: (_ORDER.index(one.level), one.code, one.place))


def at_apply(snapshot: Snapshot, applied: Sequence[Resource]) -> Iterator[str]:
    """Yields warnings about resources that were just applied."""
    origins = {f"{item.kind} {item.namespace}/{item.name}" for item in applied}
    for finding in analyze(snapshot):
        if finding.code in AT_APPLY and not origins.isdisjoint((finding.origin, finding.also)):
            place = f"{finding.place}: " if finding.place else ""
            yield f"{place}{finding.kind} {finding.name}: {finding.text} [{finding.code}]"
