"""`guestbook route`: on the manifests of the exercises, and against what real Envoys do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from lab import names
from lab.cli import main
from lab.cluster.state import repository
from lab.explain import mutual_tls, request
from lab.explain.interpret.matchers import NoAnswerError
from lab.explain.steps import Explanation
from lab.istiod import tokens
from tests.support import harness
from tests.support.secured import apply, direct, get, mesh, talk

BASE = ("k8s/base", "istio/install/istio.yaml", "istio/clients")
INGRESS = ("istio/02-ingress/gateway.yaml", "istio/02-ingress/virtual-service.yaml")
V2 = ("istio/07-traffic-shifting/ui-v2.yaml", "istio/07-traffic-shifting/destination-rule.yaml")
CLOSED = "istio/10-egress/registry-only.yaml"
DENY = "istio/14-authorization/deny-all.yaml"


@dataclass(frozen=True)
class Told:
    """The command's answer, read from its JSON."""

    exit: int
    answer: Any

    def outcome(self) -> tuple[str, int | None]:
        return self.answer["outcome"], self.answer.get("status")

    def step(self, what: str) -> Any:
        """The step of a kind: what a destination says, else what is said of the request itself."""
        below = [step for target in self.answer["targets"] for step in target["steps"]]
        return next(step for step in [*below, *self.answer["steps"]] if step["what"] == what)

    def shares(self, key: str = "targets") -> dict[str, float]:
        return {target["cluster"]: target["share"] for target in self.answer[key]}


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Asks about a request on the guestbook's manifests and some more."""
    monkeypatch.chdir(repository())

    def asked(*words: str, files: tuple[str, ...] = ()) -> Told:
        named = [word for file in (*BASE, *files) for word in ("-f", file)]
        status = main(["route", *words, *named, "-o", "json"])
        return Told(status, json.loads(capsys.readouterr().out))

    return asked


def test_ingress(ask: Any) -> None:
    """Exercise 2: the way into the mesh, each step with its line."""
    assert ask("http://localhost:8080/").outcome() == ("refused", None)
    told = ask("http://localhost:8080/", files=INGRESS)
    assert told.outcome() == ("forwarded", None)
    assert told.step("listener")["place"] == "istio/02-ingress/gateway.yaml:10"
    assert told.step("route")["place"] == "istio/02-ingress/virtual-service.yaml:14"
    assert told.shares() == {"outbound|80||ui.default.svc.cluster.local": 1}
    assert told.answer["targets"][0]["endpoints"] == ["ui-0", "ui-1"]


def test_faults(ask: Any) -> None:
    """Exercises 3 and 4."""
    file = "istio/03-fault-abort/virtual-service.yaml"
    told = ask("--from", "ui", "http://guestbook-service/api/messages", files=(file,))
    assert (told.exit, told.outcome()) == (1, ("answered", 503))
    assert told.step("abort") == {
        "what": "abort",
        "says": "503 for 100%",
        "place": "istio/03-fault-abort/virtual-service.yaml:11",
    }
    file = "istio/04-fault-delay/virtual-service.yaml"
    told = ask("--from", "ui", "http://message-service/hello/x", files=(file,))
    assert (told.exit, told.outcome()) == (0, ("forwarded", None))
    assert told.step("delay")["says"] == "5s for 100%"


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("virtual-service.yaml", "3 more, on gateway-error,connect-failure"),
        ("virtual-service-2020.yaml", "3 more, on connect-failure,refused-stream,unavailable"),
    ],
)
def test_retries(ask: Any, file: str, says: str) -> None:
    """Exercise 5: what the text of 2020 retries today, and what it meant."""
    told = ask(
        "--from", "ui", "http://message-service/hello/x", files=(f"istio/05-retries/{file}",)
    )
    assert told.step("retries")["says"].startswith(says)
    assert told.step("retries")["place"].startswith(f"istio/05-retries/{file}:")


