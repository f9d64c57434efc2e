"""AuthorizationPolicy between real Envoys: the client's answer, and the one of `route`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.explain import request
from tests.support import harness
from tests.support.secured import apply, direct, get, mesh, talk
from tests.support.wait import wait

UNGUARDED = [("allowed: no ALLOW policy applies", "")]


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


def said(
    secured: harness.Mesh, client: str = "ui", method: str = "GET", *, tcp: bool = False
) -> list[tuple[str, str]]:
    """The authorization steps of `route`, each with its place."""
    pod = secured.pods[client].pod
    url = "tcp://store:7000" if tcp else "http://message/"
    (target,) = request.explain(secured.snapshot(), pod, method, url).targets
    return [(step.says, step.place) for step in target.steps if step.what == "authorization"]


def test_no_policy_lets_everybody_in(secured: harness.Mesh) -> None:
    apply(secured)
    assert not denied(secured)
    assert not closed(secured)
    assert said(secured) == UNGUARDED


def test_an_empty_policy_denies_everything(secured: harness.Mesh) -> None:
    apply(secured, policy("{}", "deny-all"))
    assert denied(secured)
    assert closed(secured)
    assert direct(secured.pods["message"].pod).status_code == 403
    assert said(secured) == [("denied: no rule of default/deny-all matches", "test.yaml:6")]
    wait(lambda: "rbac_access_denied_matched_policy[none]" in secured.pods["message"].log)


def test_an_empty_rule_allows_everything(secured: harness.Mesh) -> None:
    apply(secured, policy("{rules: [{}]}", "allow-all"))
    assert not denied(secured)
    assert not closed(secured)
    assert said(secured)[0][0] == "allowed: allowed by default/allow-all"


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
    assert said(secured, method="DELETE")[0][0] == "denied: denied by default/no-delete"


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
    for client, verdict in (("ui", "allowed"), ("stranger", "denied"), ("plain", "denied")):
        assert said(secured, client)[0][0].startswith(verdict)


def test_from_and_to_in_two_items_are_two_ways_in(secured: harness.Mesh) -> None:
    principals = "{source: {principals: [cluster.local/ns/default/sa/ui-sa]}}"
    apart = f"{{rules: [{{from: [{principals}]}}, {{to: [{{operation: {{ports: ['8080']}}}}]}}]}}"
    together = f"{{rules: [{{from: [{principals}], to: [{{operation: {{ports: ['8080']}}}}]}}]}}"
    apply(secured, policy(apart))
    assert not closed(secured, "stranger")
    assert said(secured, "stranger", tcp=True)[0][0].startswith("allowed")
    apply(secured, policy(together))
    assert closed(secured, "stranger")
    assert not closed(secured, "ui")
    assert said(secured, "stranger", tcp=True)[0][0].startswith("denied")


def test_http_fields_on_tcp_close_the_port_for_allow_and_for_deny(secured: harness.Mesh) -> None:
    """ALLOW loses the rule, so nothing is allowed; DENY loses the field, so all is denied."""
    get_only = "to: [{operation: {methods: [GET]}}]"
    apply(secured, policy(f"{{rules: [{{{get_only}}}]}}"))
    assert closed(secured)
    assert not denied(secured)
    assert said(secured, tcp=True)[0][0] == "denied: no rule of default/tested matches"
    apply(secured, policy(f"{{action: DENY, rules: [{{{get_only.replace('GET', 'PUT')}}}]}}"))
    assert denied(secured, method="PUT")
    assert closed(secured)
    assert not denied(secured)
    assert said(secured, tcp=True)[0][0] == "denied: denied by default/tested"


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


def test_the_clients_address_is_the_last_that_was_forwarded_for(secured: harness.Mesh) -> None:
    block = "{action: DENY, rules: [{from: [{source: {remoteIpBlocks: [203.0.113.0/24]}}]}]}"
    apply(secured, policy(block))
    pod = secured.pods["ui"].pod
    for sent in ("203.0.113.7", "198.51.100.1, 203.0.113.7", "203.0.113.7, 198.51.100.1", "x"):
        named = [("x-forwarded-for", sent)]
        status = get(secured, headers=dict(named)).status_code
        (target,) = request.explain(
            secured.snapshot(), pod, "GET", "http://message/", named
        ).targets
        told = [step.says for step in target.steps if step.what == "authorization"]
        assert told[0].startswith("denied" if status == 403 else "allowed"), sent
        assert status == (403 if sent.endswith("203.0.113.7") else 200), sent


def test_a_dry_run_only_remarks(secured: harness.Mesh) -> None:
    annotation = ", annotations: {istio.io/dry-run: 'true'}"
    apply(secured, policy("{action: DENY, rules: [{}]}", "rehearsal", extra=annotation))
    wait(
        lambda: (
            not denied(secured)
            and secured.pods["message"].admin.stats("istio_dry_run_deny_.shadow_denied")
        )
    )
    assert said(secured) == [*UNGUARDED, ("default/rehearsal (dry run, DENY) matches", "")]


def envoy_filter(patch: str, context: str = "SIDECAR_INBOUND") -> str:
    """An EnvoyFilter for the RBAC filter of `message`."""
    return f"""
