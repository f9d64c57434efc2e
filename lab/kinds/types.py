"""Types of several kinds of the API of Istio.

Written by `python -m scripts.istio_schema` from lab/resources/istio.json.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lab.resources.resource import Model
from lab.resources.values import Unsigned


class LabelSelector(Model):
    match_labels: dict[str, Annotated[str, Field(max_length=63)]] = Field(
        default_factory=dict, max_length=4096
    )


class PortSelector(Model):
    number: Unsigned = 0


class WorkloadSelector(Model):
    labels: dict[str, Annotated[str, Field(max_length=63)]] = Field(
        default_factory=dict, max_length=256
    )


class Destination(Model):
    host: str
    port: PortSelector | None = None
    subset: str | None = None
