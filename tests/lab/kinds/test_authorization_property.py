"""The Python reading of AuthorizationPolicy against Envoy's, on random policies and requests.

One Envoy holds the policies of many cases, each on a route of its own, so that an example is a
start of Envoy and a few hundred requests.
"""

from __future__ import annotations

import http.client
import json
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
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
from lab.explain.decision import Request, decide
from lab.istiod import authority, tokens
from lab.kinds.authorization_policy import becomes as authorization
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


def configuration(snapshots: list[Snapshot], folder: Path, host: str) -> Json:
    """An Envoy with a plain and a mutual TLS listener, and a route for each case."""
    keys = harness.resources(
        yaml.safe_dump(
            {
                "apiVersion": "security.istio.io/v1",
                "kind": "RequestAuthentication",
                "metadata": {"name": "a", "namespace": "default"},
                "spec": {"jwtRules": [{"issuer": ISSUER, "jwks": tokens.key_set(SIGNER)}]},
            }
        )
    )
    base = Snapshot(services=(), pods=(POD,), config=keys, certificates=str(folder))
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
            "transport_socket": tls.downstream_context(base, POD),
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
    """The request as the lab is told of it."""
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
        path=asked.path,
        authority=asked.host,
        headers={} if asked.header is None else {"x-a": asked.header},
        peer=peer,
        source_ip="127.0.0.1",
        destination_ip=host,
        claims=claims,
    )


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    root = authority.load(folder / "ca", datetime.now(UTC))
    accounts = [*ACCOUNTS.values(), ("default", "target-sa")]
    authority.issue(root, folder / "sds", accounts, datetime.now(UTC))
    return folder / "sds"


@examples(12)
@given(many=cases)
def test_the_lab_decides_as_envoy_does(
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
                    decision = decide(snapshots[case], POD, seen(one, host))
                    expected = 200 if decision.allowed else 403
                    assert status == expected, (
                        f"Envoy says {status}, the lab {decision.reason}\n"
                        f"{yaml.safe_dump(specs)}\n{one}"
                    )
