"""Three readings of random VirtualServices agree: the real Envoy's, `guestbook route`'s, and a
plain Python reading of the specification.

One configuration holds the VirtualServices of many cases, each for a host of its own, so that an
example is one push and many requests.
"""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lab import names
from lab.explain import request as explain
from lab.explain.steps import Explanation
from lab.kinds.virtual_service.types import HTTPMatchRequest, StringMatch
from tests.support import harness
from tests.support.harness import Mesh
from tests.support.properties import examples

CASES = 12
PATHS = ["/", "/a", "/A", "/ab", "/a/b", "/b"]
NORMALIZED = {
    "/b/../a": "/a",
    "/a/./b": "/a/b",
    "/%61": "/a",
    "/a/b/..": "/a/",
    "/%2Fa": "/%2Fa",
    "/b/..;/a": "/a",
    "/a/.;x=y/b": "/a/b",
    "/b/%2e%2e;/a": "/b/..;/a",
    "/b/.%2e;/a": "/b/..;/a",
    "/b/..;%2e/a": "/a",
    "/a/b/..;": "/a/",
    "/b/..%3b/a": "/b/..%3b/a",
    "/a;x/b": "/a;x/b",
    "//a": "//a",
    "/a/..a": "/a/..a",
}
"""Paths that are not sent as they are matched, each with what it is matched as."""
VALUES = ["one", "two", "ONE", "one two", ""]
PATTERNS = [".*", "o.*", "[a-z]+", "one|two", "(?i)one", "t.o"]
METHODS = ["GET", "POST", "DELETE"]
HOSTS = ["HOST", "HOST.default", "HOST.default.svc.cluster.local", "HOST:80"]
"""HOST stands for the host of a case."""


