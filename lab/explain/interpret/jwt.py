"""Envoy's jwt_authn filter: the tokens it accepts, by their claims.

Signatures and times are not part of a question: a token is right but for its issuer and audience.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lab.explain.interpret import routing
from lab.explain.interpret.matchers import NoAnswerError, Request
from lab.model import Json

Claims = Mapping[str, Any]
Failure = tuple[int, str]
"""The status and the text of an answer."""

_MISSING: Failure = (401, "Jwt is missing")
_UNKNOWN_ISSUER: Failure = (401, "Jwt issuer is not configured")
_WRONG_AUDIENCE: Failure = (403, "Audiences in Jwt are not allowed")


def check(config: Json, request: Request) -> tuple[Failure | None, Request, Request]:
    """Returns the answer of a refusal, or None, then the request as later filters and as later
    proxies see it.

    A token without an issuer is one of the first provider's. Later filters see space-delimited
    claims as lists; later proxies see the token only if its provider forwards it.
    """
    providers: Json = config.get("providers", {})
    if request.claims is not None:
        first: Json = next(iter(providers.values()), {})
        request = replace(request, claims={"iss": first.get("issuer", ""), **request.claims})
    for rule in config.get("rules", ()):
        if routing.matches(rule.get("match", {}), request):
            failure = _failure(rule.get("requires", {}), providers, request.claims)
            if failure is not None:
                return failure, request, request
            break
    claims = dict(request.claims or {})
    accepting = (one for one in providers.values() if _check({"": one}, request.claims) is None)
    provider = next(accepting, None)
    without = replace(request, claims=None)
    if provider is None:
        return None, without, request
    normalized = provider.get("normalize_payload_in_metadata", {})
    for name in normalized.get("space_delimited_claims", ()):
        if isinstance(claims.get(name), str):
            claims[name] = claims[name].split(" ")
    return None, replace(request, claims=claims), request if provider.get("forward") else without


def _failure(requirement: Json, providers: Json, claims: Claims | None) -> Failure | None:
    match requirement:
        case {"provider_name": name}:
            return _check({name: providers[name]}, claims)
        case {"allow_missing": _}:
            return _check(providers, claims) if claims is not None else None
        case {"requires_any": {"requirements": several}}:
            found = [_failure(one, providers, claims) for one in several]
            telling = [one for one in found if one not in (_MISSING, _UNKNOWN_ISSUER)]
            return None if None in found else (telling or found)[-1]
        case {"requires_all": {"requirements": several}}:
            found = [_failure(one, providers, claims) for one in several]
            return next((one for one in found if one is not None), None)
    if unknown := requirement.keys() - {"allow_missing_or_failed"}:
        raise NoAnswerError(f"route does not read the JWT requirement {', '.join(unknown)}")
    return None


def _check(providers: Json, claims: Claims | None) -> Failure | None:
    if claims is None:
        return _MISSING
    of_issuer = [one for one in providers.values() if one.get("issuer", "") in ("", claims["iss"])]
    if not of_issuer:
        return _UNKNOWN_ISSUER
    return None if any(_for_audience(one, claims) for one in of_issuer) else _WRONG_AUDIENCE


def _for_audience(provider: Json, claims: Claims) -> bool:
    audience = claims.get("aud")
    listed = audience if isinstance(audience, list) else [audience]
    return not provider.get("audiences") or any(one in provider["audiences"] for one in listed)
