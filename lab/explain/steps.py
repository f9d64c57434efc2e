"""The explanation of a request: its steps, its destinations and its outcome."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Literal

from lab.model import Json
from lab.resources.resource import Origin

Outcome = Literal["forwarded", "answered", "refused"]


@dataclass(frozen=True, slots=True)
class Step:
    """One part of the configuration that a request meets."""

    what: str
    """listener, virtual host, route, fault, timeout, destination, authorization, ..."""
    says: str
    place: str = ""
    """`file:line` of the manifest it comes from; empty for Istio's defaults."""

    def json(self) -> Json:
        return {key: value for key, value in asdict(self).items() if value}


@dataclass(frozen=True, slots=True)
class Target:
    """A destination of a route: a cluster, its share of the requests and its endpoints."""

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
    """The answer to `guestbook route`."""

    steps: list[Step] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    mirrors: list[Target] = field(default_factory=list)
    outcome: Outcome = "forwarded"
    status: int | None = None
    """The status when a proxy answers by itself, else None."""
    virtual_host: str = ""
    rule: Origin = field(default_factory=Origin)
    """The place of the route's rule in its VirtualService, or of what stands for one."""

    def add(self, what: str, says: str, place: object = "") -> None:
        self.steps.append(Step(what, says, str(place)))

    def answer(self, says: str, place: object = "", *, status: int | None = None) -> Explanation:
        """Ends the request with a proxy's answer, or without a status with a closed connection."""
        self.outcome, self.status = "refused" if status is None else "answered", status
        self.add("answer", says if status is None else f"{status} {says}", place)
        return self

    def settle(self) -> Explanation:
        """Makes the first answer the outcome when a destination's share answers by itself."""
        answers = [
            step.says
            for target in self.targets
            if target.share
            for step in target.steps
            if step.what == "answer"
        ]
        if answers:
            first = answers[0][:3]
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
