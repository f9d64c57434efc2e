"""Checks of a Telemetry: istiod's validation beyond the schema, and the lab's limits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lab.kinds.selection import SELECTION
from lab.kinds.telemetry.types import Telemetry
from lab.resources.checks import refused
from lab.resources.istio import kind
from lab.resources.resource import Check, Problem


def _tag_names(tags: dict[str, Any]) -> Iterator[Problem]:
    if "" in tags:
        yield Problem(("",), "tag name may not be empty")


CHECKS = (
    refused(
        "spec.metrics",
        "the lab makes Istio's metrics without the filter istio.stats, which would take this",
    ),
    *SELECTION,
    Check(
        "spec.tracing",
        lambda tracing: len(tracing) <= 1,
        "multiple tracing is not currently supported",
        "warning",
    ),
    Check(
        "spec.tracing[].providers",
        lambda providers: len(providers) <= 1,
        "multiple providers is not currently supported",
        "warning",
    ),
    Check("spec.tracing[].customTags", _tag_names),
)

KINDS = (kind("Telemetry", Telemetry, CHECKS),)
