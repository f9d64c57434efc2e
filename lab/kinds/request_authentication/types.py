"""RequestAuthentication: types of the API of Istio.

Written by `python -m scripts.istio_schema` from lab/resources/istio.json.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AliasChoices, Field

from lab.kinds.types import LabelSelector
from lab.resources.resource import Model
from lab.resources.values import PositiveDuration


class JWTHeader(Model):
    name: Annotated[str, Field(min_length=1)]
    prefix: str = ""


class ClaimToHeader(Model):
    claim: Annotated[str, Field(min_length=1)]
    header: Annotated[str, Field(min_length=1, pattern="^[-_A-Za-z0-9]+$")]


class JWTRule(Model):
    audiences: list[Annotated[str, Field(min_length=1)]] = Field(default_factory=list)
    forward_original_token: bool = False
    from_cookies: list[Annotated[str, Field(min_length=1)]] = Field(default_factory=list)
    from_headers: list[JWTHeader] = Field(default_factory=list)
    from_params: list[Annotated[str, Field(min_length=1)]] = Field(default_factory=list)
    issuer: Annotated[str, Field(min_length=1)] = ""
    jwks: str | None = None
    keys_uri: Annotated[str, Field(min_length=1, max_length=2048)] | None = Field(
        default=None, validation_alias=AliasChoices("jwksUri", "jwks_uri")
    )
    output_claim_to_headers: list[ClaimToHeader] = Field(default_factory=list)
    output_payload_to_header: str = ""
    space_delimited_claims: list[Annotated[str, Field(min_length=1)]] = Field(
        default_factory=list, max_length=64
    )
    timeout: PositiveDuration | None = None


class RequestAuthenticationSpec(Model):
    jwt_rules: list[JWTRule] = Field(default_factory=list, max_length=4096)
    selector: LabelSelector | None = None
    target_ref: Any = None
    target_refs: Any = None


class RequestAuthentication(Model):
    spec: RequestAuthenticationSpec = RequestAuthenticationSpec()