def test_circuit_breaker(ask: Any) -> None:
    """Exercise 6."""
    files = ("istio/06-circuit-breaker/destination-rule.yaml",)
    told = ask("--from", "ui", "http://message-service/hello/x", files=files)
    assert "maxConnections 100" in told.step("connection pool")["says"]
    assert told.step("outlier detection")["place"].endswith("destination-rule.yaml:15")


def test_shares_and_headers(ask: Any) -> None:
    """Exercises 7 and 8."""
    files = (*INGRESS, *V2, "istio/07-traffic-shifting/20-80.yaml")
    assert ask("http://localhost/", files=files).shares() == {
        "outbound|80|v1|ui.default.svc.cluster.local": 0.2,
        "outbound|80|v2|ui.default.svc.cluster.local": 0.8,
    }
    files = (*INGRESS, *V2, "istio/08-header-routing/virtual-service.yaml")
    chrome = ask("http://localhost/", "-H", "User-Agent: Mozilla Chrome/140", files=files)
    assert chrome.step("subset")["says"] == "v2 (version=2.0)"
    assert chrome.answer["targets"][0]["endpoints"] == ["ui-v2-0", "ui-v2-1"]
    assert ask("http://localhost/", files=files).step("subset")["says"] == "v1 (version=1.0)"


def test_mirror(ask: Any) -> None:
    """Exercise 9."""
    told = ask("--from", "ui", "http://message-service/hello/x", files=("istio/09-mirroring",))
    host = "message-service.default.svc.cluster.local"
    assert told.shares() == {f"outbound|80|v1|{host}": 1}
    assert told.shares("mirrors") == {f"outbound|80|v2|{host}": 1}


def test_egress(ask: Any) -> None:
    """Exercise 10: open, closed by a Sidecar or by the mesh, and opened for one host."""
    http, https = "http://www.google.com/", "https://google.com/"
    assert ask("--from", "ui", http).shares() == {"PassthroughCluster": 1}
    for file, line in ((CLOSED, 9), ("istio/install/egress-registry-only.yaml", 7)):
        told = ask("--from", "ui", http, files=(file,))
        assert told.outcome() == ("answered", 502)
        assert told.step("answer")["place"] == f"{file}:{line}"
        assert ask("--from", "ui", https, files=(file,)).outcome() == ("refused", None)
    files = (CLOSED, "istio/10-egress/google.yaml")
    assert ask("--from", "ui", https, files=files).shares() == {"outbound|443||google.com": 1}
    files = (CLOSED, "istio/10-egress/ubuntu.yaml")
    told = ask("--from", "ui", "http://archive.ubuntu.com/", files=files)
    assert told.shares() == {"outbound|80||*.ubuntu.com": 1}


def test_a_tcp_route(ask: Any, tmp_path: Path) -> None:
    """The rule that divides connections, with its line."""
    file = tmp_path / "redis.yaml"
    file.write_text(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: redis}\n"
        "spec:\n  hosts: [redis]\n  tcp:\n  - match: [{sourceLabels: {app: ui}}]\n"
        "    route:\n    - {destination: {host: redis}, weight: 75}\n"
        "    - {destination: {host: mysql}, weight: 25}\n"
    )
    told = ask("--from", "ui", "tcp://redis:6379", files=(str(file),))
    assert told.step("route")["says"] == "VirtualService default/redis, tcp[0]"
    assert told.step("route")["place"] == f"{file}:7"
    assert told.shares() == {
        "outbound|6379||redis.default.svc.cluster.local": 0.75,
        "outbound|3306||mysql.default.svc.cluster.local": 0.25,
    }
    told = ask("--from", "guestbook-service", "tcp://redis:6379", files=(str(file),))
    assert told.shares() == {"outbound|6379||redis.default.svc.cluster.local": 1}


