"""Random routes, policies and requests: `guestbook route` says what the real Envoys then do."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lab import names
from lab.explain import request as explain
from lab.explain.steps import Explanation
from lab.istiod import tokens
from tests.support import harness
from tests.support.harness import APP_PORT, Mesh
from tests.support.properties import examples
from tests.support.secured import apply

CASES = 10
SIGNER = tokens.new_key()


def token(age: timedelta = timedelta(), key: Any = SIGNER, **claims: Any) -> str:
    given = {"iss": "me", "sub": "x", **claims}
    kid = tokens.key_id(SIGNER)
    return tokens.mint(key, datetime.now(UTC) - age, claims=given, kid=kid)


TOKENS = {
    "reader": token(scope="read write"),
    "writer": token(scope="write"),
    "late": token(timedelta(hours=2)),
    "forged": token(key=tokens.new_key()),
    "of another": token(iss="you"),
    "unreadable": "no.token",
}
POLICIES = f"""
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: tokens, namespace: default}}
spec:
  selector: {{matchLabels: {{app: guarded}}}}
  jwtRules: [{{issuer: me, jwks: '{tokens.key_set(SIGNER)}'}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: readers, namespace: default}}
spec:
  selector: {{matchLabels: {{app: guarded}}}}
  rules:
  - when: [{{key: "request.auth.claims[scope]", values: [read]}}]
  - to: [{{operation: {{paths: [/a/b], methods: [GET]}}}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: not-one, namespace: default}}
spec:
  selector: {{matchLabels: {{app: picky}}}}
  action: DENY
  rules:
  - when: [{{key: "request.headers[x-a]", values: [one]}}]
  - to: [{{operation: {{paths: [/b]}}}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: message, namespace: default}}
spec: {{host: message, subsets: [{{name: v1, labels: {{version: "1.0"}}}}]}}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: front, namespace: default}}
spec:
  selector: {{istio: ingressgateway}}
  servers: [{{port: {{number: 80, name: http, protocol: HTTP}}, hosts: ["*.example"]}}]
