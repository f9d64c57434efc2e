"""Three readings of random AuthorizationPolicies agree: the real Envoy's, `guestbook route`'s of
the RBAC filters, and a plain Python reading of the policies.

One Envoy holds the policies of many cases, each on a route of its own, so that an example is a
start of Envoy and a few hundred requests.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import re
import ssl
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lab.envoy import tls
from lab.explain.interpret import jwt, matchers, rbac
from lab.explain.interpret.matchers import Request
from lab.explain.interpret.routing import configurations
from lab.istiod import authority, tokens
from lab.kinds.authorization_policy import becomes as authorization
from lab.kinds.mesh_config import becomes as mesh_config
from lab.kinds.request_authentication import becomes as request_authentication
from lab.model import Json, Pod, Snapshot
from lab.xds import ROUTER, extension
from tests.support import harness
from tests.support.envoy import LOG, envoy
from tests.support.properties import examples
from tests.support.wait import wait

PORT = 8080
SIGNER = tokens.new_key()
POD = Pod(
    namespace="default",
    name="target",
    labels={"app": "target"},
    annotations={},
    service_account="target-sa",
    address="127.77.0.1",
    inside_address="127.78.0.1",
    ports={"http": PORT},
    ready=True,
    proxy="sidecar",
)
ACCOUNTS = {"ui": ("default", "ui-sa"), "other": ("prod-a", "ui-sa-2")}
ISSUER = "https://a/b"
BASE = mesh_config.normalization(mesh_config.defaults({}))

values = st.sampled_from


def some(*choices: str) -> st.SearchStrategy[list[str]]:
    return st.lists(values(choices), min_size=1, max_size=2, unique=True)


FIELDS: dict[str, st.SearchStrategy[list[str]]] = {
    "principals": some(
        "*", "cluster.local/ns/default/sa/ui-sa", "cluster.local/ns/*", "*/sa/ui-sa-2", "ui-sa"
    ),
    "namespaces": some("default", "prod-*", "*", "*-a", "prod", "de.ault"),
    "requestPrincipals": some("*", f"{ISSUER}/ann", f"{ISSUER}/*", "*/ann", "*nn", f"{ISSUER}*"),
    "trustDomains": some("cluster.local", "*", "cluster*", "other"),
    "ipBlocks": some("127.0.0.1", "127.0.0.0/8", "10.0.0.0/8"),
    "remoteIpBlocks": some("127.0.0.1", "10.1.0.0/16"),
}
OPERATIONS: dict[str, st.SearchStrategy[list[str]]] = {
    "methods": some("GET", "P*", "*", "*ST", "DELETE"),
    "paths": some("/a", "/a*", "*/b", "*", "/{*}/b", "/{**}", "/a/{**}", "/A"),
    "hosts": some("h.example", "H.Example", "h.example:81", "*.example", "h*", "*"),
    "ports": some(str(PORT), "9"),
}
KEYS: dict[str, st.SearchStrategy[list[str]]] = {
    "request.headers[x-a]": some("1", "1*", "*2", "*"),
    "request.auth.claims[groups]": some("g1", "g*", "*"),
    "request.auth.claims[deep][er]": some("x", "*y"),
    "request.auth.claims[scope]": some("read", "read write", "wr*"),
    "request.auth.audiences": some("aud1", "*2"),
    "source.namespace": some("default", "prod-a"),
    "source.serviceAccount": some("ui-sa", "prod-a/ui-sa-2", "default/ui-sa"),
    "destination.port": some(str(PORT), "9"),
    "connection.sni": some("s.example", "s*", "*"),
}


def named(name: str, strategy: st.SearchStrategy[list[str]]) -> st.SearchStrategy[Json]:
    """The field with some values, as it is or as its `not`."""
    negated = f"not{name[0].upper()}{name[1:]}"
    return st.one_of(
        [strategy.map(lambda found, key=key: {key: found}) for key in (name, negated)]  # type: ignore[misc]
    )


def fields(known: Mapping[str, st.SearchStrategy[list[str]]]) -> st.SearchStrategy[Json]:
    """One or two fields of a source or an operation."""
    one = st.one_of([named(name, strategy) for name, strategy in known.items()])
    return st.one_of(one, st.tuples(one, one).map(lambda pair: {**pair[0], **pair[1]}))


def condition(key: str, strategy: st.SearchStrategy[list[str]]) -> st.SearchStrategy[Json]:
    plain = st.fixed_dictionaries({"key": st.just(key), "values": strategy})
    return st.one_of(plain, st.fixed_dictionaries({"key": st.just(key), "notValues": strategy}))


conditions = st.one_of([condition(key, strategy) for key, strategy in KEYS.items()])
rules = st.fixed_dictionaries(
    {},
    optional={
        "from": st.lists(fields(FIELDS).map(lambda f: {"source": f}), min_size=1, max_size=2),
        "to": st.lists(fields(OPERATIONS).map(lambda f: {"operation": f}), min_size=1, max_size=2),
        "when": st.lists(conditions, min_size=1, max_size=2),
    },
)
policies = st.fixed_dictionaries(
    {"action": values(["ALLOW", "ALLOW", "DENY"])},
    optional={"rules": st.lists(rules, min_size=1, max_size=2)},
).filter(lambda spec: spec["action"] == "ALLOW" or "rules" in spec)


@dataclass(frozen=True)
class Asked:
    """A request as a client sends it."""

    method: str
    path: str
    host: str
    header: str | None
    peer: str | None
    claims: tuple[tuple[str, Any], ...] | None


claim_sets = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {"sub": values(["ann", "bob"])},
        optional={
            "groups": values([["g1", "h"], "g1", "h", ["h"], 7]),
            "deep": values([{"er": "x"}, {"er": ["ay"]}, "x"]),
            "scope": values(["read write", "write", ["read"]]),
            "aud": values(["aud1", ["aud1", "aud2"]]),
        },
    ).map(lambda found: tuple(found.items())),
)
requests = st.builds(
    Asked,
    method=values(["GET", "POST", "PUT", "DELETE"]),
    path=values(
        [
            "/a",
            "/a/b",
            "/a?x=/b",
            "/ab",
            "/b",
            "/a/../b",
            "/a//b",
            "/",
            "/a/./b",
            "/a/%2e%2e/b",
            "/a/b/..",
        ]
    ),
    host=values(["h.example", "h.example:81", "H.EXAMPLE", "i.example", "other"]),
    header=values([None, "1", "12", "2"]),
    peer=values([None, "ui", "other"]),
    claims=claim_sets,
)
cases = st.lists(
    st.tuples(
        st.lists(policies, min_size=1, max_size=2), st.lists(requests, min_size=4, max_size=4)
    ),
    min_size=40,
    max_size=40,
)


def parsed(specs: list[Json]) -> dict[str, Any]:
    documents = [
        {
            "apiVersion": "security.istio.io/v1",
            "kind": "AuthorizationPolicy",
            "metadata": {"name": f"p{index}", "namespace": "default"},
            "spec": spec,
        }
        for index, spec in enumerate(specs)
    ]
    return harness.resources(yaml.safe_dump_all(documents))


KEYS_OF_ISSUER = harness.resources(
    yaml.safe_dump(
        {
            "apiVersion": "security.istio.io/v1",
            "kind": "RequestAuthentication",
            "metadata": {"name": "a", "namespace": "default"},
            "spec": {"jwtRules": [{"issuer": ISSUER, "jwks": tokens.key_set(SIGNER)}]},
        }
    )
)


def authenticated(snapshot: Snapshot) -> Snapshot:
    """The same mesh, accepting the tokens of ISSUER."""
    return replace(snapshot, config={**snapshot.config, **KEYS_OF_ISSUER})


def configuration(snapshots: list[Snapshot], folder: Path, host: str) -> Json:
    """An Envoy with a plain and a mutual TLS listener, and a route for each case."""
    empty_mesh = Snapshot(services=(), pods=(POD,), config={}, certificates=str(folder))
    base = authenticated(empty_mesh)
    actions = ("AUDIT", "DENY", "ALLOW")
    empty = [
        extension(f"rbac-{action}", "extensions.filters.http.rbac.v3.RBAC") for action in actions
    ]
    routes = []
    for index, snapshot in enumerate(snapshots):
        per_filter = {}
        for made in authorization.http_filters(snapshot, POD):
            body = {k: v for k, v in made["typed_config"].items() if k != "@type"}
            per_filter[f"rbac-{body['rules']['action']}"] = {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute",
                "rbac": body,
            }
        matcher = {"name": "x-case", "string_match": {"exact": str(index)}}
        routes.append(
            {
                "match": {"prefix": "/", "headers": [matcher]},
                "direct_response": {"status": 200},
                "typed_per_filter_config": per_filter,
            }
        )
    manager = extension(
        "envoy.filters.network.http_connection_manager",
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="x",
        normalize_path=True,
        route_config={"virtual_hosts": [{"name": "a", "domains": ["*"], "routes": routes}]},
        http_filters=[*request_authentication.http_filters(base, POD), *empty, ROUTER],
    )
    chains: list[Json] = [
        {"filter_chain_match": {"transport_protocol": "raw_buffer"}, "filters": [manager]},
        {
            "filter_chain_match": {"transport_protocol": "tls"},
            "filters": [manager],
            "transport_socket": tls.downstream_context(base, POD, tcp=False),
        },
    ]
    inspector = extension(
        "envoy.filters.listener.tls_inspector",
        "extensions.filters.listener.tls_inspector.v3.TlsInspector",
    )
    listener = {
        "name": "a",
        "address": {"socket_address": {"address": host, "port_value": PORT}},
        "listener_filters": [inspector],
        "filter_chains": chains,
    }
    return {
        "node": {"id": "a", "cluster": "a"},
        "static_resources": {"listeners": [listener]},
    }


@contextmanager
def running(folder: Path, bootstrap: Json, host: str) -> Iterator[None]:
    options = ("--disable-hot-restart", "--skip-deprecated-logs", "--log-level", "error")
    with envoy(folder, bootstrap, *options) as process:
        wait(lambda: _listens(process, host, folder))
        yield


def _listens(process: subprocess.Popen[bytes], host: str, folder: Path) -> bool:
    assert process.poll() is None, (folder / LOG).read_text()
    try:
        with closing(http.client.HTTPConnection(host, PORT, timeout=5)) as connection:
            connection.request("GET", "/")
            connection.getresponse().read()
    except OSError:
        return False
    return True


class Clients:
    """Kept connections to the Envoy, one for each identity."""

    def __init__(self, certificates: Path, host: str) -> None:
        self.connections: dict[str | None, http.client.HTTPConnection] = {
            None: http.client.HTTPConnection(host, PORT, timeout=10)
        }
        for name, (namespace, account) in ACCOUNTS.items():
            secret = json.loads((certificates / namespace / f"{account}.json").read_text())
            certificate = secret["resources"][0]["tls_certificate"]
            pem = certificates / f"{name}.pem"
            pem.write_text(
                certificate["private_key"]["inline_string"]
                + certificate["certificate_chain"]["inline_string"]
            )
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            context.load_cert_chain(pem)
            self.connections[name] = http.client.HTTPSConnection(
                host, PORT, timeout=10, context=context
            )

    def close(self) -> None:
        for connection in self.connections.values():
            connection.close()

    def status(self, case: int, asked: Asked) -> int:
        connection = self.connections[asked.peer]
        connection.putrequest(asked.method, asked.path, skip_host=True)
        headers = {"host": asked.host, "x-case": str(case), "content-length": "0"}
        if asked.header is not None:
            headers["x-a"] = asked.header
        if asked.claims is not None:
            said = dict(asked.claims)
            bearer = tokens.mint(SIGNER, datetime.now(UTC), issuer=ISSUER, claims=said)
            headers["authorization"] = f"Bearer {bearer}"
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        answer.read()
        return answer.status


def seen(asked: Asked, host: str) -> Request:
    """The request as the receiving proxy sees it."""
    claims = None
    if asked.claims is not None:
        now = int(time.time())
        claims = {"iss": ISSUER, "iat": now, "exp": now + 3600, **dict(asked.claims)}
    peer = None
    if asked.peer is not None:
        peer = tls.spiffe_id("cluster.local", *ACCOUNTS[asked.peer])
    return Request(
        port=PORT,
        method=asked.method,
        path=matchers.normalized(asked.path, BASE),
        authority=asked.host,
        headers={} if asked.header is None else {"x-a": (asked.header,)},
        peer=peer,
        source_ip="127.0.0.1",
        destination_ip=host,
        claims=claims,
    )


def route_allows(snapshot: Snapshot, request: Request) -> bool:
    """The decision that `guestbook route` reads from the filters."""
    tokens_filter, *_ = request_authentication.http_filters(authenticated(snapshot), POD)
    _, request, _ = jwt.check(tokens_filter["typed_config"], request)
    filters = authorization.http_filters(snapshot, POD)
    return rbac.decide(configurations(filters, "rbac.v3.RBAC"), request).allowed


# --- a plain reading of the policies --------------------------------------------------------------


def policies_allow(specs: list[Json], request: Request) -> bool:
    """DENY before ALLOW; without an ALLOW policy everything passes, with one only its matches."""

    def match(action: str) -> list[bool]:
        return [
            any(rule_fits(rule, request) for rule in spec.get("rules", ()))
            for spec in specs
            if spec["action"] == action
        ]

    return not any(match("DENY")) and (any(match("ALLOW")) or not match("ALLOW"))


def rule_fits(rule: Json, request: Request) -> bool:
    sources = [one["source"] for one in rule.get("from", ())] or [{}]
    operations = [one["operation"] for one in rule.get("to", ())] or [{}]
    return (
        any(fields_fit(one, request) for one in sources)
        and any(fields_fit(one, request) for one in operations)
        and all(
            values_fit(one["key"], one.get("values", ()), one.get("notValues", ()), request)
            for one in rule.get("when", ())
        )
    )


def fields_fit(known: Json, request: Request) -> bool:
    """Whether every field of a source or an operation fits, those with `not` among them."""
    return all(
        values_fit(
            name, known.get(name, ()), known.get(f"not{name[0].upper()}{name[1:]}", ()), request
        )
        for name in (*FIELDS, *OPERATIONS)
    )


def values_fit(key: str, wanted: Iterable[str], unwanted: Iterable[str], request: Request) -> bool:
    if wanted and not any(value_fits(key, value, request) for value in wanted):
        return False
    return not any(value_fits(key, value, request) for value in unwanted)


def value_fits(key: str, value: str, request: Request) -> bool:
    """Whether a request has one value of a field, or of the key of a condition."""
    claims = request.claims or {}
    match key:
        case "methods":
            return wildcard(value, request.method)
        case "hosts":
            return wildcard(value.lower(), request.authority.lower())
        case "paths":
            return path_fits(value, request.path.partition("?")[0])
        case "ports" | "destination.port":
            return value == str(PORT)
        case "ipBlocks" | "remoteIpBlocks":
            return ipaddress.ip_address(request.source_ip) in ipaddress.ip_network(value)
        case "connection.sni":
            return wildcard(value, request.server_name)
        case "requestPrincipals":
            return principal_fits(value, str(claims.get("iss", "")), str(claims.get("sub", "")))
        case "request.headers[x-a]":
            header = request.header("x-a")
            return header is not None and wildcard(value, header)
        case "request.auth.claims[groups]":
            return claim_fits(value, claims.get("groups"))
        case "request.auth.claims[deep][er]":
            deep = claims.get("deep")
            return claim_fits(value, deep.get("er") if isinstance(deep, dict) else None)
        case "request.auth.claims[scope]":
            scope = claims.get("scope")
            return claim_fits(value, scope.split(" ") if isinstance(scope, str) else scope)
        case "request.auth.audiences":
            return claim_fits(value, claims.get("aud"))
    return request.peer is not None and peer_fits(key, value, request.peer)


def wildcard(pattern: str, text: str) -> bool:
    """Istio's: `*` is anything but nothing, `a*` a prefix, `*a` a suffix."""
    if pattern == "*":
        return text != ""
    if pattern.startswith("*"):
        return text.endswith(pattern[1:])
    return text.startswith(pattern[:-1]) if pattern.endswith("*") else pattern == text