def string_matches(values: list[str], patterns: list[str]) -> st.SearchStrategy[dict[str, str]]:
    solid = [value for value in values if value]
    return st.one_of(
        st.sampled_from(solid).map(lambda value: {"exact": value}),
        st.sampled_from(solid).map(lambda value: {"prefix": value[: len(value) // 2 + 1]}),
        st.sampled_from(patterns).map(lambda value: {"regex": value}),
    )


def maybe(name: str, strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.one_of(st.just({}), st.just({}), strategy.map(lambda value: {name: value}))


presence: st.SearchStrategy[dict[str, str]] = st.one_of(
    st.just({}), string_matches(VALUES, PATTERNS)
)
header_names = st.sampled_from(["x-a", "x-b"])
headers = st.dictionaries(header_names, presence, min_size=1, max_size=2)
without_headers = st.dictionaries(
    header_names, st.one_of(st.just({"regex": "*"}), presence), min_size=1, max_size=2
)
queries = st.dictionaries(
    st.sampled_from(["q", "r"]),
    st.one_of(st.just({}), string_matches(["one", "two", "ONE"], PATTERNS)),
    min_size=1,
    max_size=2,
)
matches = st.tuples(
    maybe("uri", string_matches(PATHS, ["/.*", "/a.*", "/[ab]", "/a/?b"])),
    maybe("ignoreUriCase", st.booleans()),
    maybe("headers", headers),
    maybe("withoutHeaders", without_headers),
    maybe("queryParams", queries),
    maybe("method", string_matches(METHODS, ["P.*", "GET|POST"])),
    maybe("authority", string_matches(HOSTS, ["HOST.*", "[a-z]+"])),
    maybe("scheme", string_matches(["http", "https"], ["https?"])),
    maybe("port", st.sampled_from([80, 8080])),
    maybe("sourceLabels", st.sampled_from([{"app": "client"}, {"app": "other"}])),
    maybe("sourceNamespace", st.sampled_from(["default", "elsewhere"])),
).map(lambda parts: {key: value for part in parts for key, value in part.items()})
services = st.lists(st.lists(matches, max_size=3), min_size=1, max_size=4)
requests = st.fixed_dictionaries(
    {
        "method": st.sampled_from(METHODS),
        "host": st.sampled_from(HOSTS),
        "path": st.sampled_from([*PATHS, *NORMALIZED]),
        "query": st.dictionaries(
            st.sampled_from(["q", "r"]), st.sampled_from(["one", "two", ""]), max_size=2
        ),
        "headers": st.dictionaries(
            st.sampled_from(["x-a", "x-b"]), st.sampled_from(VALUES), max_size=2
        ),
    }
)


def fits(match: StringMatch | None, value: str | None) -> bool:
    """The specification of one StringMatch, on a value that may be missing."""
    if match is None or (
        (match.exact, match.prefix) == (None, None) and match.regex in (None, "*")
    ):
        return value is not None
    if value is None:
        return False
    if match.exact is not None:
        return value == match.exact
    if match.prefix is not None:
        return value.startswith(match.prefix)
    return re.fullmatch(match.regex or "", value) is not None


def reading(routes: list[list[dict[str, Any]]], request: dict[str, Any]) -> str:
    """The route that the specification gives: its number, "404", or the catch-all's answer when
    the VirtualService has no route for this client at all."""
    concerns_client = False
    for index, alternatives in enumerate(routes):
        for raw in alternatives or [{}]:
            match = HTTPMatchRequest.model_validate(raw)
            if match.port not in (None, 80) or match.source_namespace not in (None, "default"):
                continue
            if match.source_labels not in ({}, {"app": "client"}):
                continue
            concerns_client = True
            if one_match(match, request):
                return str(index)
    return "404" if concerns_client else "default"


def one_match(match: HTTPMatchRequest, request: dict[str, Any]) -> bool:
    path = NORMALIZED.get(request["path"], request["path"])
    uri = match.uri
    if uri is not None:
        if match.ignore_uri_case and uri.regex is None:
            path = path.lower()
            uri = StringMatch(
                exact=uri.exact.lower() if uri.exact is not None else None,
                prefix=uri.prefix.lower() if uri.prefix is not None else None,
            )
        if not fits(uri, path):
            return False
    host = request["host"].removesuffix(":80")  # a proxy request never names HTTP's own port
    for wanted, value in (
        (match.method, request["method"]),
        (match.authority, host),
        (match.scheme, "http"),
    ):
        if wanted is not None and not fits(wanted, value):
            return False
    sent = request["headers"]
    for name, wanted in match.headers.items():
        if not fits(wanted, sent.get(name)):
            return False
    for name, wanted in match.without_headers.items():
        present = wanted is None or wanted == StringMatch() or wanted.regex == "*"
        if fits(wanted, sent.get(name) if present else sent.get(name, "")):
            return False
    return all(
        fits(wanted, request["query"].get(key)) for key, wanted in match.query_params.items()
    )


def manifest(host: str, routes: list[list[dict[str, Any]]]) -> dict[str, Any]:
    http_routes = [
        {
            **({"match": alternatives} if alternatives else {}),
            "directResponse": {"status": 200, "body": {"string": str(index)}},
        }
        for index, alternatives in enumerate(routes)
    ]
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": host},
        "spec": {"hosts": [host], "http": http_routes},
    }


def named(host: str, value: Any) -> Any:
    """A case about one host."""
    return json.loads(json.dumps(value).replace("HOST", host))


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """A client, and a host for each case; nobody serves them, for the routes answer directly."""
    with harness.mesh(tmp_path_factory.mktemp("mesh")) as made:
        made.add("client", proxy="sidecar")
        made.service("client")
        for index in range(CASES):
            made.service(f"s{index}")
        made.mesh_config["outboundTrafficPolicy"] = {"mode": "REGISTRY_ONLY"}
        made.start()
        yield made


cases = st.lists(
    st.tuples(services, st.lists(requests, min_size=3, max_size=6)), min_size=8, max_size=CASES
)


@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@examples(25)
@given(many=cases)
def test_envoy_route_and_the_specification_agree(
    mesh: Mesh, many: list[tuple[list[list[dict[str, Any]]], list[dict[str, Any]]]]
) -> None:
    hosts = [f"s{index}" for index in range(len(many))]
    many = [named(host, case) for host, case in zip(hosts, many, strict=True)]
    mesh.apply(
        yaml.safe_dump_all(
            manifest(host, routes) for host, (routes, _) in zip(hosts, many, strict=True)
        )
    )
    snapshot, pod = mesh.snapshot(), mesh.pods["client"].pod
    with closing(http.client.HTTPConnection(pod.inside_address, names.OUTBOUND_PORT)) as proxy:
        for routes, asked in many:
            for request in asked:
                query = "&".join(f"{key}={value}" for key, value in request["query"].items())
                host = request["host"].removesuffix(":80")  # as every HTTP client does
                url = f"http://{host}{request['path']}" + (f"?{query}" if query else "")
                proxy.request(request["method"], url, headers=request["headers"])
                reply = proxy.getresponse()
                text = reply.read().decode()
                real = {200: text, 404: "404", 503: "default"}[reply.status]
                told = explain.explain(
                    snapshot, pod, request["method"], url, request["headers"].items()
                )
                expected = reading(routes, request)
                assert (real, answer(told)) == (expected, expected), (request, routes)


def answer(told: Explanation) -> str:
    """Returns an explanation in the words of `reading`."""
    step = next((step for step in told.steps if step.what == "route"), None)
    if step is None:
        return str(told.status)
    if step.says.startswith("default"):
        return "default"
    found = re.search(r"http\[(\d+)\]", step.says)
    assert found is not None
    return found[1]
