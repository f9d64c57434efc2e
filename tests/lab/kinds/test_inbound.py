"""The server's side: what a pod's proxy takes, from sidecars and from anybody else."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from lab.model import ServicePort
from tests.support import harness
from tests.support.harness import APP_PORT, Mesh, Server
from tests.support.routing import rule
from tests.support.wait import wait

STRICT = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default}
spec: {mtls: {mode: STRICT}}
---
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """`client` and `server` with sidecars and certificates, `plain` without."""
    with harness.mesh(tmp_path_factory.mktemp("inbound")) as made:
        made.add("client", proxy="sidecar", labels={"app": "client"})
        made.add(
            "server",
            proxy="sidecar",
            ports={"http": APP_PORT, "tcp": 9001, "auto": 9002, "metrics": 9000},
        )
        made.add("plain")
        made.service("client")
        made.service("plain")
        made.service(
            "server",
            ports=(
                ServicePort("http", 80, "http", "HTTP"),
                ServicePort("tcp-raw", 9001, 9001, "TCP"),
                ServicePort("", 9002, 9002, "AUTO"),
            ),
        )
        inside = made.pods["server"].pod.inside_address
        for port in (9000, 9001, 9002):
            made.listen(Server("server", str(port), (inside, port)))
        made.certify()
        made.start()
        yield made


@pytest.fixture
def mesh(shared: Mesh) -> Iterator[Mesh]:
    shared.calm()
    yield shared
    shared.apply()


def directly(mesh: Mesh, port: int = APP_PORT) -> httpx.Response:
    """Returns the answer to a client without a sidecar."""
    return httpx.get(f"http://{mesh.pods['server'].pod.address}:{port}/")


def test_between_sidecars_there_is_mutual_tls_and_the_server_knows_the_caller(mesh: Mesh) -> None:
    seen = mesh.request("client", "http://server/").json()["headers"]
    assert seen["x-forwarded-client-cert"].endswith(
        'Subject="";URI=spiffe://cluster.local/ns/default/sa/client-sa'
    )
    assert "By=spiffe://cluster.local/ns/default/sa/server-sa" in seen["x-forwarded-client-cert"]
    forged = {"x-forwarded-client-cert": "URI=spiffe://cluster.local/ns/default/sa/admin"}
    reply = mesh.request("client", "http://server/", headers=forged)
    assert "admin" not in reply.json()["headers"]["x-forwarded-client-cert"]


def test_a_permissive_port_takes_plain_text_too(mesh: Mesh) -> None:
    assert "x-forwarded-client-cert" not in directly(mesh).json()["headers"]
    assert directly(mesh).headers["server"] == "istio-envoy"
    assert mesh.request("client", "http://plain/").json()["pod"] == "plain"


def test_a_strict_port_takes_only_mutual_tls(mesh: Mesh) -> None:
    mesh.apply(STRICT)
    with pytest.raises(httpx.TransportError):
        directly(mesh)
    wait(lambda: "NR filter_chain_not_found" in mesh.pods["server"].log)
    assert mesh.request("client", "http://server/").status_code == 200
    assert mesh.request("client", "http://plain/").status_code == 200


def test_a_destination_rule_can_switch_mutual_tls_off_or_force_it(mesh: Mesh) -> None:
    mesh.apply(rule("tls: {mode: DISABLE}"))
    assert (
        "x-forwarded-client-cert" not in mesh.request("client", "http://server/").json()["headers"]
    )
    mesh.apply(STRICT + rule("tls: {mode: DISABLE}"))
    refusal = "reset reason: connection termination"
    wait(lambda: refusal in mesh.request("client", "http://server/").text)
    mesh.apply(rule("tls: {mode: ISTIO_MUTUAL}", host="plain"))
    assert mesh.request("client", "http://plain/").status_code == 503
    mesh.apply(rule("tls: {mode: ISTIO_MUTUAL}"))
    assert "x-forwarded-client-cert" in mesh.request("client", "http://server/").json()["headers"]


def test_a_rule_without_tls_keeps_automatic_mutual_tls(mesh: Mesh) -> None:
    mesh.apply(rule("loadBalancer: {simple: RANDOM}"))
    assert "x-forwarded-client-cert" in mesh.request("client", "http://server/").json()["headers"]


def test_every_container_port_is_served(mesh: Mesh) -> None:
    assert directly(mesh, 9000).json()["version"] == "9000"
    assert directly(mesh, 9001).json()["version"] == "9001"
    assert directly(mesh, 9002).json()["version"] == "9002"
    seen = mesh.request("client", "http://server:9002/").json()
    assert seen["version"] == "9002"
    assert "x-forwarded-client-cert" in seen["headers"]


def test_a_tcp_port_is_mutual_tls_for_sidecars_and_strict_when_told(mesh: Mesh) -> None:
    inside = mesh.pods["client"].pod.inside_address
    assert httpx.get(f"http://{inside}:9001/").json()["version"] == "9001"
    mesh.apply(STRICT)
    assert httpx.get(f"http://{inside}:9001/").json()["version"] == "9001"
    with pytest.raises(httpx.TransportError):
        directly(mesh, 9001)


def test_the_connection_pool_also_holds_at_the_server(mesh: Mesh) -> None:
    """Callers without a sidecar meet it there."""
    server = mesh.pods["server"].server
    assert server is not None
    server.delay = 0.5
    mesh.apply(
        rule("connectionPool: {tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1}}")
    )
    with ThreadPoolExecutor(6) as pool:
        replies = list(pool.map(lambda _: directly(mesh), range(6)))
    refused = [reply for reply in replies if reply.status_code == 503]
    assert 0 < len(refused) < 6
    assert "overflow" in refused[0].text


def test_the_server_sees_the_address_of_the_calling_pod(mesh: Mesh) -> None:
    mesh.request("client", "http://server/who")
    address = mesh.pods["client"].pod.address
    wait(lambda: f" {address}:" in mesh.pods["server"].log.split("/who")[-1])


def test_a_connection_made_before_an_update_survives_it_when_idle_or_busy(mesh: Mesh) -> None:
    """A route update at the client leaves the server's connections alone."""
    name = r"cluster.outbound\|80\|\|server.default.svc.cluster.local;.upstream_cx_total$"
    mesh.request("client", "http://server/")
    before = mesh.pods["client"].admin.stats(name)
    mesh.apply(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: server}\n"
        "spec: {hosts: [server], http: [{timeout: 3s, route: [{destination: {host: server}}]}]}\n"
    )
    mesh.request("client", "http://server/")
    assert mesh.pods["client"].admin.stats(name) == before


