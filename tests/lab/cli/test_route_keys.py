"""`guestbook route` with the key sets that a running lab has fetched."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from lab.istiod import tokens
from tests.support.issuer import KEY
from tests.support.lab import Lab

URL = "http://message-service/hello/x"
OTHER = tokens.new_key()
"""A key that no issuer serves."""


@pytest.fixture
def policies(lab: Lab) -> Iterator[None]:
    yield
    lab.ok("delete", "requestauthentication", "fetched", "--ignore-not-found")


def authentication(source: str) -> str:
    return (
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: fetched}\n"
        "spec:\n  selector: {matchLabels: {app: message-service}}\n"
        f"  jwtRules: [{{issuer: me, jwksUri: '{source}'}}]\n"
    )


def token(signer: RSAPrivateKey, kid: str | None = None) -> str:
    return tokens.mint(signer, datetime.now(UTC), issuer="me", kid=kid)


def real(lab: Lab, bearer: str) -> str:
    """The status of an answer, and its text unless it is 200."""
    words = ("-sS", "-w", "\n%{http_code}", "-H", f"Authorization: Bearer {bearer}", URL)
    text, _, status = lab.ok("exec", "curl", "--", "curl", *words).rpartition("\n")
    return status if status == "200" else f"{status} {text}"


def told(lab: Lab, bearer: str, *files: str) -> str:
    asked = ("route", "--from", "curl", URL, "-H", f"Authorization: Bearer {bearer}", "-o", "json")
    answer = lab.run(*asked, *files)
    if not answer.out:
        return answer.err
    steps = json.loads(answer.out)["targets"][0]["steps"]
    return next((step["says"] for step in steps if step["what"] == "answer"), "200")


def test_a_token_is_judged_by_the_keys_that_the_lab_has(
    lab: Lab, issuer: str, policies: None
) -> None:
    good, forged, misnamed = token(KEY), token(OTHER), token(OTHER, tokens.key_id(KEY))
    assert lab.run("apply", "-f", "-", stdin=authentication(f"{issuer}/keys")).err == ""
    assert real(lab, good) == told(lab, good) == "200"
    for bad, reason in ((forged, "Jwks doesn't have key"), (misnamed, "Jwt verification fails")):
        assert real(lab, bad) == told(lab, bad)
        assert reason in told(lab, bad)

    applied = lab.run("apply", "-f", "-", stdin=authentication(f"{issuer}/nowhere"))
    assert "keys not fetched" in applied.err
    assert real(lab, good) == told(lab, good)
    assert told(lab, good).startswith("401 ")


def test_without_a_lab_the_keys_are_not_fetched(
    lab: Lab, issuer: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("keys") / "keys.yaml"
    file.write_text(authentication(f"{issuer}/keys"))
    said = told(lab, token(KEY), "-f", "tests/lab/cluster/small.yaml", "-f", str(file))
    assert "the keys of me are not fetched" in said
    assert "--claim" in said
