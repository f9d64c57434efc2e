"""Envoy's jwt_authn filter: the tokens it finds and accepts, and their claims.

A question may have the claims of a token in place of the token: its signature and its times are
right then.
"""

from __future__ import annotations

import binascii
import json
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote_plus

import jwt

from lab.explain.interpret import routing
from lab.explain.interpret.matchers import NoAnswerError, Request
from lab.model import Json

Claims = Mapping[str, Any]
Failure = tuple[int, str]
"""The status and the text of an answer."""

_MISSING: Failure = (401, "Jwt is missing")
_UNKNOWN_ISSUER: Failure = (401, "Jwt issuer is not configured")
_WRONG_AUDIENCE: Failure = (403, "Audiences in Jwt are not allowed")
_NO_SECTIONS: Failure = (
    401,
    "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections",
)
_NO_KEY: Failure = (401, "Jwks doesn't have key to match kid or alg from Jwt")
_SKEW = 60
"""Seconds by which a token's times may be wrong."""
_HEADERS: list[Json] = [{"name": "Authorization", "value_prefix": "Bearer "}]
_PARAMETERS = ["access_token"]


@dataclass(frozen=True, slots=True)
class _Token:
    """A token that can be read; without a text only its claims are given."""

    claims: Claims
    header: Claims
    text: str = ""


def check(
    config: Json, request: Request, unfetched: Collection[str] = ()
) -> tuple[Failure | None, Request, Request]:
    """Returns the answer of a refusal, or None, then the request as later filters and as later
    proxies see it.

    Claims without an issuer are of the first provider's. Later filters see space-delimited claims
    as lists; who comes later sees the token only if its provider forwards it. `unfetched` are the
    issuers whose keys are unknown: raises NoAnswerError when a token needs them.
    """
    if config.get("bypass_cors_preflight") and request.preflight:
        return None, replace(request, claims=None), request
    providers: Json = config.get("providers", {})
    if request.claims is not None:
        first: Json = next(iter(providers.values()), {})
        request = replace(request, claims={"iss": first.get("issuer", ""), **request.claims})
    request = _without_outputs(providers.values(), request)
    for rule in config.get("rules", ()):
        if routing.matches(rule.get("match", {}), request):
            failure = _failure(rule.get("requires", {}), providers, request, unfetched)
            if failure is not None:
                return failure, request, request
            break
    accepting = (one for one in providers.values() if _check([one], request, unfetched) is None)
    provider = next(accepting, None)
    if provider is None:
        return None, replace(request, claims=None), request
    token = [_read(one) for one in _found(provider, request)][-1]
    claims = dict(token.claims) if isinstance(token, _Token) else {}
    forwarded = request if provider.get("forward") else _without_token(provider, request)
    forwarded = _with_outputs(provider, forwarded, claims)
    normalized = provider.get("normalize_payload_in_metadata", {})
    for name in normalized.get("space_delimited_claims", ()):
        if isinstance(claims.get(name), str):
            claims[name] = claims[name].split(" ")
    return None, replace(forwarded, claims=claims), forwarded


def _failure(
    requirement: Json, providers: Json, request: Request, unfetched: Collection[str]
) -> Failure | None:
    match requirement:
        case {"provider_name": name}:
            return _check([providers[name]], request, unfetched)
        case {"allow_missing": _}:
            failure = _check(list(providers.values()), request, unfetched)
            return None if failure == _MISSING else failure
        case {"requires_any": {"requirements": several}}:
            found = [_failure(one, providers, request, unfetched) for one in several]
            telling = [one for one in found if one not in (_MISSING, _UNKNOWN_ISSUER)]
            return None if None in found else (telling or found)[-1]
        case {"requires_all": {"requirements": several}}:
            found = [_failure(one, providers, request, unfetched) for one in several]
            return next((one for one in found if one is not None), None)
    if unknown := requirement.keys() - {"allow_missing_or_failed"}:
        raise NoAnswerError(f"route does not read the JWT requirement {', '.join(unknown)}")
    return None


def _check(
    providers: Iterable[Json], request: Request, unfetched: Collection[str]
) -> Failure | None:
    """Returns why the tokens in these providers' places are not all accepted."""
    places: dict[str, list[Json]] = {}
    given: list[_Token] = []
    for provider in providers:
        for token in _found(provider, request):
            if isinstance(token, _Token):
                given = [token]
                places.setdefault("", []).append(provider)
            else:
                places.setdefault(token, []).append(provider)
    for text, concerned in places.items():
        read = _read(given[0] if given else text)
        failure = _refusal(read, concerned, unfetched) if isinstance(read, _Token) else read
        if failure is not None:
            return failure
    return None if places else _MISSING


def _found(provider: Json, request: Request) -> Iterator[str | _Token]:
    """The tokens in a provider's places; claims that are given stand for all of them."""
    if request.claims is not None:
        yield _Token(request.claims, {})
        return
    headers, parameters, cookies = _places(provider)
    for place in headers:
        prefix = place.get("value_prefix", "")
        _, found, rest = (request.header(place["name"]) or "").partition(prefix or "\0")
        text = (rest if found else "") if prefix else request.header(place["name"]) or ""
        if text.strip():
            yield text.strip()
    for name, value in _pairs(request.path.partition("?")[2], "&"):
        if name in parameters and value:
            yield unquote_plus(value)
    for name, value in _pairs(request.header("cookie") or "", ";"):
        if name.strip() in cookies and value:
            yield value.strip().strip('"')


