"""Writes what the lab supports into docs/lab.md: `python -m lab.manifests.supported_fields`.

It is read from the models, in which a field is declared to be refused or without effect, with the
reason. With `--check` nothing is written, and the status is 1 when the page is stale.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from lab.kinds.kubernetes.pod_spec import PodSpec
from lab.manifests import registry
from lab.resources.resource import Kind

PAGE = Path(__file__).parents[2] / "docs" / "lab.md"
BEGIN = "<!-- Written by `python -m lab.manifests.supported_fields` from lab/kinds/. -->\n"
END = "<!-- End of what is written. -->\n"

Row = tuple[str, str, str]
"""A field, what becomes of it, and why."""


def page(text: str) -> str:
    """The page with its list of kinds and fields as the models say. Raises ValueError when the
    page has no place for it."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no place for the list: {BEGIN.strip()} ... {END.strip()}")
    return before + begin + "".join(_section(kind) for kind in registry.KINDS) + end + after


def _section(kind: Kind) -> str:
    versions = ", ".join(f"{kind.group}/{version}".lstrip("/") for version in kind.versions)
    template = kind.body.__name__ in ("Deployment", "StatefulSet")
    rows = list(dict.fromkeys(_rows(kind.body, "", {PodSpec} if template else set())))
    listed = "".join(f"| `{field}` | {what} | {why} |\n" for field, what, why in rows)
    header = "| field | | why, or what instead |\n| --- | --- | --- |\n"
    parts = [f"\n### {kind.kind}\n", f"{versions}\n"]
    if template:
        parts.append("`spec.template.spec` is as in a Pod.\n")
    if not _typed(kind):
        parts.append("Kept and printed; it changes nothing on one machine.\n")
    if rows:
        parts.append(header + listed)
    return "\n".join(parts)


def _typed(kind: Kind) -> bool:
    """Whether the lab looks into a kind, and does not only keep it."""
    return kind.body.__name__ == kind.kind


def _rows(model: Any, prefix: str, seen: set[Any]) -> Iterator[Row]:
    """The fields of a model and those below it; a model that is met again is left out."""
    seen.add(model)
    for name, info in model.model_fields.items():
        path = f"{prefix}{info.alias or name}"
        extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
        if "refused" in extra:
            yield path, "refused", str(extra["refused"])
            continue
        if "ignored" in extra:
            yield path, "a warning", str(extra.get("reason") or extra["ignored"])
            continue
        inner, several = _inside(info.annotation)
        if inner is not None and inner not in seen:
            yield from _rows(inner, f"{path}{several}.", seen)


def _inside(annotation: Any) -> tuple[Any, str]:
    """The model in an annotation such as `list[Model] | None`, and `[]` when it is a list."""
    if isinstance(annotation, type) and hasattr(annotation, "model_fields"):
        return annotation, ""
    for argument in get_args(annotation):
        inner, several = _inside(argument)
        if inner is not None:
            return inner, "[]" if getattr(annotation, "__origin__", None) is list else several
    return None, ""


def main() -> int:
    """Write the page, or with `--check` compare it; the exit status."""
    text = PAGE.read_text(encoding="utf-8")
    wanted = page(text)
    if "--check" in sys.argv[1:]:
        return int(text != wanted)
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
