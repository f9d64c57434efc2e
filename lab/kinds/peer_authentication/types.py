"""PeerAuthentication: types of the API of Istio.

Written by `python -m scripts.istio_schema` from lab/resources/istio.json.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lab.kinds.types import LabelSelector
from lab.resources.resource import Model
from lab.resources.values import PortKey


class MutualTLS(Model):
    mode: Literal["UNSET", "DISABLE", "PERMISSIVE", "STRICT"] | None = None


class PeerAuthenticationSpec(Model):
    mtls: MutualTLS | None = None
    port_level_mtls: dict[PortKey, MutualTLS] | None = Field(default=None, min_length=1)
    selector: LabelSelector | None = None


class PeerAuthentication(Model):
    spec: PeerAuthenticationSpec = PeerAuthenticationSpec()
