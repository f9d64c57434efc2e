"""Random rules of TCP and TLS connections: `guestbook route` says what the real Envoys then do."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lab import names
from lab.explain import request as explain
from lab.explain.steps import Explanation
from lab.model import ServicePort
from tests.support import harness
from tests.support.certificate import certificate
from tests.support.harness import APP_PORT, Mesh, Server
from tests.support.properties import examples
from tests.support.secured import apply

SECURE_PORT = 8443
CASES = 3
"""Services of each protocol: each has its own rules and its own port."""
TCP, TLS = 7000, 9000
GATEWAY_TCP, GATEWAY_TLS = 7100, 9443
NAMES = ["a.example", "b.example", "c.b.example"]

BASE = f"""
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: front, namespace: default}}
spec:
  selector: {{istio: ingressgateway}}
  servers:
  - {{port: {{number: {GATEWAY_TCP}, name: tcp, protocol: TCP}}, hosts: ["*"]}}
  - port: {{number: {GATEWAY_TLS}, name: tls, protocol: TLS}}
    hosts: ["a.example", "*.b.example"]
    tls: {{mode: PASSTHROUGH}}
"""
CLIENT = "cluster.local/ns/default/sa/client-sa"


def destinations(*hosts: str) -> st.SearchStrategy[list[dict[str, Any]]]:
    """The destinations of a route, and their weights."""
    one = st.tuples(st.sampled_from(hosts), st.sampled_from(["", "", "v1", "v2", "v9"])).map(
        lambda pair: {"destination": {"host": pair[0], **({"subset": pair[1]} if pair[1] else {})}}
    )
    return st.one_of(
        one.map(lambda only: [only]),
        st.tuples(one, one, st.sampled_from([0, 50])).map(
            lambda some: [{**some[0], "weight": some[2]}, {**some[1], "weight": 100 - some[2]}]
        ),
    )


def tcp_rules(index: int) -> st.SearchStrategy[list[dict[str, Any]]]:
    port = TCP + index
    match = st.sampled_from(
        [
            {},
            {"port": port},
            {"port": port + 100},
            {"sourceLabels": {"app": "client"}},
            {"sourceLabels": {"app": "stranger"}, "port": port},
            {"gateways": ["mesh"]},
            {"gateways": ["front"]},
            {"gateways": ["front", "mesh"], "port": GATEWAY_TCP},
        ]
    )
    routes = destinations(f"store{index}", f"store{(index + 1) % CASES}", "nobody")
    rule = st.tuples(match, routes).map(
        lambda pair: {"route": pair[1], **({"match": [pair[0]]} if pair[0] else {})}
    )
    return st.lists(rule, max_size=2)


def tls_rules(index: int) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Rules for a Service's own name, and for a name at the gateway: each for one of them.

    Envoy refuses a listener with two filter chains for one name.
    """
    routes = destinations(f"secure{index}", f"secure{(index + 1) % CASES}", "nobody")

    def rule(host: str, *more: dict[str, Any]) -> st.SearchStrategy[list[dict[str, Any]]]:
        made = st.tuples(st.sampled_from(more), routes).map(
            lambda pair: {"match": [{"sniHosts": [host], **pair[0]}], "route": pair[1]}
        )
        return st.lists(made, max_size=1)

    port, client, stranger = TLS + index, {"app": "client"}, {"app": "stranger"}
    own = rule(
        f"secure{index}",
        {},
        {"port": port},
        {"port": 1},
        {"sourceLabels": client},
        {"sourceLabels": stranger, "port": port},
    )
    named = rule(NAMES[index], {}, {"port": GATEWAY_TLS}, {"gateways": ["front"]}, {"port": port})
    return st.tuples(own, named).map(lambda both: [*both[0], *both[1]])