def test_health_and_metrics_are_served_beside_the_application(mesh: Mesh) -> None:
    inside = mesh.pods["client"].pod.inside_address
    assert httpx.get(f"http://{inside}:15021/healthz/ready").status_code == 200
    mesh.request("client", "http://server/")
    metrics = httpx.get(f"http://{inside}:15090/stats/prometheus").text
    sample = 'cluster_name="outbound|80||server.default.svc.cluster.local"'
    assert any(
        "envoy_cluster_upstream_rq_total" in row and sample in row for row in metrics.splitlines()
    )


def test_an_unused_port_of_the_pod_refuses(mesh: Mesh) -> None:
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((mesh.pods["server"].pod.address, 7777), timeout=2)


INGRESS = """
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: server}
spec:
  workloadSelector: {labels: {app: server}}
  ingress:
  - {port: {number: %d, protocol: HTTP, name: http}, defaultEndpoint: "127.0.0.1:9000"}
  - port: {number: 9005, protocol: HTTP, name: more}
    captureMode: NONE
    defaultEndpoint: 0.0.0.0:9001
"""


def test_a_sidecar_leads_a_port_to_an_application_on_another(mesh: Mesh) -> None:
    mesh.apply(INGRESS % APP_PORT)
    wait(lambda: mesh.request("client", "http://server/").json()["version"] == "9000")
    assert directly(mesh).json()["version"] == "9000"
    assert "x-forwarded-client-cert" in mesh.request("client", "http://server/").json()["headers"]


def test_a_sidecar_opens_a_port_that_no_service_has(mesh: Mesh) -> None:
    with pytest.raises(httpx.ConnectError):
        directly(mesh, 9005)
    mesh.apply(INGRESS % APP_PORT)
    assert wait(lambda: directly(mesh, 9005)).json()["version"] == "9001"


def test_a_proxy_config_holds_at_once(mesh: Mesh) -> None:
    """On a cluster it holds for pods that start later."""
    config = (
        "apiVersion: networking.istio.io/v1beta1\nkind: ProxyConfig\nmetadata: {name: old}\n"
        "spec:\n  selector: {matchLabels: {app: server}}\n"
        '  environmentVariables: {ISTIO_META_HTTP10: "true"}\n'
    )

    def answer() -> bytes:
        place = (mesh.pods["server"].pod.address, APP_PORT)
        with socket.create_connection(place, timeout=5) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\nHost: server\r\n\r\n")
            return connection.makefile("rb").readline().split()[1]

    mesh.apply()
    assert answer() == b"426"
    mesh.apply(config)
    assert wait(lambda: answer() == b"200")


def test_the_headers_that_proxies_add_can_be_chosen(mesh: Mesh) -> None:
    assert directly(mesh).headers["server"] == "istio-envoy"
    headers = {
        "server": {"disabled": True},
        "requestId": {"disabled": True},
        "attemptCount": {"disabled": True},
        "envoyDebugHeaders": {"disabled": True},
        "forwardedClientCert": "SANITIZE",
    }
    mesh.mesh_config["defaultConfig"] = {"proxyHeaders": headers}
    try:
        mesh.apply()
        wait(lambda: "istio-envoy" not in directly(mesh).headers["server"])
        wait(
            lambda: (
                "x-envoy-upstream-service-time"
                not in mesh.request("client", "http://server/").headers
            )
        )
        answer = mesh.request("client", "http://server/")
        added = {"x-request-id", "x-envoy-attempt-count", "x-forwarded-client-cert"}
        assert added.isdisjoint(answer.json()["headers"])
    finally:
        del mesh.mesh_config["defaultConfig"]