def path_fits(pattern: str, path: str) -> bool:
    """A wildcard, or a template: `{*}` is one segment, `{**}` any number of them."""
    if "{" not in pattern:
        return wildcard(pattern, path)
    regex = re.escape(pattern).replace(r"\{\*\*\}", ".*").replace(r"\{\*\}", "[^/]+")
    return re.fullmatch(regex, path) is not None


def peer_fits(key: str, value: str, peer: str) -> bool:
    """Whether a source field fits a peer `spiffe://DOMAIN/ns/NAMESPACE/sa/ACCOUNT`."""
    domain, _, namespace, _, account = peer.removeprefix("spiffe://").split("/")
    match key:
        case "principals":
            return wildcard(value, peer.removeprefix("spiffe://"))
        case "trustDomains":
            return wildcard(value, domain)
        case "namespaces" | "source.namespace":
            pattern = ".*".join(re.escape(part) for part in value.split("*"))
            return re.fullmatch(pattern, namespace) is not None
        case "source.serviceAccount":
            return value in (f"{namespace}/{account}", account if namespace == "default" else "")
    raise AssertionError(f"unknown key {key}")


def principal_fits(value: str, issuer: str, subject: str) -> bool:
    """Whether a value fits `ISSUER/SUBJECT`; the wildcard is in the half it begins or ends."""
    if not issuer or not subject:
        return False
    wanted_issuer, slash, wanted_subject = value.rpartition("/")
    if value == "*":
        return True
    if not slash:
        return subject.endswith(value[1:]) if value[0] == "*" else issuer.startswith(value[:-1])
    return wildcard(wanted_issuer, issuer) and wildcard(wanted_subject, subject)


