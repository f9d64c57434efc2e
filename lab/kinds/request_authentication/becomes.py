"""RequestAuthentication: the jwt_authn filter of a pod.

A request without a token passes; one with a bad token gets 401. Keys are always inline: those that
a `jwksUri` names are fetched beforehand, as istiod does, and are part of the snapshot.
"""

from __future__ import annotations

from lab.kinds import selection
from lab.kinds.authorization_policy.becomes import JWT_FILTER, PAYLOAD
from lab.kinds.request_authentication.checks import usable_keys
from lab.kinds.request_authentication.types import JWTRule
from lab.model import Json, Pod, Snapshot
from lab.xds import extension, given

KIND = "RequestAuthentication"

REJECT_ALL_KEYS = (
    '{"keys":[{"kty":"RSA","kid":"nobody","e":"AQAB","n":"pg_b_Z-3V-KILRocJV__IV3y5KNxg9r3nEt9Yqd'
    "ZsO9lJzBdlH85xm8ZK5Ul4hAW8TbZVWktfYjm0FyXnFE5vgO5K97GtWR4ZyPakZ3a7DJpMZem6Fb95Uq-2B6souBfUw"
    "cyVUOBy0w7f5Lu90Tj7s-Ets7aog8uVXh9yoPCMMO46AKrXHulFuwB7tWjvtfVp_1E3niXc7NSSSQKTrOw-YljpV8y_"
    "zgxusKIDjD9LDRRaYGxrrSu1UYWmx0pJ9OXXZETCnJa8Dl4swrC8DqO9lfQ8nuriarHl0ERHQpeY-MMPXOzzDJJvJG-"
    'fJeoK5JjQ-6Afz9BNf34fqwGpOFbVw"}]}'
)
"""A JWKS that rejects every token, for keys that could not be fetched.

It is the public half of a key whose private half was never kept.
"""

_SPACE_DELIMITED = ("permission", "scope")


def rules(snapshot: Snapshot, pod: Pod) -> list[JWTRule]:
    """Returns the rules for a pod by issuer, the order in which they are tried."""
    found = [
        rule for policy in selection.for_pod(snapshot, KIND, pod) for rule in policy.spec.jwt_rules
    ]
    return sorted(found, key=lambda rule: rule.issuer)


def keys_source(rule: JWTRule) -> str | None:
    """Returns the URL of a rule's keys; None when the keys are in the rule.

    Without `jwks` and `jwksUri` it is the issuer's OpenID configuration, which names the URL.
    """
    if rule.jwks:
        return None
    return rule.keys_uri or f"{rule.issuer.removesuffix('/')}/.well-known/openid-configuration"


def http_filters(snapshot: Snapshot, pod: Pod) -> list[Json]:
    """Returns the filter `envoy.filters.http.jwt_authn`, before those of AuthorizationPolicy."""
    found = rules(snapshot, pod)
    if not found:
        return []
    providers = {
        f"origins-{index}": _provider(snapshot, pod, rule) for index, rule in enumerate(found)
    }
    kind = "extensions.filters.http.jwt_authn.v3.JwtAuthentication"
    requirement = {"match": {"prefix": "/"}, "requires": _requirement(list(providers))}
    return [
        extension(
            JWT_FILTER, kind, providers=providers, rules=[requirement], bypass_cors_preflight=True
        )
    ]


def _requirement(providers: list[str]) -> Json:
    """Returns the requirement that no token is bad.

    Each provider's token is valid or missing, or, as their tokens may be in the same place, one
    provider accepts the token.
    """
    optional = [_any([{"provider_name": name}, {"allow_missing": {}}]) for name in providers]
    if len(optional) == 1:
        return optional[0]
    together = {"requires_all": {"requirements": optional}}
    return _any([*({"provider_name": name} for name in providers), together])


def _any(requirements: list[Json]) -> Json:
    return {"requires_any": {"requirements": requirements}}


def _provider(snapshot: Snapshot, pod: Pod, rule: JWTRule) -> Json:
    source = keys_source(rule)
    keys = rule.jwks if source is None else (snapshot.jwks or {}).get(source)
    if not keys or not usable_keys(keys):
        keys = REJECT_ALL_KEYS  # Envoy takes no empty set.
    space_delimited = sorted({*_SPACE_DELIMITED, *rule.space_delimited_claims})
    headers = [{"name": one.name, "value_prefix": one.prefix} for one in rule.from_headers or ()]
    claims = [
        {"header_name": output.header, "claim_name": output.claim}
        for output in rule.output_claim_to_headers or ()
    ]
    return given(
        local_jwks={"inline_string": keys},
        payload_in_metadata=PAYLOAD,
        normalize_payload_in_metadata={"space_delimited_claims": space_delimited},
        forward=rule.forward_original_token,
        issuer=rule.issuer or None,
        audiences=rule.audiences or None,
        forward_payload_header=rule.output_payload_to_header or None,
        claim_to_headers=claims or None,
        from_headers=headers or None,
        from_params=rule.from_params or None,
        from_cookies=rule.from_cookies or None,
        # Claims may choose the route (@request.auth.claims), which is known after this filter.
        clear_route_cache=True if pod.proxy == "gateway" else None,
    )
