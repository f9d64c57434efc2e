"""The lab's verdict on a manifest is istiod's, and so are the words of refusals and warnings.

`verdicts/` has manifests with what a cluster says to each; `make istiod` writes it again.
"""

from __future__ import annotations

import re

import pytest
import yaml

from lab.manifests.load import parse
from lab.manifests.read import ManifestError
from scripts.istiod_verdicts import FOLDER, Verdict, recorded

RECORDED = {
    f"{file.stem}/{yaml.safe_load(document)['metadata']['name']}": (verdict, document)
    for file in sorted(FOLDER.glob("*.yaml"))
    for verdict, document in recorded(file)
}
_LIMIT = "Istio accepts it, and the lab says that it does not support it."
_ENVOY = "Istio accepts it, and Envoy does not; the lab says so when it is applied."
OTHER_VERDICTS = {
    "destination_rule/credential-of-a-config-map": _LIMIT,
    "service_entry/udp": _LIMIT,
    "telemetry/metrics": _LIMIT,
    "workload_entry/unix": _LIMIT,
    "workload_entry/without-address-in-a-network": _LIMIT,
    "virtual_service/redirect-304": _ENVOY,
    "virtual_service/status-600": _ENVOY,
    "telemetry/expression": "Istio refuses it; in the lab Envoy does, which alone can read it.",
}
"""Verdicts that are not istiod's, each with its reason."""
_ORDER = "The lab's line names the field before the reason."
_SPACE = "Istio's words lack a space."
OTHER_WORDS = {
    "authorization_policy/empty-value-not-allowed-found-in-trustdomains": _ORDER,
    "authorization_policy/expected-format-serviceaccount-or-namespace-servicea": _ORDER,
    "authorization_policy/invalid-or-unsupported-path-found-in-paths-contains": _ORDER,
    "authorization_policy/trust-domain-must-not-contain-found-in-trustdomains": _ORDER,
    "authorization_policy/wildcard-not-allowed-found-in-serviceaccounts": _ORDER,
    "envoy_filter/long-version": "The words of Go's engine of regular expressions.",
    "request_authentication/no-keys": "The words of Go's library of key sets.",
    "service_entry/dynamic-dns-with-address": _SPACE,
    "service_entry/endpoints-cannot-be-set-for-resolution-type-dynamic": _SPACE,
}
"""Refusals with other words than istiod's, each with its reason."""


def judged(document: str) -> tuple[str, list[str]]:
    """The lab's refusals, and its warnings without those in its own voice."""
    try:
        return "", [spoken(line) for line in parse([("x", document)]).warnings]
    except ManifestError as error:
        return spoken(str(error)), []


def spoken(text: str) -> str:
    """A text without the quotes, which Go writes in several ways."""
    return re.sub(r"[`'\"\\]", "", text)


def same_words(verdict: Verdict, errors: str) -> bool:
    """Whether the lab gives one of istiod's reasons; the schema's are the API server's."""
    return not verdict.words or any(spoken(words) in errors for words in verdict.words)


@pytest.mark.parametrize("name", RECORDED)
def test_the_verdict_is_istiods(name: str) -> None:
    verdict, document = RECORDED[name]
    errors, warnings = judged(document)
    assert (bool(errors) == verdict.refused) is (name not in OTHER_VERDICTS)
    if name in OTHER_VERDICTS:
        assert not errors or "the lab" in errors
        return
    assert same_words(verdict, errors) is (name not in OTHER_WORDS)
    expected = [spoken(warning) for warning in verdict.warnings]
    assert [one for one in expected if not any(one in line for line in warnings)] == []
    others = [line for line in warnings if not any(one in line for one in expected)]
    assert [line for line in others if "the lab" not in line] == []


@pytest.mark.parametrize("name", [*OTHER_VERDICTS, *OTHER_WORDS])
def test_a_difference_is_recorded(name: str) -> None:
    assert name in RECORDED
