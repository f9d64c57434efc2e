"""RequestAuthentication between real Envoys, with tokens minted by the lab."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support import harness
from tests.support.secured import apply, get, mesh

ISSUER = "testing@secure.istio.io"
KEY = rsa.generate_private_key(65537, 2048)
OTHER_KEY = rsa.generate_private_key(65537, 2048)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[harness.Mesh]:
    with mesh(tmp_path_factory.mktemp("mesh")) as made:
        yield made


def public(key: rsa.RSAPrivateKey = KEY, kid: str = "k1") -> str:
    found = jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return json.dumps({"keys": [{**found, "kid": kid, "use": "sig", "alg": "RS256"}]})


def token(key: rsa.RSAPrivateKey = KEY, **claims: object) -> str:
    now = int(time.time())
    said = {"iss": ISSUER, "sub": ISSUER, "iat": now, "exp": now + 600, **claims}
    return jwt.encode(said, key, algorithm="RS256", headers={"kid": "k1"})


def authentication(rule: str = "", keys: str | None = None, issuer: str = ISSUER) -> str:
    return (
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\n"
        "metadata: {name: tokens, namespace: default}\nspec:\n"
        "  selector: {matchLabels: {app: message}}\n  jwtRules:\n"
        f"  - issuer: {issuer}\n    jwks: '{keys or public()}'\n"
        + "".join(f"    {line}\n" for line in rule.splitlines())
    )


REQUIRE = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: viewer, namespace: default}
spec:
  selector: {matchLabels: {app: message}}
  rules:
  - from:
    - source:
        requestPrincipals: [testing@secure.istio.io/testing@secure.istio.io]
"""


def ask(secured: harness.Mesh, bearer: str | None) -> tuple[int, str]:
    headers = {} if bearer is None else {"authorization": f"Bearer {bearer}"}
    answer = get(secured, headers=headers)
    return answer.status_code, answer.text


def test_what_a_client_sees(secured: harness.Mesh) -> None:
    apply(secured, authentication())
    assert ask(secured, None)[0] == 200
    assert ask(secured, token())[0] == 200
    now = int(time.time())
    for bearer, text in (
        ("invalidToken", "Jwt is not in the form of Header.Payload.Signature"),
        (token(OTHER_KEY), "Jwt verification fails"),
        (token(iss="somebody@example.com"), "Jwt issuer is not configured"),
        (token(exp=now - 120), "Jwt is expired"),
    ):
        status, body = ask(secured, bearer)
        assert (status, text in body) == (401, True), body
    challenge = get(secured, headers={"authorization": "Bearer x"}).headers["www-authenticate"]
    assert challenge == 'Bearer realm="http://message/", error="invalid_token"'


def test_the_token_stays_at_the_proxy_unless_forwarded(secured: harness.Mesh) -> None:
    apply(secured, authentication())
    bearer = {"authorization": f"Bearer {token()}"}
    assert "authorization" not in get(secured, headers=bearer).json()["headers"]
    apply(secured, authentication("forwardOriginalToken: true"))
    assert get(secured, headers=bearer).json()["headers"]["authorization"].startswith("Bearer ey")


def test_audiences(secured: harness.Mesh) -> None:
    apply(secured, authentication("audiences: [guestbook]"))
    assert ask(secured, token(aud="guestbook"))[0] == 200
    assert ask(secured, token(aud=["other", "guestbook"]))[0] == 200
    assert ask(secured, token(aud="other")) == (403, "Audiences in Jwt are not allowed")


def test_where_the_token_may_be(secured: harness.Mesh) -> None:
    places = 'fromHeaders: [{name: x-token, prefix: "T "}]\nfromParams: [t]\nfromCookies: [session]'
    apply(secured, authentication(places), REQUIRE)
    good = token()
    assert get(secured, headers={"x-token": f"T {good}"}).status_code == 200
    assert get(secured, path=f"/?t={good}").status_code == 200
    assert get(secured, headers={"cookie": f"session={good}"}).status_code == 200
    assert ask(secured, good)[0] == 403, "the usual place is not looked at any more"
    assert get(secured, headers={"x-token": "T nonsense"}).status_code == 401


