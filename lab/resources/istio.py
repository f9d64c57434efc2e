"""The schema of Istio's CRDs, and the names that it gives the kinds."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from lab.resources.resource import Check, Kind, Model


@functools.cache
def schema() -> dict[str, Any]:
    """Returns `istio.json`: the version of Istio, and each kind with its names and its schema."""
    text = Path(__file__).with_name("istio.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def kind(name: str, body: type[Model], checks: tuple[Check, ...]) -> Kind:
    """Returns a kind of Istio's with its names and versions."""
    found = schema()["kinds"][name]
    versions, short = tuple(found["versions"]), tuple(found["shortNames"])
    return Kind(found["group"], name, found["plural"], versions, body, short, checks=checks)
