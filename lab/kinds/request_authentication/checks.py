"""Checks of a RequestAuthentication: istiod's validation beyond the schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import jwt

from lab.kinds.request_authentication.types import kind
from lab.kinds.selection import SELECTION
from lab.resources.checks import newer, warned
from lab.resources.resource import Check, Problem

_PRIVATE = ("d", "k")


def usable_keys(text: str) -> int:
    """Returns the number of keys of a JSON Web Key Set that Envoy could verify with.

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


def _jwks(text: str) -> Iterator[Problem]:
    if not text:
        return
    try:
        usable = usable_keys(text)
    except ValueError as error:
        yield Problem((), f"jwks parse error: {error}")
        return
    keys = json.loads(text)["keys"]
    if not keys:
        yield Problem(
            (),
            "the key set is empty, so every token is refused (a proxy on a cluster would not take "
            "the configuration); `guestbook token --manifest FILE` fills in yours",
            "warning",
        )
    elif not usable:
        yield Problem((), "jwks has no valid public key; Envoy would not take the configuration")
    for index, key in enumerate(keys):
        if any(field in key for field in _PRIVATE):
            yield Problem(
                (),
                f"jwks key at index {index} contains private key material; only public keys are "
                "used for verification",
                "warning",
            )


def _scheme(uri: str) -> str | None:
    scheme = urlsplit(uri).scheme
    return None if scheme in ("http", "https") else f'URI scheme "{scheme}" is not supported'


CHECKS = (
    warned("**.timeout", "the lab waits 5 s at most for a set of keys, as by default"),
    newer("spec.jwtRules[].presence", "1.32"),
    *SELECTION,
    Check(
        "spec.jwtRules[]",
        lambda rule: bool(rule.issuer or rule.keys_uri),
        "issuer or jwksUri must be non-empty string",
    ),
    Check(
        "spec.jwtRules[]",
        lambda rule: rule.jwks is None or not rule.keys_uri,
        "only one of jwks and jwksUri can be set",
    ),
    Check("spec.jwtRules[].jwksUri", _scheme),
    Check("spec.jwtRules[].jwks", _jwks),
)

KINDS = (kind(CHECKS),)
