"""AuthorizationPolicy between real Envoys: what a client sees, and what the lab says of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.explain.decision import Decision, Request, decide
from tests.support import harness
from tests.support.secured import apply, direct, get, mesh, talk
from tests.support.wait import wait

UI = "spiffe://cluster.local/ns/default/sa/ui-sa"
STRANGER = "spiffe://cluster.local/ns/default/sa/stranger-sa"


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[harness.Mesh]:
    with mesh(tmp_path_factory.mktemp("mesh")) as made:
        yield made


def policy(spec: str, name: str = "tested", namespace: str = "default", extra: str = "") -> str:
    return (
        "\n---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
        f"metadata: {{name: {name}, namespace: {namespace}{extra}}}\nspec: {spec}\n"
    )


def denied(secured: harness.Mesh, client: str = "ui", path: str = "/", method: str = "GET") -> bool:
    answer = get(secured, client, path, method=method)
    if answer.status_code == 403:
        assert answer.text == "RBAC: access denied"
        return True
    assert answer.status_code == 200, answer.text
    return False


def closed(secured: harness.Mesh, client: str = "ui") -> bool:
    return talk(secured, client, "store") == b""


def said(secured: harness.Mesh, request: Request, *, tcp: bool = False) -> Decision:
    target = secured.pods["store" if tcp else "message"].pod
    return decide(secured.snapshot(), target, request, tcp=tcp)


def test_no_policy_lets_everybody_in(secured: harness.Mesh) -> None:
    apply(secured)
    assert not denied(secured)
    assert not closed(secured)
    assert said(secured, Request(port=8080)).reason == "no ALLOW policy applies"


def test_an_empty_policy_denies_everything(secured: harness.Mesh) -> None:
    apply(secured, policy("{}", "deny-all"))
    assert denied(secured)
    assert closed(secured)
    assert direct(secured.pods["message"].pod).status_code == 403
    decision = said(secured, Request(port=8080))
    assert not decision.allowed
    assert decision.reason == "no rule of default/deny-all matches"
    assert decision.place == "test.yaml:6"
    wait(lambda: "rbac_access_denied_matched_policy[none]" in secured.pods["message"].log)


def test_an_empty_rule_allows_everything(secured: harness.Mesh) -> None:
    apply(secured, policy("{rules: [{}]}", "allow-all"))
    assert not denied(secured)
    assert not closed(secured)
    assert said(secured, Request(port=8080)).reason == "allowed by default/allow-all"


def test_deny_beats_allow_and_names_itself_in_the_log(secured: harness.Mesh) -> None:
    apply(
        secured,
        policy("{rules: [{}]}", "allow-all")
        + policy(
            "{action: DENY, rules: [{to: [{operation: {methods: [DELETE], ports: ['8080']}}]}]}",
            "no-delete",
        ),
    )
    assert denied(secured, method="DELETE")
    assert not denied(secured)
    wait(
        lambda: (
            "rbac_access_denied_matched_policy[ns[default]-policy[no-delete]-rule[0]]"
            in secured.pods["message"].log
        )
    )
    decision = said(secured, Request(port=8080, method="DELETE"))
    assert (decision.allowed, decision.reason) == (False, "denied by default/no-delete")
    assert decision.rule == 0


def test_from_is_the_identity_in_the_certificate(secured: harness.Mesh) -> None:
    spec = (
        "{selector: {matchLabels: {app: message}}, rules: [{from: [{source: "
        "{principals: [cluster.local/ns/default/sa/ui-sa]}}], "
        "to: [{operation: {methods: [GET]}}]}]}"
    )
    apply(secured, policy(spec))
    assert denied(secured, "stranger")
    assert not denied(secured, "ui")
    assert denied(secured, "ui", method="POST")
    assert direct(secured.pods["message"].pod).status_code == 403, "plain text has no identity"
    assert not closed(secured, "stranger"), "the policy selects another workload"
    for peer, expected in ((UI, True), (STRANGER, False), (None, False)):
        assert said(secured, Request(port=8080, peer=peer)).allowed is expected


def test_from_and_to_in_two_items_are_two_ways_in(secured: harness.Mesh) -> None:
    principals = "{source: {principals: [cluster.local/ns/default/sa/ui-sa]}}"
    apart = f"{{rules: [{{from: [{principals}]}}, {{to: [{{operation: {{ports: ['8080']}}}}]}}]}}"
    together = f"{{rules: [{{from: [{principals}], to: [{{operation: {{ports: ['8080']}}}}]}}]}}"
    apply(secured, policy(apart))
    assert not closed(secured, "stranger")
    assert said(secured, Request(port=8080, peer=STRANGER), tcp=True).allowed
    apply(secured, policy(together))
    assert closed(secured, "stranger")
    assert not closed(secured, "ui")
    assert not said(secured, Request(port=8080, peer=STRANGER), tcp=True).allowed


def test_http_fields_on_tcp_close_the_port_for_allow_and_for_deny(secured: harness.Mesh) -> None:
    """ALLOW loses the rule, so nothing is allowed; DENY loses the field, so all is denied."""
    get_only = "to: [{operation: {methods: [GET]}}]"
    apply(secured, policy(f"{{rules: [{{{get_only}}}]}}"))
    assert closed(secured)
    assert not denied(secured)
    assert not said(secured, Request(port=8080, peer=UI), tcp=True).allowed
    apply(secured, policy(f"{{action: DENY, rules: [{{{get_only.replace('GET', 'PUT')}}}]}}"))
    assert denied(secured, method="PUT")
    assert closed(secured)
    assert not denied(secured)
    assert not said(secured, Request(port=8080, peer=UI), tcp=True).allowed


def test_ports_are_the_containers(secured: harness.Mesh) -> None:
    apply(secured, policy("{rules: [{to: [{operation: {ports: ['80']}}]}]}"))
    assert denied(secured)
    apply(secured, policy("{rules: [{to: [{operation: {ports: ['8080']}}]}]}"))
    assert not denied(secured)


def test_paths_are_without_the_query(secured: harness.Mesh) -> None:
    apply(secured, policy("{rules: [{to: [{operation: {paths: [/hello/*, '/v1/{*}/x']}}]}]}"))
    assert denied(secured, path="/other")
    assert not denied(secured, path="/hello/test?secret=/other")
    assert not denied(secured, path="/v1/anything/x")
    assert denied(secured, path="/v1/a/b/x")
    assert denied(secured, path="/hello/../admin"), "the path is normalised first"


def test_the_root_namespaces_policy_is_for_all(secured: harness.Mesh) -> None:
    apply(secured, policy("{}", namespace="istio-system"))
    assert denied(secured)
    apply(secured, policy("{}", namespace="elsewhere"))
    assert not denied(secured)


def test_a_dry_run_only_remarks(secured: harness.Mesh) -> None:
    annotation = ", annotations: {istio.io/dry-run: 'true'}"
    apply(secured, policy("{action: DENY, rules: [{}]}", "rehearsal", extra=annotation))
    wait(
        lambda: (
            not denied(secured)
            and secured.pods["message"].admin.stats("istio_dry_run_deny_.shadow_denied")
        )
    )
    decision = said(secured, Request(port=8080))
    assert decision.allowed
    assert decision.remarks == ("default/rehearsal (dry run, DENY) matches",)


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("{action: DENY}", "DENY action without rules is meaningless"),
        ("{rules: [{from: []}]}", "from must not be empty, found at rule 0"),
        ("{rules: [{to: [{operation: {}}]}]}", "to.operation must not be empty, found at rule 0"),
        ("{rules: [{to: [{operation: {ports: [http]}}]}]}", "bad port (http)"),
        ("{rules: [{from: [{source: {ipBlocks: [10.0.0.0/33]}}]}]}", "bad CIDR range"),
        ("{rules: [{when: [{key: request.color, values: [a]}]}]}", "unknown attribute: request.co"),
        (
            "{rules: [{when: [{key: source.ip}]}]}",
            "at least one of values or notValues must be set",
        ),
        (
            "{rules: [{to: [{operation: {paths: ['/{**}/a/{*}']}}]}]}",
            "{**} is not the last operator",
        ),
        ("{action: CUSTOM, rules: [{}]}", "external authorizers (action CUSTOM)"),
        ("{targetRefs: [{kind: Gateway, name: x}]}", "selector.matchLabels"),
        ("{rules: [{fron: []}]}", "fron"),
    ],
)
def test_what_istio_rejects_is_rejected(spec: str, problem: str) -> None:
    from lab.manifests.load import ManifestError

    with pytest.raises(ManifestError) as raised:
        harness.resources(policy(spec))
    assert problem in str(raised.value)
    assert "test.yaml:" in str(raised.value)
