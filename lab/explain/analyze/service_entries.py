"""ServiceEntries: addresses that are missing, and protocols in conflict."""

from __future__ import annotations

from collections.abc import Iterator

from lab.explain.analyze.finding import Finding, about
from lab.explain.analyze.hosts import scopes
from lab.kinds.service_entry.checks import without_address
from lab.model import Snapshot
from lab.resources.resource import Resource


def addresses(snapshot: Snapshot) -> Iterator[Finding]:
    """Yields TCP ports of hosts without an address of their own (IST0134)."""
    for entry in snapshot.of("ServiceEntry"):
        for index, port in enumerate(entry.spec.ports if without_address(entry) else ()):
            if (port.protocol or "TCP").upper() == "TCP":
                text = "ServiceEntry addresses are required for this protocol."
                yield about("IST0134", entry, text, "spec", "ports", index)


def conflicts(snapshot: Snapshot) -> Iterator[Finding]:
    """Yields entries that give a port of one host different protocols (IST0177)."""
    scoped: dict[tuple[str, str, int], list[tuple[Resource, str]]] = {}
    for entry in snapshot.of("ServiceEntry"):
        for scope in scopes(entry):
            for host in entry.spec.hosts:
                for port in entry.spec.ports:
                    key = scope, host, port.number
                    scoped.setdefault(key, []).append((entry, (port.protocol or "").upper()))
    reported: set[tuple[str, str]] = set()
    for (scope, host, number), own in scoped.items():
        found = own if scope == "*" else [*own, *scoped.get(("*", host, number), ())]
        protocols = sorted({protocol for _, protocol in found})
        listed = ", ".join(sorted({f"{entry.namespace}/{entry.name}" for entry, _ in found}))
        for entry, _ in found if len(protocols) > 1 else ():
            if (entry.namespace, entry.name) not in reported:
                reported.add((entry.namespace, entry.name))
                text = (
                    f'Multiple ServiceEntries ({listed}) define the same host "{host}" and port '
                    f"{number} with conflicting protocols ({', '.join(protocols)})."
                )
                yield about("IST0177", entry, text, "metadata", "name")
