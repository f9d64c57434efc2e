"""RequestAuthentication: the typed body and what istiod's validation says about it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import jwt
from pydantic import AliasChoices, Field

from lab.kinds.selection import SECURITY_VERSIONS, Selecting, selector_problems
from lab.resources.istio import MILLISECOND, Duration, IstioModel, Text, field_problems, ignored
from lab.resources.resource import Kind, Path, Problem, Resource

_HEADER = re.compile(r"[-_A-Za-z0-9]+")


class JWTHeader(IstioModel):
    name: Text
    prefix: Text = ""


class ClaimToHeader(IstioModel):
    header: Text
    claim: Text


class JWTRule(IstioModel):
    issuer: Text = ""
    audiences: list[Text] = Field(default_factory=list)
    keys_uri: Text | None = Field(
        default=None, validation_alias=AliasChoices("jwksUri", "jwks_uri")
    )
    jwks: Text | None = None
    from_headers: list[JWTHeader] = Field(default_factory=list)
    from_params: list[Text] = Field(default_factory=list)
    from_cookies: list[Text] = Field(default_factory=list)
    output_payload_to_header: Text = ""
    output_claim_to_headers: list[ClaimToHeader] = Field(default_factory=list)
    space_delimited_claims: list[Text] = Field(default_factory=list)
    forward_original_token: bool = False
    timeout: Duration | None = ignored("the lab waits 5 s at most for a set of keys, as by default")


class RequestAuthenticationSpec(Selecting):
    jwt_rules: list[JWTRule] = Field(default_factory=list)


class RequestAuthentication(IstioModel):
    spec: RequestAuthenticationSpec = RequestAuthenticationSpec()


def validate(resource: Resource) -> Iterator[Problem]:
    """What istiod's webhook says of a RequestAuthentication."""
    spec: RequestAuthenticationSpec = resource.spec
    path: Path = ("spec",)
    yield from field_problems(spec, path)
    yield from selector_problems(spec, path)
    for index, rule in enumerate(spec.jwt_rules):
        yield from _rule(rule, (*path, "jwtRules", index))


def _rule(rule: JWTRule, path: Path) -> Iterator[Problem]:
    if not rule.issuer and not rule.keys_uri:
        yield Problem(path, "issuer or jwksUri must be non-empty string")
    if rule.jwks is not None and rule.keys_uri:
        yield Problem(path, "only one of jwks and jwksUri can be set")
    if rule.keys_uri and urlsplit(rule.keys_uri).scheme not in ("http", "https"):
        scheme = urlsplit(rule.keys_uri).scheme
        yield Problem((*path, "jwksUri"), f'URI scheme "{scheme}" is not supported')
    if rule.jwks:
        yield from _jwks(rule.jwks, (*path, "jwks"))
    for field, values in (
        ("audiences", rule.audiences),
        ("fromParams", rule.from_params),
        ("fromCookies", rule.from_cookies),
        ("spaceDelimitedClaims", rule.space_delimited_claims),
    ):
        for position, value in enumerate(values):
            if not value:
                yield Problem((*path, field, position), "must be a non-empty string")
    for position, header in enumerate(rule.from_headers):
        if not header.name:
            where: Path = (*path, "fromHeaders", position)
            yield Problem(where, "location header name must be non-empty string")
    for position, output in enumerate(rule.output_claim_to_headers):
        where = (*path, "outputClaimToHeaders", position)
        if not output.claim or not output.header:
            yield Problem(
                where, "outputClaimToHeaders header and claim value must be non-empty string"
            )
        elif not _HEADER.fullmatch(output.header):
            yield Problem((*where, "header"), f'header name "{output.header}" is not valid')
    if rule.timeout is not None and rule.timeout < MILLISECOND:
        yield Problem((*path, "timeout"), "duration must be greater than 1ms")


_PRIVATE = ("d", "k")


def usable_keys(text: str) -> int:
    """How many keys of a JSON Web Key Set Envoy could verify with.

    Raises ValueError when the text is no such set.
    """
    parsed = json.loads(text)
    keys = parsed.get("keys") if isinstance(parsed, dict) else None
    if not isinstance(keys, list) or not all(isinstance(key, dict) for key in keys):
        raise ValueError('a JSON Web Key Set is {"keys": [{"kty": ...}, ...]}')
    return sum(map(_usable, keys))


def _usable(key: dict[str, Any]) -> bool:
    try:
        jwt.PyJWK(key)
    except (jwt.PyJWTError, KeyError, TypeError, ValueError):  # it does not check what it reads
        return False
    return True


def _jwks(text: str, path: Path) -> Iterator[Problem]:
    try:
        usable = usable_keys(text)
    except ValueError as error:
        yield Problem(path, f"jwks parse error: {error}")
        return
    keys = json.loads(text)["keys"]
    if not keys:
        yield Problem(
            path,
            "the key set is empty, so every token is refused (a proxy on a cluster would not take "
            "the configuration); `guestbook token --manifest FILE` fills in yours",
            "warning",
        )
    elif not usable:
        yield Problem(path, "jwks has no valid public key; Envoy would not take the configuration")
    for index, key in enumerate(keys):
        if any(field in key for field in _PRIVATE):
            yield Problem(
                path,
                f"jwks key at index {index} contains private key material; only public keys are "
                "used for verification",
                "warning",
            )


KINDS: tuple[Kind, ...] = (
    Kind(
        group="security.istio.io",
        kind="RequestAuthentication",
        plural="requestauthentications",
        versions=SECURITY_VERSIONS,
        body=RequestAuthentication,
        short_names=("ra",),
        validate=validate,
    ),
)