def test_a_gateway_passes_tls_through(ask: Any, tmp_path: Path) -> None:
    file = tmp_path / "through.yaml"
    file.write_text(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: through}\n"
        "spec:\n  selector: {istio: ingressgateway}\n  servers:\n"
        "  - port: {number: 443, name: tls, protocol: TLS}\n"
        "    hosts: [a.example]\n    tls: {mode: PASSTHROUGH}\n---\n"
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: through}\n"
        "spec:\n  hosts: [a.example]\n  gateways: [through]\n  tls:\n"
        "  - match: [{sniHosts: [a.example]}]\n    route: [{destination: {host: ui}}]\n"
    )
    told = ask("https://a.example/", files=(str(file),))
    assert told.step("route")["place"] == f"{file}:18"
    assert told.shares() == {"outbound|80||ui.default.svc.cluster.local": 1}
    assert ask("https://b.example/", files=(str(file),)).outcome() == ("refused", None)


def test_rate_limit(ask: Any) -> None:
    """Exercise 11: what the rate limit service would be asked."""
    files = (*INGRESS, "istio/11-rate-limiting")
    account = ("-H", "x-plan: FREE", "-H", "x-account: foo")
    told = ask("http://localhost/", *account, files=files)
    assert "is asked about plan=FREE, account=foo" in told.step("rate limit")["says"]
    assert told.step("EnvoyFilter")["place"] == "istio/11-rate-limiting/filter-ratelimit.yaml:12"
    without = ask("http://localhost/", "-H", "x-plan: FREE", files=files)
    assert "is not asked" in without.step("rate limit")["says"]


def test_mutual_tls(ask: Any) -> None:
    """Exercise 13: STRICT shuts out who has no proxy."""
    files = ("istio/13-mutual-tls/peer-authentication.yaml",)
    url = "http://message-service.default/hello/x"
    assert ask("--from", "noistio/curl", url).outcome() == ("forwarded", None)
    told = ask("--from", "noistio/curl", url, files=files)
    assert told.outcome() == ("refused", None)
    assert told.step("answer")["place"] == f"{files[0]}:7"
    told = ask("--from", "curl", url, files=files)
    assert told.outcome() == ("forwarded", None)
    assert told.step("transport")["says"] == "mutual TLS; the pod's mode is STRICT"


@pytest.mark.parametrize(
    ("caller", "url", "policy"),
    [
        ("ingress", "http://localhost/", "ui-viewer"),
        ("ui", "http://message-service/hello/x", "message-viewer"),
        ("ui", "http://guestbook-service/api/messages", "guestbook-viewer"),
        ("ui", "tcp://redis:6379", "redis-tcp-policy"),
        ("guestbook-service", "tcp://mysql:3306", "mysql-tcp-policy"),
    ],
)
def test_authorization(ask: Any, caller: str, url: str, policy: str) -> None:
    """Exercise 14: closed by the empty policy, opened by one that names the caller."""
    told = ask("--from", caller, url, files=(*INGRESS, DENY))
    assert told.exit == 1
    assert told.step("answer")["place"] == f"{DENY}:7"
    file = f"istio/14-authorization/{policy}.yaml"
    told = ask("--from", caller, url, files=(*INGRESS, DENY, file))
    assert told.step("authorization")["says"] == f"allowed: allowed by default/{policy}"
    assert told.step("authorization")["place"].startswith(f"{file}:")
    if caller == "ui":
        assert ask("--from", "curl", url, files=(DENY, file)).exit == 1


def test_a_refusal_names_the_place_of_each_policy(ask: Any) -> None:
    viewer = "istio/14-authorization/ui-viewer.yaml"
    told = ask("-X", "DELETE", "http://localhost/", files=(*INGRESS, DENY, viewer))
    says = "denied: no rule of default/deny-all, default/ui-viewer matches"
    assert told.step("authorization")["says"] == says
    first, second = told.step("answer")["place"].split(", ")
    assert first == f"{DENY}:7"
    assert second.startswith(f"{viewer}:")