def _places(provider: Json) -> tuple[list[Json], list[str], list[str]]:
    places = [provider.get(key, []) for key in ("from_headers", "from_params", "from_cookies")]
    return (places[0], places[1], places[2]) if any(places) else (_HEADERS, _PARAMETERS, [])


def _pairs(text: str, separator: str) -> Iterator[tuple[str, str]]:
    for part in text.split(separator):
        name, _, value = part.partition("=")
        yield name, value


def _read(token: str | _Token) -> _Token | Failure:
    if isinstance(token, _Token):
        return token
    sections = token.split(".")
    if len(sections) != 3 or not all(sections):
        return _NO_SECTIONS
    read: list[Claims] = []
    for what, section in (("header", sections[0]), ("payload", sections[1])):
        raw = _decoded(section)
        if raw is None:
            return 401, f"Jwt {what} is an invalid Base64url encoded"
        try:
            value = json.loads(raw)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            return 401, f"Jwt {what} is an invalid JSON"
        read.append(value)
    header, claims = read
    for name in ("exp", "nbf", "iat"):
        if not isinstance(claims.get(name, 0), int):
            return 401, f"Jwt payload [{name}] field is not an integer"
    if _decoded(sections[2]) is None:
        return 401, "Jwt signature is an invalid Base64url encoded"
    return _Token(claims, header, token)


def _decoded(text: str) -> bytes | None:
    try:
        return urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return None


def _refusal(
    token: _Token, providers: Iterable[Json], unfetched: Collection[str]
) -> Failure | None:
    issuer = token.claims.get("iss", "")
    of_issuer = [one for one in providers if one.get("issuer", "") in ("", issuer)]
    if not of_issuer:
        return _UNKNOWN_ISSUER
    failures = [_by_provider(token, one, unfetched) for one in of_issuer]
    return None if None in failures else failures[0]


def _by_provider(token: _Token, provider: Json, unfetched: Collection[str]) -> Failure | None:
    now = time.time()
    if token.text and token.claims.get("nbf", 0) > now + _SKEW:
        return 401, "Jwt not yet valid"
    if token.text and 0 < token.claims.get("exp", 0) < now - _SKEW:
        return 401, "Jwt is expired"
    audience = token.claims.get("aud")
    listed = audience if isinstance(audience, list) else [audience]
    wanted = provider.get("audiences")
    if wanted and not any(one in wanted for one in listed):
        return _WRONG_AUDIENCE
    if not token.text:
        return None
    if provider.get("issuer", "") in unfetched:
        raise NoAnswerError(
            f"the keys of {provider.get('issuer')} are not fetched, as no lab is asked: give the "
            "token's claims with --claim in its place"
        )
    return _signature(token, json.loads(provider["local_jwks"]["inline_string"])["keys"])


def _signature(token: _Token, keys: Iterable[Json]) -> Failure | None:
    algorithm, kid = token.header.get("alg", ""), token.header.get("kid", "")
    fitting = [
        one
        for one in keys
        if not (kid and one.get("kid") and one["kid"] != kid)
        and one.get("alg") in (None, "", algorithm)
    ]
    if not fitting:
        return _NO_KEY
    signed, _, signature = token.text.rpartition(".")
    for one in fitting:
        try:
            key = jwt.PyJWK(one, algorithm=algorithm)
        except jwt.PyJWTError:
            continue  # a key of another kind
        if key.Algorithm.verify(signed.encode(), key.key, _decoded(signature) or b""):
            return None
    return 401, "Jwt verification fails"


def _without_token(provider: Json, request: Request) -> Request:
    headers, parameters, _ = _places(provider)
    names = {place["name"].lower() for place in headers}
    path, mark, query = request.path.partition("?")
    kept = [one for one in query.split("&") if one.partition("=")[0] not in parameters]
    return replace(
        request,
        headers={name: given for name, given in request.headers.items() if name not in names},
        path=path + (mark if kept else "") + "&".join(kept),
        claims=None,
    )


def _without_outputs(providers: Iterable[Json], request: Request) -> Request:
    """The request without the headers that the filter itself sets."""
    outputs = {name.lower() for one in providers for name, _ in _outputs(one, {})}
    kept = {name: values for name, values in request.headers.items() if name not in outputs}
    return replace(request, headers=kept)


def _with_outputs(provider: Json, request: Request, claims: Claims) -> Request:
    made = {name.lower(): (text,) for name, text in _outputs(provider, claims) if text is not None}
    return replace(request, headers={**request.headers, **made})


def _outputs(provider: Json, claims: Claims) -> Iterator[tuple[str, str | None]]:
    """The headers that a provider sets, each with its value, None without the claim."""
    for one in provider.get("claim_to_headers", ()):
        value: Any = claims
        for key in one["claim_name"].split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        yield one["header_name"], _header_text(value)
    if name := provider.get("forward_payload_header"):
        yield name, _encoded(claims)


def _header_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value) if isinstance(value, bool | int) else _encoded(value)


def _encoded(value: Any) -> str:
    text = json.dumps(value, separators=(",", ":"))
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")
