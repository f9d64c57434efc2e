"""ServiceEntry: types of the API of Istio.

Written by `python -m scripts.istio_schema` from lab/resources/istio.json.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lab.kinds.types import WorkloadEntrySpec, WorkloadSelector
from lab.resources.resource import Model
from lab.resources.values import Unsigned


class ServiceEntryPort(Model):
    name: Annotated[str, Field(max_length=256)]
    number: Unsigned
    protocol: Annotated[str, Field(max_length=256)] | None = None
    target_port: Unsigned | None = None


class ServiceEntrySpec(Model):
    addresses: list[Annotated[str, Field(max_length=64)]] = Field(
        default_factory=list, max_length=256
    )
    endpoints: list[WorkloadEntrySpec] = Field(default_factory=list, max_length=4096)
    export_to: list[str] | None = None
    hosts: list[str] = Field(min_length=1, max_length=256)
    location: Literal["MESH_EXTERNAL", "MESH_INTERNAL"] = "MESH_EXTERNAL"
    ports: list[ServiceEntryPort] = Field(default_factory=list, max_length=256)
    resolution: Literal["NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS"] = "NONE"
    subject_alt_names: list[str] = Field(default_factory=list)
    workload_selector: WorkloadSelector | None = None


class ServiceEntry(Model):
    spec: ServiceEntrySpec