def test_tokens(ask: Any) -> None:
    """Exercise 15: no token, the right one, somebody else's, and one of an unknown issuer."""
    files = (*INGRESS, "istio/15-jwt")

    def claiming(*claims: str) -> tuple[str, int | None]:
        words = [word for claim in claims for word in ("--claim", claim)]
        outcome: tuple[str, int | None] = ask("http://localhost/", *words, files=files).outcome()
        return outcome

    assert claiming() == ("answered", 403)
    assert claiming("sub=testing@secure.istio.io") == ("forwarded", None)
    assert claiming("sub=somebody@secure.istio.io") == ("answered", 403)
    assert claiming("iss=another", "sub=testing@secure.istio.io") == ("answered", 401)


def test_ways_to_name_who_asks(ask: Any) -> None:
    for name, found in (
        ("ui", "default/ui-0"),
        ("ui-1", "default/ui-1"),
        ("pod/ui-1", "default/ui-1"),
        ("deploy/ui", "default/ui-0"),
        ("curl", "default/curl"),
        ("noistio/curl", "noistio/curl"),
        ("ingress", "istio-system/istio-ingressgateway-0"),
    ):
        assert ask("--from", name, "http://ui.default/").answer["from"] == found


def test_for_people(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository())
    named = [word for file in (*BASE, DENY) for word in ("-f", file)]
    assert main(["route", "--from", "ui", "tcp://redis:6379", *named]) == 1
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["tcp://redis:6379", "from", "default/ui-0"]
    assert lines[-1] == ["answer", "the", "connection", "is", "closed", f"{DENY}:7"]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--from", "nobody", "http://ui/"], "no pod, workload or app called nobody; there are: "),
        (["ftp://ui/"], "ftp://ui/ is no URL of the form"),
        (["redis:6379"], "or tcp://HOST:PORT"),
        (["-X", "PUT", "GET", "http://ui/"], "a request is [METHOD] URL"),
        (["--from", "ui", "tcp://redis"], "a TCP destination needs a port"),
        (["GET", "http://ui/", "more"], "a request is [METHOD] URL"),
        (["http://ui/", "-H", "nothing"], "'nothing' is not NAME: VALUE"),
    ],
)
def test_a_question_without_sense(
    words: list[str],
    error: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(repository())
    named = [word for file in BASE for word in ("-f", file)]
    assert main(["route", *words, *named]) == 1
    assert error in capsys.readouterr().err


# --- against real Envoys --------------------------------------------------------------------------

SIGNER = tokens.new_key()


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[harness.Mesh]:
    with mesh(tmp_path_factory.mktemp("mesh")) as made:
        yield made


def virtual_service(route: str, host: str = "message") -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {host}}}
spec: {{hosts: [{host}], http: [{route}]}}
"""


def destination_rule(spec: str, host: str = "message") -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: {host}}}
spec: {{host: {host}, {spec}}}
"""


def security(kind: str, spec: str) -> str:
    return f"""
apiVersion: security.istio.io/v1
kind: {kind}
metadata: {{name: {kind.lower()}, namespace: default}}
spec: {spec}
"""