def test_claims_become_headers(secured: harness.Mesh) -> None:
    outputs = (
        "outputPayloadToHeader: x-payload\noutputClaimToHeaders: [{header: x-email, claim: email}]"
    )
    apply(secured, authentication(outputs))
    headers = {"authorization": f"Bearer {token(email='a@b.c')}", "x-email": "forged@b.c"}
    seen = get(secured, headers=headers).json()["headers"]
    assert seen["x-email"] == "a@b.c"
    assert "x-payload" in seen


def test_without_a_policy_no_token_passes_with_one_it_is_403(secured: harness.Mesh) -> None:
    apply(secured, authentication(), REQUIRE)
    assert ask(secured, None) == (403, "RBAC: access denied")
    assert ask(secured, "invalidToken")[0] == 401, "a bad token never gets to the policy"
    assert ask(secured, token())[0] == 200
    assert ask(secured, token(sub="somebody@secure.istio.io"))[0] == 403


def test_claims_in_conditions(secured: harness.Mesh) -> None:
    condition = REQUIRE.replace(
        "  - from:\n    - source:\n"
        "        requestPrincipals: [testing@secure.istio.io/testing@secure.istio.io]\n",
        "  - when: [{key: 'request.auth.claims[groups]', values: [admins]}]\n"
        "  - when: [{key: 'request.auth.claims[realm][role]', values: [boss*]}]\n"
        "  - when: [{key: 'request.auth.claims[scope]', values: [write]}]\n",
    )
    apply(secured, authentication(), condition)
    for claims in (
        {"groups": ["users", "admins"]},
        {"groups": "admins"},
        {"realm": {"role": "bossy"}},
        {"scope": "read write"},
    ):
        assert ask(secured, token(**claims))[0] == 200, claims
    for claims in ({"groups": ["users"]}, {"realm": {"role": "aboss"}}, {"scope": "rewrite"}, {}):
        assert ask(secured, token(**claims))[0] == 403, claims


def test_two_issuers(secured: harness.Mesh) -> None:
    second = authentication(keys=public(OTHER_KEY), issuer="other@example.com")
    apply(secured, authentication(), second.replace("name: tokens", "name: more-tokens"))
    assert ask(secured, None)[0] == 200
    assert ask(secured, token())[0] == 200
    assert ask(secured, token(OTHER_KEY, iss="other@example.com"))[0] == 200
    assert ask(secured, token(KEY, iss="other@example.com"))[0] == 401


def test_keys_that_cannot_be_had_refuse_every_token(secured: harness.Mesh) -> None:
    apply(
        secured,
        authentication().replace(f"jwks: '{public()}'", "jwksUri: https://127.0.0.1:9/keys"),
    )
    assert ask(secured, None)[0] == 200
    status, body = ask(secured, token())
    assert (status, "Jwks doesn't have key to match" in body) == (401, True), body


def test_an_empty_key_set_is_a_warning_and_refuses_every_token(secured: harness.Mesh) -> None:
    apply(secured, authentication(keys='{"keys": []}'))
    status, body = ask(secured, token())
    assert (status, "Jwks doesn't have key to match" in body) == (401, True), body
    assert ask(secured, None)[0] == 200


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (f"issuer: {ISSUER}", "audiences: [a]", "issuer or jwksUri must be non-empty string"),
        (f"jwks: '{public()}'", "jwks: 'no json'", "jwks parse error"),
        (f"jwks: '{public()}'", 'jwks: \'{"keys": [{"kty": "x"}]}\'', "no valid public key"),
        (f"jwks: '{public()}'", "jwksUri: ftp://a/b", 'URI scheme "ftp" is not supported'),
        ("jwks:", "jwksUri: https://a/b\n    jwks:", "only one of jwks and jwksUri can be set"),
        ("jwks:", "fromHeaders: [{prefix: a}]\n    jwks:", "name"),
    ],
)
def test_what_istio_rejects_is_rejected(old: str, new: str, problem: str) -> None:
    from lab.manifests.read import ManifestError

    with pytest.raises(ManifestError) as raised:
        harness.resources(authentication().replace(old, new))
    assert problem in str(raised.value)