def claim_fits(value: str, claim: Any) -> bool:
    listed = claim if isinstance(claim, list) else [claim]
    return any(isinstance(one, str) and wildcard(value, one) for one in listed)


# --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    root = authority.load(folder / "ca", datetime.now(UTC))
    accounts = [*ACCOUNTS.values(), ("default", "target-sa")]
    authority.issue(root, folder / "sds", accounts, datetime.now(UTC))
    return folder / "sds"


@examples(12)
@given(many=cases)
def test_envoy_route_and_the_policies_agree(
    many: list[tuple[list[Json], list[Asked]]],
    certificates: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    empty = Snapshot(services=(), pods=(POD,), config={})
    snapshots = [replace(empty, config=parsed(specs)) for specs, _ in many]
    folder = tmp_path_factory.mktemp("envoy")
    with harness.free_slice() as number:
        host = f"127.77.{number}.1"
        bootstrap = configuration(snapshots, certificates, host)
        with (
            running(folder, bootstrap, host),
            closing(Clients(certificates, host)) as clients,
        ):
            for case, (specs, asked) in enumerate(many):
                for one in asked:
                    status = clients.status(case, one)
                    request = seen(one, host)
                    verdicts = (
                        {200: True, 403: False}[status],
                        route_allows(snapshots[case], request),
                        policies_allow(specs, request),
                    )
                    assert len(set(verdicts)) == 1, f"{verdicts}\n{yaml.safe_dump(specs)}\n{one}"