gateways = st.sampled_from([["front", "mesh"], ["front", "mesh"], ["mesh"], ["front"], []])
cases = st.tuples(
    *(st.tuples(tcp_rules(index), tls_rules(index), gateways) for index in range(CASES))
)
policies = st.lists(
    st.fixed_dictionaries(
        {
            "selector": st.sampled_from(
                [
                    {"matchLabels": {"app": "store"}},
                    {"matchLabels": {"app": "secure"}},
                    {"matchLabels": {"istio": "ingressgateway"}},
                ]
            ),
            "action": st.sampled_from(["ALLOW", "DENY"]),
            "rules": st.sampled_from(
                [
                    [{"from": [{"source": {"principals": [CLIENT]}}]}],
                    [{"from": [{"source": {"notPrincipals": [CLIENT]}}]}],
                    [{"from": [{"source": {"namespaces": ["istio-system"]}}]}],
                    [{"to": [{"operation": {"ports": [str(APP_PORT)]}}]}],
                    [{"to": [{"operation": {"ports": [str(SECURE_PORT)], "methods": ["GET"]}}]}],
                    [{"to": [{"operation": {"notPorts": [str(GATEWAY_TCP)]}}]}],
                    [{"when": [{"key": "connection.sni", "values": ["a.example", "*.b.example"]}]}],
                ]
            ),
        }
    ),
    max_size=1,
)
modes = st.sampled_from(["", "", "STRICT", "DISABLE"])
tls_modes = st.sampled_from(["", "", "DISABLE", "ISTIO_MUTUAL"])


class SecureServer(Server):
    """The application of a fake pod behind TLS of its own."""

    def __init__(self, name: str, version: str, place: tuple[str, int], folder: Path) -> None:
        super().__init__(name, version, place)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate(folder, name))
        # A handshake is the handler's: one that fails must not end the server.
        self.socket = context.wrap_socket(
            self.socket, server_side=True, do_handshake_on_connect=False
        )


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with harness.mesh(tmp_path_factory.mktemp("mesh")) as made:
        for name in ("client", "stranger"):
            made.add(name, proxy="sidecar")
        for version in ("v1", "v2"):
            made.add(f"store-{version}", app="store", version=version, proxy="sidecar")
            secure = made.add(
                f"secure-{version}",
                app="secure",
                version=version,
                proxy="sidecar",
                server=False,
                ports={"tls": SECURE_PORT},
            )
            place = (secure.pod.inside_address, SECURE_PORT)
            made.listen(SecureServer(secure.pod.name, version, place, made.folder))
        for index in range(CASES):
            tcp = ServicePort("tcp", TCP + index, APP_PORT, "TCP")
            tls = ServicePort("tls", TLS + index, SECURE_PORT, "TLS")
            made.service(f"store{index}", ports=(tcp,), selector={"app": "store"})
            made.service(f"secure{index}", ports=(tls,), selector={"app": "secure"})
        ports = (
            ServicePort("tcp", GATEWAY_TCP, GATEWAY_TCP, "TCP"),
            ServicePort("tls", GATEWAY_TLS, GATEWAY_TLS, "TLS"),
        )
        made.gateway(ports)
        made.certify()
        made.mesh_config["outboundTrafficPolicy"] = {"mode": "REGISTRY_ONLY"}
        made.config = harness.resources(BASE)
        made.start()
        yield made


def virtual_services(index: int, case: Any) -> Iterator[dict[str, Any]]:
    tcp, tls, gateways = case
    bound = {"gateways": gateways} if gateways else {}
    for name, key, rules, hosts in (
        (f"store{index}", "tcp", tcp, [f"store{index}"]),
        (f"secure{index}", "tls", tls, [f"secure{index}", NAMES[index]]),
    ):
        if rules:
            known = [rule for rule in rules if _bound(rule, gateways or ["mesh"])]
            if known:
                spec = {"hosts": hosts, **bound, key: known}
                yield manifest("VirtualService", name, spec)


def _bound(rule: dict[str, Any], gateways: list[str]) -> bool:
    """Whether the gateways of a rule are among those of its VirtualService."""
    wanted = [name for match in rule.get("match", ()) for name in match.get("gateways", ())]
    return set(wanted) <= set(gateways)