TO = "route: [{destination: {host: message%s}}]"
STRICT = security("PeerAuthentication", "{mtls: {mode: STRICT}}")
NO_TLS = security("PeerAuthentication", "{mtls: {mode: DISABLE}}")
STRICT_ONE = security(
    "PeerAuthentication", "{selector: {matchLabels: {app: message}}, mtls: {mode: STRICT}}"
).replace("name: peerauthentication", "name: strict")
ONLY_UI = security(
    "AuthorizationPolicy",
    "{rules: [{from: [{source: {principals: [cluster.local/ns/default/sa/ui-sa]}}]}]}",
)
TOKEN = security(
    "RequestAuthentication",
    json.dumps(
        {"jwtRules": [{"issuer": "me", "jwks": tokens.key_set(SIGNER), "audiences": ["a"]}]}
    ),
)
REQUIRED = json.dumps(
    {
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": {"name": "required", "namespace": "default"},
        "spec": {
            "configPatches": [
                {
                    "applyTo": "HTTP_FILTER",
                    "match": {
                        "context": "SIDECAR_INBOUND",
                        "listener": {
                            "filterChain": {
                                "filter": {
                                    "name": "envoy.filters.network.http_connection_manager",
                                    "subFilter": {"name": "envoy.filters.http.jwt_authn"},
                                }
                            }
                        },
                    },
                    "patch": {
                        "operation": "REPLACE",
                        "value": {
                            "name": "envoy.filters.http.jwt_authn",
                            "typed_config": {
                                "@type": "type.googleapis.com/envoy.extensions.filters.http"
                                ".jwt_authn.v3.JwtAuthentication",
                                "providers": {
                                    "x": {
                                        "issuer": "me",
                                        "local_jwks": {"inline_string": tokens.key_set(SIGNER)},
                                    }
                                },
                                "rules": [
                                    {"match": {"prefix": "/"}, "requires": {"provider_name": "x"}}
                                ],
                            },
                        },
                    },
                }
            ]
        },
    }
)
CASES: dict[str, tuple[str, tuple[str, ...]]] = {
    "forwarded": ("http://message/", ()),
    "unknown host": ("http://nobody.example/", (CLOSED,)),
    "abort": (
        "http://message/",
        (virtual_service("{fault: {abort: {httpStatus: 418, percentage: {value: 100}}}, %s}"
                         % (TO % "")),),
    ),
    "no route": ("http://message/x", (virtual_service("{match: [{uri: {exact: /}}], %s}"
                                                      % (TO % "")),)),
    "redirect": ("http://message/", (virtual_service("{redirect: {uri: /x, redirectCode: 307}}"),)),
    "direct response": ("http://message/", (virtual_service("{directResponse: {status: 299}}"),)),
    "no such subset": ("http://message/", (virtual_service("{%s}" % (TO % ", subset: v9")),)),
    "empty subset": (
        "http://message/",
        (virtual_service("{%s}" % (TO % ", subset: v9")),
         destination_rule("subsets: [{name: v9, labels: {version: none}}]")),
    ),
    "strict": ("http://message/", (STRICT,)),
    "strict, TCP": ("tcp://store:7000", (STRICT,)),
    "strict, sent plain": (
        "http://message/",
        (STRICT, destination_rule("trafficPolicy: {tls: {mode: DISABLE}}")),
    ),
    "strict, sent plain, TCP": (
        "tcp://store:7000",
        (STRICT, destination_rule("trafficPolicy: {tls: {mode: DISABLE}}", "store")),
    ),
    "mutual TLS without a proxy": (
        "http://plain/",
        (destination_rule("trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}", "plain"),),
    ),
    "mutual TLS, not taken": (
        "http://message/",
        (NO_TLS, destination_rule("trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}")),
    ),
    "plain on both sides": ("http://message/", (NO_TLS,)),
    "a strict workload in a namespace without TLS": ("http://message/", (NO_TLS, STRICT_ONE)),
    "strict, sent TLS with no certificate": (
        "http://message/",
        (STRICT,
         destination_rule("trafficPolicy: {tls: {mode: SIMPLE, insecureSkipVerify: true}}")),
    ),
    "somebody else's TLS": (
        "http://message/",
        (destination_rule("trafficPolicy: {tls: {mode: SIMPLE, insecureSkipVerify: true}}"),),
    ),
    "only ui": ("http://message/", (ONLY_UI,)),
    "only ui, TCP": ("tcp://store:7000", (ONLY_UI,)),
    "tokens": ("http://message/", (TOKEN,)),
    "tokens, required by an EnvoyFilter": ("http://message/", (TOKEN, REQUIRED)),
    "tokens wanted": (
        "http://message/",
        (TOKEN, security("AuthorizationPolicy",
                         '{rules: [{from: [{source: {requestPrincipals: ["me/*"]}}]}]}')),
    ),
}  # fmt: skip

