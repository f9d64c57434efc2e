"""The ways of a message pod to misbehave; the exercises need one sick replica among several."""

import random
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.json_schema import WithJsonSchema

_STATUS = {"anyOf": [{"const": 200}, {"type": "integer", "minimum": 400, "maximum": 599}]}


def _status(value: int) -> int:
    if value != 200 and not 400 <= value <= 599:
        raise ValueError("it must be 200 or from 400 to 599")
    return value


class Misbehaviour(BaseModel):
    """The parameters of `/misbehave`. Without any, every greeting is refused with a 503."""

    # FastAPI reads it at once, in parts; `start` defers the others.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=False)

    status: Annotated[int, AfterValidator(_status), WithJsonSchema(_STATUS)] = Field(
        503, description="Status of the answer: 200 (with a delay: a slow pod) or 400 to 599."
    )
    percent: float = Field(
        100, gt=0, le=100, description="Share of the requests that misbehave, at random."
    )
    delay: float = Field(
        0, ge=0, le=300, description="Seconds a misbehaving request waits before its answer."
    )
    duration: float | None = Field(
        None,
        alias="for",
        gt=0,
        le=86400,
        description="Seconds until the pod behaves again by itself; without it, until `/behave`.",
    )

    def strikes(self) -> bool:
        """Whether this request is one of the misbehaving ones."""
        return random.random() * 100 < self.percent  # noqa: S311

    def __str__(self) -> str:
        """Describes the next answer, for the answer of `/misbehave`."""
        text = f"return a {self.status}"
        if self.percent != 100:
            text += f" in {self.percent:g}% of cases"
        if self.delay:
            text += f" after {self.delay:g}s"
        if self.duration is not None:
            text += f" during the next {self.duration:g}s"
        return text