def destination_rule(host: str, mode: str) -> dict[str, Any]:
    subsets = [{"name": name, "labels": {"version": name}} for name in ("v1", "v2")]
    policy = {"trafficPolicy": {"tls": {"mode": mode}}} if mode else {}
    return manifest("DestinationRule", host, {"host": host, "subsets": subsets, **policy})


def manifest(
    kind: str, name: str, spec: dict[str, Any], namespace: str = "default"
) -> dict[str, Any]:
    group = "security" if kind in ("AuthorizationPolicy", "PeerAuthentication") else "networking"
    return {
        "apiVersion": f"{group}.istio.io/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@examples(5)
@given(many=cases, limits=policies, mode=modes, tls=st.tuples(*[tls_modes] * CASES))
def test_route_and_the_connections_agree(
    mesh: Mesh, many: Any, limits: list[Any], mode: str, tls: tuple[str, ...]
) -> None:
    made = [one for index, case in enumerate(many) for one in virtual_services(index, case)]
    for index in range(CASES):
        made += [destination_rule(f"{name}{index}", tls[index]) for name in ("store", "secure")]
    for index, limit in enumerate(limits):
        place = "istio-system" if "istio" in limit["selector"]["matchLabels"] else "default"
        made.append(manifest("AuthorizationPolicy", f"limit-{index}", limit, place))
    if mode:
        made.append(manifest("PeerAuthentication", "default", {"mtls": {"mode": mode}}))
    apply(mesh, BASE, yaml.safe_dump_all(made))
    snapshot, connections = mesh.snapshot(), list(asked())
    with ThreadPoolExecutor(len(connections)) as threads:
        found = list(threads.map(lambda one: outcome(mesh, *one), connections))
    for (client, url), real in zip(connections, found, strict=True):
        told = explain.explain(snapshot, mesh.pods[client].pod, "GET", url)
        assert real in outcomes(told), (client, url, told, real, yaml.safe_dump_all(made))


def asked() -> Iterator[tuple[str, str]]:
    """The clients and what they connect to; some are refused only after a second."""
    for client in ("client", "stranger"):
        for index in range(CASES):
            yield client, f"tcp://store{index}:{TCP + index}"
            yield client, f"https://secure{index}:{TLS + index}/"
    yield "gateway", f"tcp://anything:{GATEWAY_TCP}"
    for name in (*NAMES, "other.example"):
        yield "gateway", f"https://{name}:{GATEWAY_TLS}/"


def outcome(mesh: Mesh, client: str, url: str) -> str | None:
    """Returns the pod that answers on a connection; None when the connection is closed."""
    scheme, _, place = url.rstrip("/").partition("://")
    host, _, port = place.partition(":")
    try:
        with _connected(mesh, client, scheme, int(port)) as plain:
            if scheme == "tcp":
                return _answer(plain)
            if client != "gateway":
                _tunnel(plain, f"{host}:{port}")
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            with context.wrap_socket(plain, server_hostname=host) as secure:
                return _answer(secure)
    except (OSError, http.client.HTTPException):
        return None


def _connected(mesh: Mesh, client: str, scheme: str, port: int) -> socket.socket:
    pod = mesh.pods[client].pod
    if client == "gateway":
        return socket.create_connection((pod.address, port), timeout=10)
    way = port if scheme == "tcp" else names.OUTBOUND_PORT
    return socket.create_connection((pod.inside_address, way), timeout=10)


def _tunnel(connection: socket.socket, place: str) -> None:
    connection.sendall(f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        received = connection.recv(1)
        if not received:
            raise ConnectionError
        head += received
    if b" 200 " not in head.split(b"\r\n")[0]:
        raise ConnectionError(head)


def _answer(connection: socket.socket) -> str:
    connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    return str(json.loads(answer.read())["pod"])


def outcomes(told: Explanation) -> set[str | None]:
    """The outcomes that an explanation allows: one for each share of the connections."""
    assert told.status is None, told
    if not told.targets:
        return {None}
    found: set[str | None] = set()
    for target in told.targets:
        refused = any(step.what == "answer" for step in target.steps)
        if target.share:
            found |= {None} if refused else set(target.pods)
    return found
