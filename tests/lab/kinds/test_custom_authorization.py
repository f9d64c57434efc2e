"""AuthorizationPolicy with action CUSTOM: the servers that real Envoys ask, over HTTP and gRPC."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from dataclasses import replace
from typing import Any

import grpc
import pytest
from envoy.service.auth.v3 import external_auth_pb2, external_auth_pb2_grpc

from lab.explain import request
from lab.model import ServicePort
from tests.support import harness
from tests.support.secured import apply, get, mesh, talk
from tests.support.wait import wait

GRPC_PORT = 9000
PROVIDERS = [
    {
        "name": "http",
        "envoyExtAuthzHttp": {
            "service": "plain.default.svc.cluster.local",
            "port": 80,
            "pathPrefix": "/check",
            "includeRequestHeadersInCheck": ["x-user"],
            "includeAdditionalHeadersInCheck": {"x-from": "mesh"},
            "headersToUpstreamOnAllow": ["server"],
        },
    },
    {
        "name": "grpc",
        "envoyExtAuthzGrpc": {"service": "plain.default.svc.cluster.local", "port": GRPC_PORT},
    },
]


class Authorizer(external_auth_pb2_grpc.AuthorizationServicer):  # type: ignore[misc]
    """Allows what has `ann` as x-user, and TCP connections while `open`."""

    def __init__(self) -> None:
        self.open = True
        self.asked = 0

    def Check(self, asked: Any, context: Any) -> Any:  # noqa: N802
        self.asked += 1
        http = asked.attributes.request.http
        allowed = http.headers.get("x-user") == "ann" if http.method else self.open
        response = external_auth_pb2.CheckResponse()
        response.status.code = 0 if allowed else 7
        return response


@pytest.fixture(scope="module")
def asking(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[harness.Mesh, Authorizer]]:
    with mesh(tmp_path_factory.mktemp("mesh")) as made:
        made.mesh_config["extensionProviders"] = PROVIDERS
        made.services = [
            replace(one, ports=(*one.ports, ServicePort("grpc", GRPC_PORT, GRPC_PORT, "GRPC")))
            if one.name == "plain"
            else one
            for one in made.services
        ]
        authorizer = Authorizer()
        server = grpc.server(futures.ThreadPoolExecutor(4))
        external_auth_pb2_grpc.add_AuthorizationServicer_to_server(authorizer, server)
        server.add_insecure_port(f"{made.pods['plain'].pod.address}:{GRPC_PORT}")
        server.start()
        yield made, authorizer
        server.stop(None)


def policy(app: str, provider: str, rules: str) -> str:
    return (
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: ask}\n"
        f"spec: {{selector: {{matchLabels: {{app: {app}}}}}, action: CUSTOM, "
        f"provider: {{name: {provider}}}, rules: {rules}}}\n"
    )


def test_a_server_is_asked_over_http_about_what_a_rule_names(
    asking: tuple[harness.Mesh, Authorizer],
) -> None:
    made, _ = asking
    apply(made, policy("message", "http", "[{to: [{operation: {paths: [/asked]}}]}]"))
    server = made.pods["plain"].server
    assert server is not None
    server.received.clear()
    assert get(made, path="/free").status_code == 200
    assert server.received == []
    answer = get(made, path="/asked", headers={"x-user": "ann", "x-more": "b"})
    assert answer.status_code == 200
    (asked,) = server.received
    assert asked.path == "/check/asked"
    assert (asked.headers["x-user"], asked.headers["x-from"]) == ("ann", "mesh")
    assert "x-more" not in asked.headers
    assert answer.json()["headers"]["server"].startswith("BaseHTTP"), "a header of the authorizer"
    server.status = 401
    try:
        answer = get(made, path="/asked")
        assert (answer.status_code, answer.json()["pod"]) == (401, "plain")
        assert get(made, path="/free").status_code == 200
    finally:
        server.status = 200


def test_a_server_is_asked_over_grpc(asking: tuple[harness.Mesh, Authorizer]) -> None:
    made, authorizer = asking
    apply(made, policy("message", "grpc", "[{}]"))
    assert get(made, headers={"x-user": "ann"}).status_code == 200
    assert get(made).status_code == 403
    apply(made, policy("store", "grpc", "[{}]"))
    assert b"200 OK" in talk(made, "ui", "store")
    authorizer.open = False
    assert talk(made, "ui", "store") == b""


def test_without_a_server_the_requests_are_denied(asking: tuple[harness.Mesh, Authorizer]) -> None:
    made, _ = asking
    apply(made, policy("message", "nobody", "[{to: [{operation: {paths: [/asked]}}]}]"))
    wait(lambda: get(made, path="/asked").status_code == 403)
    assert get(made, path="/free").status_code == 200


def test_route_says_who_is_asked(asking: tuple[harness.Mesh, Authorizer]) -> None:
    made, _ = asking
    apply(made, policy("message", "http", "[{to: [{operation: {paths: [/asked]}}]}]"))
    pod = made.pods["ui"].pod

    def said(path: str) -> list[str]:
        (target,) = request.explain(made.snapshot(), pod, "GET", f"http://message{path}").targets
        return [step.says for step in target.steps if step.what == "external authorization"]

    (asked,) = said("/asked")
    assert asked.startswith(
        "outbound|80||plain.default.svc.cluster.local is asked, says default/ask"
    )
    assert said("/free") == []
