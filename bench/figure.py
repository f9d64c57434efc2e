"""One measured ratio, and what it should be."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """A value beside its reference, measured in the same run."""

    name: str
    value: float
    reference: float
    unit: str
    at_least: float | None = None
    """The least good ratio of value to reference."""
    at_most: float | None = None

    @property
    def ratio(self) -> float:
        return self.value / self.reference

    @property
    def good(self) -> bool:
        low = self.at_least is None or self.ratio >= self.at_least
        return low and (self.at_most is None or self.ratio <= self.at_most)

    @property
    def goal(self) -> str:
        parts = []
        if self.at_least is not None:
            parts.append(f"at least {self.at_least:g}")
        if self.at_most is not None:
            parts.append(f"at most {self.at_most:g}")
        return ", ".join(parts)
