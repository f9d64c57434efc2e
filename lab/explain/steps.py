"""What `guestbook route` answers: the steps of a request, its destinations and its outcome."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from lab.model import Json

Outcome = Literal["forwarded", "answered", "refused"]


@dataclass(frozen=True, slots=True)
class Step:
    """One thing the request meets."""

    what: str
    """listener, virtual host, route, fault, timeout, destination, authorization, ..."""
    says: str
    place: str = ""
    """`file:line` of the manifest that says so; empty for Istio's defaults."""

    def json(self) -> Json:
        return {
            "what": self.what,
            "says": self.says,
            **({"place": self.place} if self.place else {}),
        }


@dataclass(frozen=True, slots=True)
class Target:
    """A destination of a route: a cluster, its share, and the pods behind it."""

    cluster: str
    share: float
    """Of the requests, 0 to 1."""
    pods: tuple[str, ...]
    steps: tuple[Step, ...] = ()

    def json(self) -> Json:
        return {
            "cluster": self.cluster,
            "share": self.share,
            "endpoints": list(self.pods),
            "steps": [step.json() for step in self.steps],
        }


@dataclass(slots=True)
class Explanation:
    """Everything that is known about a request in advance."""

    steps: list[Step] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    mirrors: list[Target] = field(default_factory=list)
    outcome: Outcome = "forwarded"
    status: int | None = None
    """The status when a proxy answers by itself, else None."""
    virtual_host: str = ""
    route: int | None = None
    """The index of the route in its virtual host."""

    def add(self, what: str, says: str, place: object = "") -> None:
        self.steps.append(Step(what, says, str(place)))

    def extend(self, steps: Iterable[Step]) -> None:
        self.steps.extend(steps)

    def answer(self, status: int, says: str, place: object = "") -> Explanation:
        self.outcome, self.status = "answered", status
        self.add("answer", f"{status} {says}", place)
        return self

    def refuse(self, says: str, place: object = "") -> Explanation:
        self.outcome = "refused"
        self.add("answer", says, place)
        return self

    def settle(self) -> Explanation:
        """When no destination would take the request, the answer is a proxy's."""
        answers = [
            next((step.says for step in target.steps if step.what == "answer"), None)
            for target in self.targets
        ]
        if answers and all(answers):
            first = str(answers[0])[:3]
            self.outcome = "answered" if first.isdecimal() else "refused"
            self.status = int(first) if first.isdecimal() else None
        return self

    def json(self) -> Json:
        return {
            "outcome": self.outcome,
            **({"status": self.status} if self.status is not None else {}),
            "steps": [step.json() for step in self.steps],
            "targets": [target.json() for target in self.targets],
            "mirrors": [target.json() for target in self.mirrors],
        }
