"""Checks of the selector that the security and telemetry kinds have in common."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lab.resources.checks import refused
from lab.resources.resource import Check, Problem

_TARGET_REFS = (
    "it attaches a policy to a Gateway API gateway or a waypoint, which the lab doesn't have; "
    "select the pods with selector.matchLabels"
)
TARGET_REFS = refused("spec.targetRef|targetRefs", _TARGET_REFS)


def _one_attachment(spec: Any) -> bool:
    attachments = [spec.selector, spec.target_ref, spec.target_refs or None]
    return sum(attachment is not None for attachment in attachments) <= 1


def _labels(labels: dict[str, str]) -> Iterator[Problem]:
    for key, value in labels.items():
        if not key:
            yield Problem((), f'empty key is not supported in selector: "{key}={value}"')
        if "*" in key or "*" in value:
            yield Problem((key,), f'wildcard is not supported in selector: "{key}={value}"')


SELECTOR = (
    Check("spec.selector.matchLabels", _labels),
    Check(
        "spec.selector",
        lambda selector: bool(selector.match_labels),
        "workload selector specified without labels",
        "warning",
    ),
)
SELECTION = (
    TARGET_REFS,
    Check("spec", _one_attachment, "only one of targetRefs or selector can be set"),
    *SELECTOR,
)