CLAIMS: tuple[dict[str, Any] | None, ...] = (
    None,
    {"iss": "me", "sub": "x", "aud": "a"},
    {"iss": "me", "sub": "x", "aud": ["b"]},
    {"iss": "you", "sub": "x", "aud": "a"},
)


PLACES = security(
    "RequestAuthentication",
    json.dumps(
        {
            "jwtRules": [
                {
                    "issuer": "me",
                    "jwks": tokens.key_set(SIGNER),
                    "audiences": ["a"],
                    "fromHeaders": [
                        {"name": "authorization", "prefix": "Bearer "},
                        {"name": "x-t"},
                    ],
                    "fromParams": ["token"],
                    "fromCookies": ["token"],
                    "outputClaimToHeaders": [{"header": "x-sub", "claim": "sub"}],
                }
            ]
        }
    ),
)
WANTED = security(
    "AuthorizationPolicy",
    json.dumps(
        {
            "rules": [
                {
                    "from": [{"source": {"requestPrincipals": ["me/*"]}}],
                    "when": [
                        {"key": "request.auth.claims[scope]", "values": ["read"]},
                        {"key": "request.headers[x-sub]", "values": ["x"]},
                    ],
                }
            ]
        }
    ),
)


def token(age: timedelta = timedelta(), key: Any = SIGNER, **claims: Any) -> str:
    given = {"iss": "me", "sub": "x", "aud": "a", "scope": "write read", **claims}
    kid = tokens.key_id(SIGNER)
    return tokens.mint(key, datetime.now(UTC) - age, claims=given, kid=kid)


GOOD = token()
LATE = token(age=timedelta(hours=2))
FORGED = token(key=tokens.new_key())
SENT: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "none": ("/", [("x-sub", "x")]),
    "good": ("/", [("authorization", f"Bearer {GOOD}")]),
    "expired": ("/", [("authorization", f"Bearer {LATE}")]),
    "forged": ("/", [("authorization", f"Bearer {FORGED}")]),
    "for another": ("/", [("authorization", f"Bearer {token(aud='b')}")]),
    "of another": ("/", [("authorization", f"Bearer {token(iss='you')}")]),
    "early": ("/", [("authorization", f"Bearer {token(nbf=2**40)}")]),
    "time as text": ("/", [("authorization", f"Bearer {token(exp='soon')}")]),
    "another scope": ("/", [("authorization", f"Bearer {token(scope='write reads')}")]),
    "scopes as a list": ("/", [("authorization", f"Bearer {token(scope=['read'])}")]),
    "another subject": ("/", [("authorization", f"Bearer {token(sub='y')}"), ("x-sub", "x")]),
    "no token": ("/", [("authorization", "Bearer some.thing")]),
    "no JSON": ("/", [("authorization", "Bearer YWJj.YWJj.YWJj")]),
    "another scheme": ("/", [("authorization", f"Basic {GOOD}")]),
    "twice": ("/", [("authorization", f"Bearer {GOOD}"), ("authorization", f"Bearer {GOOD}")]),
    "own header": ("/", [("x-t", GOOD)]),
    "two headers": ("/", [("x-t", GOOD), ("authorization", f"Bearer {GOOD}")]),
    "one of two is late": ("/", [("x-t", LATE), ("authorization", f"Bearer {GOOD}")]),
    "parameter": (f"/?a=b&token={GOOD}", []),
    "another parameter": (f"/?access_token={GOOD}", []),
    "cookie": ("/", [("cookie", f"a=b; token={GOOD}")]),
}


def test_a_token_is_checked_as_the_server_does(secured: harness.Mesh) -> None:
    apply(secured, PLACES, WANTED)
    pod = secured.pods["ui"].pod
    for name, (path, headers) in SENT.items():
        url = f"http://message{path}"
        told = request.explain(secured.snapshot(), pod, "GET", url, headers)
        proxy = f"http://{pod.inside_address}:{names.OUTBOUND_PORT}"
        with httpx.Client(proxy=proxy, timeout=10) as client:
            answer = client.get(url, headers=headers)
        said = [step.says for step in told.targets[0].steps if step.what == "answer"]
        real = [] if answer.status_code == 200 else [f"{answer.status_code} {answer.text}"]
        assert said == real, name


