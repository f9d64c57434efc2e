"""What the typed Kubernetes kinds share: the base, fields without effect, label selectors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import ConfigDict, Field

from lab.resources.istio import field_problems
from lab.resources.resource import Model, Path, Problem


class KubernetesModel(Model):
    """Kubernetes' JSON has camelCase names only."""

    model_config = ConfigDict(populate_by_name=False, validate_by_alias=True)


INERT = "no effect"


def inert(reason: str) -> Any:
    """A field the lab accepts and does nothing with, and why; `docs/lab.md` lists them."""
    return Field(default=None, json_schema_extra={"ignored": INERT, "reason": reason})


class LabelSelector(KubernetesModel):
    match_labels: dict[str, str] | None = None

    def matches(self, labels: dict[str, str]) -> bool:
        return all(labels.get(key) == value for key, value in (self.match_labels or {}).items())


def spec_problems(value: object, path: Path) -> Iterator[Problem]:
    """The refused fields, and one warning for all those without effect."""
    silent: dict[str, None] = {}
    for problem in field_problems(value, path):
        if problem.severity == "warning" and problem.reason == INERT:
            silent[str(problem.path[-1])] = None
        else:
            yield problem
    if silent:
        yield Problem((), f"no effect in the lab (see docs/lab.md): {', '.join(silent)}", "warning")
