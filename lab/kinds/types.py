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


class WorkloadEntrySpec(Model):
    address: Annotated[str, Field(max_length=256)] | None = None
    labels: dict[str, str] = Field(default_factory=dict, max_length=256)
    locality: Annotated[str, Field(max_length=2048)] | None = None
    network: Annotated[str, Field(max_length=2048)] | None = None
    ports: dict[str, Unsigned] = Field(default_factory=dict, max_length=128)
    service_account: Annotated[str, Field(max_length=253)] | None = None
    weight: Unsigned | None = None


class Destination(Model):
    host: str
    port: PortSelector | None = None
    subset: str | None = None