def test_keys_that_were_not_fetched(secured: harness.Mesh) -> None:
    policy = security("RequestAuthentication", '{jwtRules: [{issuer: me, jwksUri: "http://x/"}]}')
    secured.config = harness.resources(policy)
    pod, url = secured.pods["ui"].pod, "http://message/"
    bearer = [("authorization", f"Bearer {GOOD}")]
    with pytest.raises(NoAnswerError, match="the keys of me are not fetched"):
        request.explain(secured.snapshot(), pod, "GET", url, bearer)
    assert request.explain(secured.snapshot(), pod, "GET", url, claims={}).outcome == "forwarded"


def seen(
    secured: harness.Mesh, client: str, url: str, headers: dict[str, str]
) -> tuple[str, int | str | None]:
    """Outcome of a request: the pod that got it, a proxy's status, or a closed connection."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "tcp":
        said = talk(secured, client, host)
        return ("forwarded", host) if b'"pod": "store"' in said else ("refused", None)
    try:
        if client == "plain":
            answer = direct(secured.pods[host].pod, parts.path, headers)
        else:
            answer = get(secured, client, parts.path, host=host, headers=headers)
    except httpx.ReadError:
        return "refused", None
    if answer.headers.get("content-type") == "application/json":
        return "forwarded", answer.json()["pod"]
    return "answered", answer.status_code


@pytest.mark.parametrize("name", CASES)
def test_the_answer_is_what_happens(secured: harness.Mesh, name: str) -> None:
    url, manifests = CASES[name]
    texts = [(repository() / text).read_text() if text == CLOSED else text for text in manifests]
    apply(secured, *texts)
    clients = ["ui", "stranger"]
    if url == "http://message/" and "VirtualService" not in "".join(texts):
        clients.append("plain")  # a client outside the mesh meets what the server's proxy says
    for client in clients:
        for claims in CLAIMS if name.startswith("tokens") else (None,):
            headers = {}
            if claims is not None:
                minted = tokens.mint(SIGNER, datetime.now(UTC), issuer=claims["iss"], claims=claims)
                headers["authorization"] = f"Bearer {minted}"
            pod = secured.pods[client].pod
            told = request.explain(secured.snapshot(), pod, "GET", url, headers.items())
            expected: int | str | None = told.status
            if told.outcome == "forwarded":
                (expected,) = told.targets[0].pods
            assert (told.outcome, expected) == seen(secured, client, url, headers), (client, claims)
            if pod.proxy != "none" and name != "somebody else's TLS":
                assert conflicting(secured, url) == closed(told)


def conflicting(secured: harness.Mesh, url: str) -> bool:
    """Whether a conflict of mutual TLS is told about a URL's host."""
    host = urlsplit(url).hostname
    return any(one.host.split(".")[0] == host for one in mutual_tls.conflicts(secured.snapshot()))


def closed(told: Explanation) -> bool:
    """Whether the server's side refuses the transport of a request."""
    says = [step.says for target in told.targets for step in target.steps if step.what == "answer"]
    return any("closes connections" in one or "speaks mutual TLS" in one for one in says)


def test_without_automatic_mutual_tls_a_strict_pod_is_not_reached(secured: harness.Mesh) -> None:
    secured.mesh_config["enableAutoMtls"] = False
    try:
        apply(secured, STRICT)
        pod, url = secured.pods["ui"].pod, "http://message/"
        told = request.explain(secured.snapshot(), pod, "GET", url)
        assert (told.outcome, told.status) == seen(secured, "ui", url, {}) == ("answered", 503)
        assert conflicting(secured, url)
        assert closed(told)
    finally:
        del secured.mesh_config["enableAutoMtls"]
