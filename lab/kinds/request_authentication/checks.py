"""Checks of a RequestAuthentication: istiod's validation beyond the schema."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import jwt

from lab.kinds.request_authentication.types import RequestAuthentication
from lab.kinds.selection import SELECTION
from lab.resources.checks import newer, warned
from lab.resources.istio import kind
from lab.resources.resource import Check, Problem

_PRIVATE = ("d", "p", "q", "dp", "dq", "qi", "oth")
"""The private members of a key of RSA or of a curve."""


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
    public = {name: value for name, value in key.items() if name not in _PRIVATE}
    try:
        jwt.PyJWK(public)
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
            "the lab remarks: the key set is empty, so every token is refused (a proxy on a "
            "cluster would not take the configuration); `guestbook token --manifest FILE` fills in "
            "yours",
            "warning",
        )
    elif not usable:
        reason = "the lab refuses it: jwks has no valid public key, Envoy would not take it"
        yield Problem((), reason)
    for index, key in enumerate(keys):
        if "d" in key or "k" in key:
            yield Problem(
                (),
                f"jwks key at index {index} contains private key material; only public keys are "
                "used for verification",
                "warning",
            )


def _keys_uri(uri: str) -> str | None:
    parsed = urlsplit(uri)
    if parsed.scheme not in ("http", "https"):
        return f'URI scheme "{parsed.scheme}" is not supported'
    _, colon, port = parsed.netloc.rpartition("@")[2].rpartition(":")
    if colon and not port.endswith("]") and not re.fullmatch("[0-9]*", port):
        return f'parse "{uri}": invalid port ":{port}" after host'
    return None


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
    Check("spec.jwtRules[].jwksUri", _keys_uri),
    Check("spec.jwtRules[].jwks", _jwks),
)

KINDS = (kind("RequestAuthentication", RequestAuthentication, CHECKS),)