"""
PATHS = ["/", "/a", "/a/b", "/b", "/b/..;/a", "//a", "/a%2fb", "/b/%2e%2e/a", "/b/%2e%2e;/a"]

destinations = st.sampled_from(
    [
        {"host": "message"},
        {"host": "message", "subset": "v1"},
        {"host": "message", "subset": "v9"},
        {"host": "guarded"},
        {"host": "picky"},
        {"host": "plain"},
        {"host": "nobody"},
    ]
)


def maybe(name: str, *values: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.sampled_from([{}, {}, *({name: value} for value in values)])


def together(*parts: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.tuples(*parts).map(lambda some: {k: v for one in some for k, v in one.items()})


entries = together(
    destinations.map(lambda one: {"destination": one}),
    maybe(
        "headers",
        {"request": {"set": {"x-a": "one"}}},
        {"request": {"add": {"x-a": "two"}, "remove": ["x-b"]}},
        {"request": {"remove": ["x-a"]}},
    ),
)
shares = st.one_of(
    st.lists(entries, min_size=1, max_size=1),
    st.lists(entries, min_size=2, max_size=2).map(
        lambda two: [{**one, "weight": 50} for one in two]
    ),
    st.lists(entries, min_size=2, max_size=2).map(
        lambda two: [{**one, "weight": 100 * i} for i, one in enumerate(two)]
    ),
)
matches = together(
    maybe("uri", {"prefix": "/a"}, {"exact": "/a"}, {"exact": "/b"}, {"regex": "/[ab]"}),
    maybe("method", {"exact": "GET"}, {"exact": "OPTIONS"}),
    maybe("headers", {"x-a": {"exact": "one"}}, {"x-a": {"exact": "one,two"}}, {"x-a": {}}),
    maybe("withoutHeaders", {"x-a": {"exact": "two"}}, {"x-b": {}}),
)
cors = [
    {"allowOrigins": [{"exact": "https://ok"}], "unmatchedPreflights": unmatched}
    for unmatched in ("IGNORE", "FORWARD")
]
actions = st.one_of(
    together(
        shares.map(lambda some: {"route": some}),
        maybe("fault", {"abort": {"httpStatus": 418, "percentage": {"value": 100}}}),
        maybe("corsPolicy", *cors),
        maybe("rewrite", {"uri": "/b"}, {"authority": "other"}, {"uri": "/a/b"}),
        maybe(
            "headers",
            *({"request": one} for one in ({"set": {"x-a": "two"}}, {"add": {"x-a": "one"}})),
            {"request": {"remove": ["x-a"]}},
        ),
    ),
    together(
        st.sampled_from(
            [
                {"redirect": {"uri": "/x"}},
                {"redirect": {"authority": "other", "redirectCode": 307}},
                {"directResponse": {"status": 299}},
            ]
        ),
        maybe("corsPolicy", *cors),
    ),
)
rules = together(actions, matches.map(lambda one: {"match": [one]} if one else {}))
services = st.tuples(
    st.lists(rules, min_size=1, max_size=4),
    st.sampled_from([["front", "mesh"], ["front", "mesh"], ["mesh"], ["front"]]),
)
CLIENT = "cluster.local/ns/default/sa/client-sa"
policy_rules = together(
    maybe(
        "from",
        *(
            [{"source": source}]
            for source in (
                {"principals": [CLIENT]},
                {"notPrincipals": [CLIENT]},
                {"namespaces": ["istio-system"]},
            )
        ),
    ),
    maybe(
        "to",
        *(
            [{"operation": operation}]
            for operation in (
                {"paths": ["/a*"]},
                {"notPaths": ["/b"]},
                {"methods": ["GET"]},
                {"hosts": ["h0.example", "*1.example"]},
                {"ports": [str(APP_PORT)]},
                {"ports": ["81"]},
            )
        ),
    ),
    maybe(
        "when",
        [{"key": "request.headers[x-a]", "values": ["one"]}],
        [{"key": "request.headers[x-a]", "notValues": ["one*"]}],
    ),
)
policies = st.lists(
    st.tuples(
        st.sampled_from(["ALLOW", "DENY"]), st.lists(policy_rules, min_size=1, max_size=2)
    ).map(lambda pair: {"action": pair[0], "rules": pair[1]}),
    max_size=2,
)
headers = st.tuples(
    st.lists(st.tuples(st.just("x-a"), st.sampled_from(["one", "two", "one,two"])), max_size=2),
    st.sampled_from([[], [("x-b", "")]]),
    st.sampled_from([[], [("origin", "https://ok")], [("origin", "https://other")]]),
    st.sampled_from([[], [("access-control-request-method", "GET")]]),
    st.sampled_from([[], *([("authorization", name)] for name in TOKENS)]),
).map(lambda some: [pair for one in some for pair in one])
requests = st.tuples(
    st.sampled_from(["client", "gateway"]),
    st.sampled_from(["GET", "OPTIONS", "OPTIONS"]),
    st.sampled_from(PATHS),
    headers,
)
cases = st.lists(
    st.tuples(services, st.lists(requests, min_size=6, max_size=12)), min_size=8, max_size=CASES
)


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with harness.mesh(tmp_path_factory.mktemp("mesh")) as made:
        for name in ("client", "message", "guarded", "picky"):
            made.add(name, proxy="sidecar")
            made.service(name)
        made.add("plain")
        made.service("plain")
        made.gateway()
        made.certify()
        made.mesh_config["outboundTrafficPolicy"] = {"mode": "REGISTRY_ONLY"}
        made.config = harness.resources(POLICIES)
        made.start()
        yield made


def manifest(host: str, rules: list[dict[str, Any]], gateways: list[str]) -> dict[str, Any]:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": host.partition(".")[0], "namespace": "default"},
        "spec": {"hosts": [host], "gateways": gateways, "http": rules},
    }


def policy(index: int, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": f"limit-{index}", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "message"}}, **spec},
    }


@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@examples(20)
@given(many=cases, limits=policies)
def test_route_and_the_traffic_agree(mesh: Mesh, many: list[Any], limits: list[Any]) -> None:
    hosts = [f"h{index}.example" for index in range(len(many))]
    made = [manifest(host, *service) for host, (service, _) in zip(hosts, many, strict=True)]
    made += [policy(index, limit) for index, limit in enumerate(limits)]
    apply(mesh, POLICIES, yaml.safe_dump_all(made))
    snapshot = mesh.snapshot()
    for host, (service, asked) in zip(hosts, many, strict=True):
        for client, method, path, named in asked:
            sent = [
                (name, f"Bearer {TOKENS[text]}" if text in TOKENS else text) for name, text in named
            ]
            pod = mesh.pods[client].pod
            told = explain.explain(snapshot, pod, method, f"http://{host}{path}", sent)
            real = send(mesh, client, method, host, path, sent)
            seen = (client, method, host, path, named, service, limits, told, real)
            assert real in outcomes(told), seen


def send(
    mesh: Mesh, client: str, method: str, host: str, path: str, sent: list[tuple[str, str]]
) -> int | str:
    """Returns the pod that answers a request, else the status of a proxy's answer."""
    pod = mesh.pods[client].pod
    inside = (pod.inside_address, names.OUTBOUND_PORT)
    place = inside if client == "client" else (pod.address, APP_PORT)
    target = f"http://{host}{path}" if client == "client" else path
    with closing(http.client.HTTPConnection(*place)) as connection:
        connection.putrequest(method, target, skip_host=True)
        for name, value in [("host", host), *sent]:
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        text = answer.read()
        if answer.headers.get("content-type") == "application/json":
            return str(json.loads(text)["pod"])
        return answer.status


def outcomes(told: Explanation) -> set[int | str | None]:
    """The outcomes that an explanation allows: one for each share of the requests."""
    if not told.targets:
        return {told.status}
    found: set[int | str | None] = set()
    for target in told.targets:
        answers = [step.says for step in target.steps if step.what == "answer"]
        if target.share:
            found |= {int(answers[0][:3])} if answers else set(target.pods)
    return found
