"""Writes docs/supported-fields.md: `python -m scripts.supported_fields`.

The page lists the fields that a check refuses or warns about, with its reason. With `--check`
nothing is written, and the status is 1 when the page is stale.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lab.kinds.kubernetes.kept_only import Declared
from lab.kinds.kubernetes.pod_spec import PodSpec
from lab.manifests import registry
from lab.resources import istio
from lab.resources.checks import fields, matches
from lab.resources.fields import model_in
from lab.resources.resource import Kind

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "supported-fields.md"
INTRODUCTION = """\
# Kinds and fields

<!-- Written by `python -m scripts.supported_fields` from lab/kinds/. -->

The kinds that the lab takes, and the fields of each that it refuses or warns about. Istio's kinds
are read in all versions that Istio {istio} serves. A field that is not listed here is read, with
Istio's meaning; one that neither is listed nor exists is refused with its line. "A warning", said
once in the life of a lab, is for what has no effect: in the lab, or, where the reason says so, in
Istio itself.
"""

Row = tuple[str, str, str]
"""A field, what becomes of it, and why."""


def page() -> str:
    """Returns the text of the page."""
    version = istio.schema()["istio"]
    introduction = INTRODUCTION.format(istio=".".join(version.split(".")[:2]))
    return introduction + "".join(_section(kind) for kind in registry.KINDS)


def _section(kind: Kind) -> str:
    versions = ", ".join(f"{kind.group}/{version}".lstrip("/") for version in kind.versions)
    template = kind.kind in ("Deployment", "StatefulSet")
    rows = sorted(_rows(kind, {PodSpec} if template else set()))
    listed = "".join(f"| `{field}` | {what} | {why} |\n" for field, what, why in rows)
    header = "| field | | why, or what instead |\n| --- | --- | --- |\n"
    parts = [f"\n### {kind.kind}\n", f"{versions}\n"]
    if template:
        parts.append("`spec.template.spec` is as in a Pod.\n")
    if kind.body is Declared:
        parts.append("Kept and printed; it changes nothing on one machine.\n")
    if rows:
        parts.append(header + listed)
    return "\n".join(parts)


def _rows(kind: Kind, seen: set[Any]) -> Iterator[Row]:
    """Yields the fields of a kind; those of a model that is used again count once."""
    models: deque[tuple[Any, str]] = deque([(kind.body, "")])
    while models:
        model, prefix = models.popleft()
        for attribute, name in () if model in seen else fields(model):
            path = f"{prefix}{name}"
            checks = [check for check in kind.checks if check.reason and matches(check.where, path)]
            for check in checks:
                yield path, "refused" if check.severity == "error" else "a warning", check.reason
            inner = model_in(model.model_fields[attribute].annotation)
            if not checks and inner is not None:
                models.append((inner[0], f"{path}{inner[1]}."))
        seen.add(model)


def main() -> int:
    """Writes the page, or with `--check` compares it; returns the exit status."""
    text = page()
    if "--check" in sys.argv[1:]:
        return int(not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text)
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
