"""Response flags in words, and the page that is made of them."""

from __future__ import annotations

from lab.observe import flags
from scripts import response_flags
from tests.support.reports import request
from tests.support.repository import ROOT


def test_the_page_is_the_table() -> None:
    assert (ROOT / "docs/response-flags.md").read_text() == response_flags.page()


def test_a_flag_names_the_proxy_that_did_it() -> None:
    assert flags.words(request(flags=("FI",))) == [
        "FI: fault injected: an abort by the proxy of ui"
    ]
    refused = request(reporter="destination", details="rbac_access_denied_matched_policy[none]")
    assert flags.words(refused) == [
        "RBAC: access denied by the proxy of message: an AuthorizationPolicy"
    ]
