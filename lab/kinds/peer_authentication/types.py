"""PeerAuthentication: types of the API of Istio.

Written by `python -m scripts.istio_schema` from lab/resources/istio.json.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lab.resources.resource import Check, Kind, Model
from lab.resources.values import PortKey


class MutualTLS(Model):
    mode: Literal["UNSET", "DISABLE", "PERMISSIVE", "STRICT"] | None = None


class WorkloadSelector(Model):
    match_labels: dict[str, Annotated[str, Field(max_length=63)]] = Field(
        default_factory=dict, max_length=4096
    )


class PeerAuthenticationSpec(Model):
    mtls: MutualTLS | None = None
    port_level_mtls: dict[PortKey, MutualTLS] | None = Field(default=None, min_length=1)
    selector: WorkloadSelector | None = None


class PeerAuthentication(Model):
    spec: PeerAuthenticationSpec = PeerAuthenticationSpec()


def kind(checks: tuple[Check, ...]) -> Kind:
    """Returns the kind, with its names and versions."""
    versions = ("v1", "v1beta1")
    names = ("security.istio.io", "PeerAuthentication", "peerauthentications")
    return Kind(*names, versions, PeerAuthentication, ("pa",), checks=checks)
