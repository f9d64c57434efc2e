"""Mutual TLS that one side sends and the other does not take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lab.explain import mutual_tls
from lab.explain.analyze.finding import LAB, Finding, about
from lab.model import Snapshot


def conflicts(snapshot: Snapshot) -> Iterator[Finding]:
    """Yields rules by which requests to a host fail, one for each rule, policy and host."""
    told = set()
    for found in mutual_tls.conflicts(snapshot):
        key = found.host, found.rule.at(), found.policy.at()
        resource = found.origin.resource
        if key in told or resource is None:
            continue
        told.add(key)
        finding = about(LAB, resource, f"{found.failure}.", *found.origin.path)
        yield replace(finding, also=mutual_tls.name(found.policy))
