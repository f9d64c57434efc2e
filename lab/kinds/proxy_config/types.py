"""ProxyConfig: types of the API of Istio.

Written by `python -m scripts.istio_schema` from lab/resources/istio.json.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lab.kinds.types import LabelSelector
from lab.resources.resource import Model
from lab.resources.values import Int32


class Image(Model):
    image_type: str | None = None


class ProxyConfigSpec(Model):
    concurrency: Int32 | None = None
    environment_variables: dict[str, Annotated[str, Field(max_length=2048)]] = Field(
        default_factory=dict
    )
    image: Image | None = None
    selector: LabelSelector | None = None


class ProxyConfig(Model):
    spec: ProxyConfigSpec = ProxyConfigSpec()