---
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {{name: patched, namespace: default}}
spec:
  workloadSelector: {{labels: {{app: message}}}}
  configPatches:
  - applyTo: HTTP_FILTER
    match:
      context: {context}
      listener:
        filterChain:
          filter:
            name: envoy.filters.network.http_connection_manager
            subFilter: {{name: envoy.filters.http.rbac}}
    patch: {patch}
"""


RBAC = (
    "{name: envoy.filters.http.rbac, typed_config: {'@type': "
    "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC, rules: %s}}"
)
POLICY = (
    "{permissions: [{header: {name: ':method', string_match: {exact: POST}}}], "
    "principals: [{any: true}]}"
)


def test_an_envoy_filter_that_removes_the_rbac_filter_opens_the_pod(secured: harness.Mesh) -> None:
    apply(secured, policy("{}", "deny-all"))
    assert denied(secured)
    assert said(secured)[0][0].startswith("denied")
    apply(secured, policy("{}", "deny-all") + envoy_filter("{operation: REMOVE}"))
    assert not denied(secured)
    assert said(secured) == UNGUARDED
    pod = secured.pods["ui"].pod
    (target,) = request.explain(secured.snapshot(), pod, "GET", "http://message/").targets
    assert "EnvoyFilter" in [step.what for step in target.steps]


def test_an_envoy_filter_that_replaces_the_rbac_filter_decides(secured: harness.Mesh) -> None:
    rules = f"{{action: DENY, policies: {{no-posts: {POLICY}}}}}"
    patch = f"{{operation: REPLACE, value: {RBAC % rules}}}"
    apply(secured, policy("{}", "deny-all") + envoy_filter(patch))
    for method, verdict in (("GET", UNGUARDED), ("POST", [("denied: denied by no-posts", "")])):
        assert denied(secured, method=method) is (method == "POST")
        assert said(secured, method=method) == verdict


def test_an_envoy_filter_that_extends_a_policy_decides(secured: harness.Mesh) -> None:
    """A merge adds a policy to those of the filter, whose action ALLOW is protobuf's default."""
    rules = f"{{policies: {{posts: {POLICY}}}}}"
    patch = f"{{operation: MERGE, value: {RBAC % rules}}}"
    apply(secured, policy("{}", "deny-all") + envoy_filter(patch))
    assert denied(secured)
    assert said(secured)[0][0] == "denied: no rule of default/deny-all, posts matches"
    assert not denied(secured, method="POST")
    assert said(secured, method="POST") == [("allowed: allowed by posts", "")]


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("{action: DENY}", "DENY action without rules is meaningless"),
        ("{rules: [{from: [{}]}]}", "from.source must not be nil, found at rule 0"),
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
        ("{action: CUSTOM, rules: [{}]}", "`provider.name` must not be empty"),
        ("{targetRefs: [{kind: Gateway, name: x}]}", "selector.matchLabels"),
        ("{rules: [{fron: []}]}", "fron"),
    ],
)
def test_what_istio_rejects_is_rejected(spec: str, problem: str) -> None:
    from lab.manifests.read import ManifestError

    with pytest.raises(ManifestError) as raised:
        harness.resources(policy(spec))
    assert problem in str(raised.value)
    assert "test.yaml:" in str(raised.value)
