"""The metrics of a running service."""

from __future__ import annotations

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.support.service import Service

HTTP_LABELS = ("method", "route", "status")


def samples(
    service: Service, name: str, labels: tuple[str, ...] = HTTP_LABELS
) -> dict[tuple[str, ...], float]:
    """The samples of a metric by the values of these labels."""
    text = httpx.get(f"{service.management}/metrics", trust_env=False).text
    return {
        tuple(sample.labels[label] for label in labels): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }
