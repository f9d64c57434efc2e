"""Traffic that leaves the mesh: ServiceEntry, Sidecar, and the policy for unknown hosts.

`outside` plays a server on the Internet: it has no Service, and its name resolves nowhere, so
clients say its address as the curl of the lab does.
"""

from __future__ import annotations

import base64
import re
import socket
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import httpx
import pytest

from lab import names
from lab.kinds.kubernetes import service as service_kind
from lab.manifests.load import parse
from lab.model import ServicePort
from tests.support import harness
from tests.support.harness import Mesh, Server
from tests.support.wait import wait


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    folder = tmp_path_factory.mktemp("egress")
    with harness.mesh(folder) as made:
        made.add("client", proxy="sidecar")
        made.add("server")
        made.add("elsewhere", namespace="elsewhere", app="elsewhere")
        outside = made.add("outside", server=False).pod
        for service, namespace in (("client", "default"), ("server", "default")):
            made.service(service, namespace=namespace)
        made.service("elsewhere", namespace="elsewhere")
        servers = [Server("outside", "http", (outside.address, 80))]
        servers.append(Server("outside", "https", (outside.address, 443)))
        secure(servers[1], folder)
        for server in servers:
            made.listen(server)
        made.start()
        yield made


def secure(server: Server, folder: Path) -> None:
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1"
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    names_of = [
        "-subj",
        "/CN=outside",
        "-addext",
        "subjectAltName=DNS:api.example,DNS:*.ubuntu.com",
    ]
    subprocess.run([*command.split(), *names_of, *files], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3  # Envoy's clients stop at 1.2 by default.
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)


@pytest.fixture
def mesh(shared: Mesh) -> Iterator[Mesh]:
    shared.calm()
    shared.mesh_config.pop("outboundTrafficPolicy", None)
    yield shared
    shared.mesh_config.pop("outboundTrafficPolicy", None)
    shared.apply()


@pytest.fixture
def closed(mesh: Mesh) -> Mesh:
    """The mesh with REGISTRY_ONLY."""
    mesh.mesh_config["outboundTrafficPolicy"] = {"mode": "REGISTRY_ONLY"}
    mesh.push()
    return mesh


def get(mesh: Mesh, host: str) -> httpx.Response:
    """Plain HTTP to a host whose name "resolves" to `outside`."""
    address = mesh.pods["outside"].pod.address
    return mesh.request(
        "client", f"http://{host}/x", headers={"x-envoy-original-dst-host": address}
    )


def curl(mesh: Mesh, url: str) -> subprocess.CompletedProcess[str]:
    """HTTPS by curl, through the proxy, to a host whose name "resolves" to `outside`."""
    proxy = f"http://{mesh.pods['client'].pod.inside_address}:{names.OUTBOUND_PORT}"
    port = re.search(r":(\d+)/", url)
    address = f"{mesh.pods['outside'].pod.address}:{port[1] if port else 443}"
    header = f"x-envoy-original-dst-host: {address}"
    return subprocess.run(
        ["curl", "-sSk", "-m", "10", "-x", proxy, "--proxy-header", header, url],
        capture_output=True,
        text=True,
        check=False,
    )


def entry(hosts: str, port: str, rest: str = "resolution: NONE") -> str:
    return (
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: outside}\n"
        f"spec:\n  hosts: {hosts}\n  location: MESH_EXTERNAL\n  ports: [{port}]\n  {rest}\n---\n"
    )


HTTP = "{number: 80, name: http, protocol: HTTP}"
TLS = "{number: 443, name: tls, protocol: TLS}"


def test_unknown_hosts_are_reached_by_default(mesh: Mesh) -> None:
    reply = get(mesh, "archive.ubuntu.com")
    assert reply.json()["pod"] == "outside"
    assert reply.json()["headers"]["host"] == "archive.ubuntu.com"
    assert "x-envoy-original-dst-host" not in reply.json()["headers"]
    wait(lambda: "PassthroughCluster" in mesh.pods["client"].log)
    assert mesh.pods["client"].log.rstrip().endswith("allow_any")
    found = curl(mesh, "https://api.example/x")
    assert '"version": "https"' in found.stdout, found.stderr


def test_the_url_decides_and_not_the_host_header(mesh: Mesh) -> None:
    """A request to an HTTP proxy has the name in its URL; the header gets that name too."""
    mesh.apply()
    proxy = (mesh.pods["client"].pod.inside_address, names.OUTBOUND_PORT)
    with socket.create_connection(proxy, timeout=5) as connection:
        connection.sendall(b"GET http://server/ HTTP/1.1\r\nHost: elsewhere\r\n")
        connection.sendall(b"Connection: close\r\n\r\n")
        answer = connection.makefile("rb").read().decode()
    assert '"pod": "server"' in answer
    assert '"host": "server"' in answer


def test_the_access_log_has_the_client_with_port_0(mesh: Mesh) -> None:
    mesh.apply()
    assert mesh.request("client", "http://server/?port-0").status_code == 200
    line = wait(
        lambda: next(
            (one for one in mesh.pods["client"].log.splitlines() if "?port-0" in one), None
        )
    )
    assert re.search(r" 127\.[0-9.]+:0 ", line)


def test_with_dynamic_dns_the_proxy_resolves_the_host(mesh: Mesh) -> None:
    """The address that the client has found for the name does not count."""
    mesh.mesh_config["outboundTrafficPolicy"] = {"mode": "ALLOW_ANY_DYNAMIC_DNS"}
    mesh.push()
    address = mesh.pods["outside"].pod.address
    assert get(mesh, "nowhere.invalid").status_code == 503
    wait(lambda: "AllowAnyDynamicDNSCluster" in mesh.pods["client"].log)
    assert mesh.pods["client"].log.rstrip().endswith("allow_any_dynamic_dns")
    assert get(mesh, f"{address}:80").json()["pod"] == "outside"
    found = curl(mesh, "https://api.example/x")
    assert '"version": "https"' in found.stdout, found.stderr


def test_registry_only_blocks_http_with_502(closed: Mesh) -> None:
    reply = get(closed, "archive.ubuntu.com")
    assert (reply.status_code, reply.text, reply.headers["server"]) == (502, "", "envoy")
    wait(lambda: "block_all" in closed.pods["client"].log)
    line = next(row for row in closed.pods["client"].log.splitlines() if "block_all" in row)
    assert re.search(r'"GET /x HTTP/1.1" 502 - direct_response - "-" 0 0 ', line), line
    assert '"archive.ubuntu.com"' in line
    assert line.endswith("block_all")
    assert closed.request("client", "http://server/").status_code == 200


def test_registry_only_resets_https(closed: Mesh) -> None:
    found = curl(closed, "https://api.example/x")
    assert found.returncode == 35, found.stderr
    wait(lambda: "BlackHoleCluster" in closed.pods["client"].log)


def test_a_wildcard_service_entry_opens_http(closed: Mesh) -> None:
    closed.apply(entry('["*.ubuntu.com"]', HTTP))
    assert get(closed, "archive.ubuntu.com").json()["pod"] == "outside"
    assert get(closed, "ubuntu.example").status_code == 502
    wait(lambda: "outbound|80||*.ubuntu.com" in closed.pods["client"].log)
    closed.apply()
    assert get(closed, "archive.ubuntu.com").status_code == 502


def test_a_tls_service_entry_opens_one_server_name(closed: Mesh) -> None:
    closed.apply(entry("[api.example]", TLS))
    found = curl(closed, "https://api.example/x")
    assert '"version": "https"' in found.stdout, found.stderr
    assert curl(closed, "https://other.example/x").returncode == 35
    wait(lambda: "outbound|443||api.example" in closed.pods["client"].log)
    closed.apply(entry('["*.example"]', TLS.replace("TLS", "HTTPS")))
    assert curl(closed, "https://other.example/x").returncode == 0
    assert curl(closed, "https://ubuntu.com/x").returncode == 35


def test_another_port_of_an_allowed_host_stays_closed(closed: Mesh) -> None:
    closed.apply(entry("[api.example]", TLS))
    assert curl(closed, "https://api.example:8443/x").returncode == 35


def test_a_static_service_entry_has_its_own_addresses(closed: Mesh) -> None:
    address = closed.pods["outside"].pod.address
    endpoints = f"resolution: STATIC\n  endpoints: [{{address: {address}}}]"
    closed.apply(entry("[api.example]", HTTP, endpoints))
    assert closed.request("client", "http://api.example/").json()["pod"] == "outside"
    closed.apply(entry("[api.example]", TLS, endpoints))
    proxy = f"http://{closed.pods['client'].pod.inside_address}:{names.OUTBOUND_PORT}"
    with httpx.Client(proxy=proxy, verify=False) as client:
        assert client.get("https://api.example/").json()["version"] == "https"


def test_a_dns_service_entry_resolves_names(closed: Mesh) -> None:
    address = closed.pods["outside"].pod.address
    endpoints = f"resolution: DNS\n  endpoints: [{{address: {address}, ports: {{http: 80}}}}]"
    closed.apply(entry("[api.example]", HTTP.replace("80", "8000"), endpoints))
    assert closed.request("client", "http://api.example:8000/").json()["pod"] == "outside"
    assert closed.request("client", "http://api.example/").status_code == 502


def test_workload_entries_are_endpoints_of_the_entry_that_selects_them(closed: Mesh) -> None:
    """A client without a locality prefers those without one, when it notices failures."""
    near, far = (closed.pods[name] for name in ("server", "outside"))
    workloads = "".join(
        "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\n"
        f"metadata: {{name: {name}, labels: {{class: {kind}}}}}\n"
        f"spec: {{address: {address}, labels: {{class: vm, place: {name}}}, {rest}}}\n---\n"
        for name, kind, address, rest in (
            ("near", "vm", near.pod.address, "ports: {http: 8080}"),
            ("far", "vm", far.pod.address, "locality: eu/west"),
            ("other", "other", "192.0.2.1", "weight: 1"),
        )
    )
    outlier = "outlierDetection: {consecutive5xxErrors: 1, maxEjectionPercent: 100}"
    rule = (
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: vms}\n"
        "spec: {host: vm.example, subsets: [{name: far, labels: {place: far}}], "
        "trafficPolicy: {%s}}\n---\n"
    )
    selected = entry(
        "[vm.example]",
        HTTP,
        "resolution: STATIC\n  workloadSelector: {labels: {class: vm}}",
    )

    def answering() -> set[str]:
        replies = [closed.request("client", "http://vm.example/") for _ in range(20)]
        return {reply.json()["pod"] for reply in replies if reply.status_code == 200}

    closed.apply(selected + workloads + rule % "loadBalancer: {simple: RANDOM}")
    assert answering() == {"server", "outside"}
    closed.apply(selected + workloads + rule % outlier)
    wait(lambda: answering() == {"server"})
    assert near.server is not None
    near.server.status = 503
    wait(lambda: answering() == {"outside"})
    near.server.status = 200
    route = "  http: [{route: [{destination: {host: vm.example, subset: far}}]}]"
    closed.apply(selected + workloads + rule % "loadBalancer: {}" + routes(route, "vm.example"))
    assert answering() == {"outside"}


def test_tls_origination_by_a_destination_rule(closed: Mesh, tmp_path: Path) -> None:
    """The application speaks HTTP, its sidecar TLS."""
    address = closed.pods["outside"].pod.address
    root = closed.folder / "cert.pem"
    endpoints = f"resolution: STATIC\n  endpoints: [{{address: {address}}}]"
    port = "{number: 80, name: http, protocol: HTTP, targetPort: 443}"
    rule = (
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: outside}\n"
        "spec:\n  host: api.example\n  trafficPolicy:\n    tls: {mode: SIMPLE, caCertificates: "
        f"{root}}}\n"
    )
    closed.apply(entry("[api.example]", port, endpoints) + rule)
    assert closed.request("client", "http://api.example/").json()["version"] == "https"
    closed.apply(entry("[bad.example]", port, endpoints) + rule.replace("api.", "bad."))
    reply = closed.request("client", "http://bad.example/")
    assert reply.status_code == 503  # the certificate is for another name


def test_tls_origination_with_a_secret(closed: Mesh) -> None:
    """It is served to sidecars that the rule selects; others speak plain text."""
    address = closed.pods["outside"].pod.address
    endpoints = f"resolution: STATIC\n  endpoints: [{{address: {address}}}]"
    port = "{number: 80, name: http, protocol: HTTP, targetPort: 443}"
    authority = base64.b64encode((closed.folder / "cert.pem").read_bytes()).decode()
    secret = (
        "apiVersion: v1\nkind: Secret\nmetadata: {name: outside}\n"
        f"data: {{cacert: {authority}}}\n---\n"
    )
    rule = (
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: outside}\n"
        "spec:\n  host: api.example\n  workloadSelector: {matchLabels: {app: client}}\n"
        "  trafficPolicy: {tls: {mode: SIMPLE, credentialName: outside}}\n"
    )
    closed.apply(entry("[api.example]", port, endpoints) + secret + rule)
    assert closed.request("client", "http://api.example/").json()["version"] == "https"
    anyone = rule.replace("  workloadSelector: {matchLabels: {app: client}}\n", "")
    closed.apply(entry("[api.example]", port, endpoints) + secret + anyone)
    assert closed.request("client", "http://api.example/").status_code == 503


class Heads(socketserver.StreamRequestHandler):
    """Keeps the head of a connection, answers CONNECT, and echoes the rest."""

    kept: ClassVar[list[bytes]] = []

    def handle(self) -> None:
        self.kept.append(self.rfile.readline())
        if self.kept[-1].startswith(b"CONNECT"):
            while self.rfile.readline().strip():
                pass
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        self.wfile.write(self.rfile.readline())


@pytest.mark.parametrize(
    ("policy", "head"),
    [
        ("proxyProtocol: {version: V1}", rb"PROXY TCP4 \S+ \S+ \d+ 5433\r\n"),
        (
            "tunnel: {targetHost: database.example, targetPort: 5432}",
            rb"CONNECT database\.example:5432 HTTP/1\.1\r\n",
        ),
    ],
)
def test_a_connection_begins_with_what_a_rule_says(mesh: Mesh, policy: str, head: bytes) -> None:
    inside = mesh.pods["client"].pod.inside_address
    mesh.services = [service for service in mesh.services if service.name != "db"]
    rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: db}\nspec: "
    place = (mesh.pods["outside"].pod.address, 0)
    with socketserver.ThreadingTCPServer(place, Heads) as server:
        port = ServicePort("tcp", 5433, server.server_address[1], "TCP")
        mesh.service("db", ports=(port,), selector={"app": "outside"})
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        mesh.apply(f"{rule}{{host: db, trafficPolicy: {{{policy}}}}}\n")
        with socket.create_connection((inside, 5433), timeout=5) as connection:
            connection.sendall(b"hello\n")
            assert connection.makefile("rb").readline() == b"hello\n"
        server.shutdown()
    assert re.fullmatch(head, Heads.kept[-1])


def test_a_virtual_service_can_route_an_external_host(closed: Mesh) -> None:
    service = (
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: api}\n"
        "spec:\n  hosts: [api.example]\n  http:\n"
        "  - fault: {abort: {httpStatus: 418, percentage: {value: 100}}}\n"
        "    route: [{destination: {host: api.example}}]\n"
    )
    closed.apply(entry("[api.example]", HTTP) + service)
    assert get(closed, "api.example").status_code == 418


def routes(spec: str, host: str = "api.example") -> str:
    return (
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: routes}\n"
        f"spec:\n  hosts: [{host}]\n{spec}\n---\n"
    )


def test_a_tls_route_chooses_by_the_server_name(closed: Mesh) -> None:
    """Names that no rule has are unknown, as soon as a rule is there."""
    address = closed.pods["outside"].pod.address
    there = f"resolution: STATIC\n  endpoints: [{{address: {address}}}]"
    gone = "resolution: STATIC\n  endpoints: [{address: 127.77.255.255}]"
    known = entry("[api.example]", TLS, gone) + entry("[other.example]", TLS, there).replace(
        "name: outside", "name: other"
    )
    closed.apply(known)
    assert curl(closed, "https://api.example/x").returncode != 0
    to_other = "    route: [{destination: {host: other.example}}]"
    closed.apply(known + routes(f"  tls:\n  - match: [{{sniHosts: [api.example]}}]\n{to_other}"))
    found = curl(closed, "https://api.example/x")
    assert '"version": "https"' in found.stdout, found.stderr
    wait(lambda: "outbound|443||other.example" in closed.pods["client"].log)
    elsewhere = "  tls:\n  - match: [{sniHosts: [api.example], sourceLabels: {app: else}}]\n"
    closed.apply(known + routes(elsewhere + to_other))
    assert curl(closed, "https://api.example/x").returncode != 0


def test_a_tcp_route_divides_connections(mesh: Mesh) -> None:
    mesh.services = [service for service in mesh.services if service.name != "db"]
    selector = {"app": "server"}
    mesh.service("db", ports=(ServicePort("tcp-db", 3306, 8080, "TCP"),), selector=selector)
    mesh.service("other", ports=(ServicePort("tcp", 3307, 8080, "TCP"),), selector={"app": "else"})
    inside = mesh.pods["client"].pod.inside_address

    def reached() -> bool:
        try:
            return bool(httpx.get(f"http://{inside}:3306/").json()["pod"] == "server")
        except httpx.HTTPError:
            return False

    to = "    route: [{destination: {host: %s}, weight: %d}, {destination: {host: %s}, weight: %d}]"
    mesh.apply(routes("  tcp:\n  - match: [{port: 3306}]\n" + to % ("db", 1, "other", 1), "db"))
    assert {reached() for _ in range(60)} == {True, False}
    wait(lambda: mesh.pods["client"].admin.stats("tcp.routes.default.downstream_cx_total") != {})
    subnet = "  tcp:\n  - match: [{destinationSubnets: [127.79.%d.0/24]}]\n"
    for number, expected in ((mesh.slice, {False}), (0, {True})):
        mesh.apply(routes(subnet % number + to % ("db", 0, "other", 1), "db"))
        assert {reached() for _ in range(5)} == expected


def sidecar(spec: str, name: str = "default") -> str:
    return (
        "apiVersion: networking.istio.io/v1\nkind: Sidecar\n"
        f"metadata: {{name: {name}}}\nspec:\n{spec}\n---\n"
    )


def test_a_sidecar_sets_the_policy_of_its_namespace(mesh: Mesh) -> None:
    mesh.apply(sidecar("  outboundTrafficPolicy: {mode: REGISTRY_ONLY}"))
    assert get(mesh, "archive.ubuntu.com").status_code == 502
    assert mesh.request("client", "http://server/").status_code == 200
    mesh.apply(
        sidecar("  outboundTrafficPolicy: {mode: REGISTRY_ONLY}")
        + sidecar(
            "  workloadSelector: {labels: {app: client}}\n"
            "  outboundTrafficPolicy: {mode: ALLOW_ANY}",
            name="client",
        )
    )
    assert get(mesh, "archive.ubuntu.com").status_code == 200


def test_a_sidecar_limits_the_hosts_a_client_knows(closed: Mesh) -> None:
    elsewhere = "http://elsewhere.elsewhere/"
    assert closed.request("client", elsewhere).status_code == 200
    for hosts, (own, other) in {
        '["./*"]': (200, 502),
        '["*/*"]': (200, 200),
        '["elsewhere/*"]': (502, 200),
        '["./server.default.svc.cluster.local"]': (200, 502),
        '["~/*"]': (503, 503),  # No Service has port 80: on a cluster the connection is reset.
    }.items():
        closed.apply(sidecar(f"  egress: [{{hosts: {hosts}}}]"))
        assert closed.request("client", "http://server/").status_code == own, hosts
        assert closed.request("client", elsewhere).status_code == other, hosts


def test_each_port_of_a_sidecar_has_hosts_of_its_own(closed: Mesh) -> None:
    port = "{number: %d, protocol: %s}"
    closed.apply(
        sidecar(
            "  egress:\n"
            f"  - {{port: {port % (80, 'HTTP')}, hosts: [./server.default.svc.cluster.local]}}\n"
            f"  - {{port: {port % (3128, 'HTTP_PROXY')}, captureMode: NONE, hosts: ['*/*']}}\n"
        )
    )
    inside = closed.pods["client"].pod.inside_address
    elsewhere = "http://elsewhere.elsewhere/"
    wait(lambda: closed.request("client", elsewhere).status_code == 502)
    assert closed.request("client", "http://server/").status_code == 200
    through = httpx.get(elsewhere, proxy=f"http://{inside}:3128", trust_env=False)
    assert through.json()["pod"] == "elsewhere"


def test_a_short_name_of_another_namespace_is_unknown(closed: Mesh) -> None:
    assert closed.request("client", "http://elsewhere/").status_code == 502
    assert closed.request("client", "http://elsewhere.elsewhere.svc/").status_code == 200


def test_export_to_hides_a_service_entry(closed: Mesh) -> None:
    closed.apply(entry("[api.example]", HTTP, "exportTo: [elsewhere]"))
    assert get(closed, "api.example").status_code == 502
    closed.apply(entry("[api.example]", HTTP, "exportTo: ['.']"))
    assert get(closed, "api.example").status_code == 200


def test_a_tcp_service_has_a_listener_beside_the_application(mesh: Mesh) -> None:
    """Clients reach MySQL or Redis at their own sidecar, on the service's port."""
    mesh.services = [service for service in mesh.services if service.name != "db"]
    mesh.service(
        "db", ports=(ServicePort("tcp-db", 3306, 8080, "TCP"),), selector={"app": "server"}
    )
    mesh.push()
    inside = mesh.pods["client"].pod.inside_address
    assert httpx.get(f"http://{inside}:3306/").json()["pod"] == "server"
    wait(lambda: "outbound|3306||db.default.svc.cluster.local" in mesh.pods["client"].log)


ALIAS = """
apiVersion: v1
kind: Service
metadata: {name: other-name}
spec: {type: ExternalName, externalName: server.default.svc.cluster.local}
"""


def test_another_name_of_a_service_leads_to_it(closed: Mesh) -> None:
    assert closed.request("client", "http://other-name/").status_code == 502
    (resource,) = parse([("test.yaml", ALIAS)]).resources
    closed.services.append(service_kind.service(resource, None, ()))
    try:
        closed.push()
        wait(lambda: closed.request("client", "http://other-name/").status_code == 200)
        assert closed.request("client", "http://other-name/").json()["pod"] == "server"
    finally:
        closed.services.pop()
