"""Gateways, as a client outside the mesh sees them."""

from __future__ import annotations

import base64
import ipaddress
import json
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from lab.explain import request
from lab.model import ServicePort
from tests.support import harness
from tests.support.harness import Mesh, Server
from tests.support.ports import free_port
from tests.support.routing import SUBSETS


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """An ingress gateway published on two ports of 127.0.0.1, and `server` behind it."""
    with harness.mesh(tmp_path_factory.mktemp("gateway")) as made:
        made.add("server-v1", app="server", version="1.0")
        made.add("server-v2", app="server", version="2.0")
        made.service("server")
        made.add("behind", server=False)
        made.service("behind", ports=(ServicePort("tls", 443, 8443, "TLS"),))
        made.add(
            "ingress",
            proxy="gateway",
            server=False,
            namespace="istio-system",
            labels={"istio": "ingressgateway"},
            ports={"http2": 8080, "https": 8443, "tcp": 31400},
            published={port: (("127.0.0.1", free_port()),) for port in (8080, 8443, 31400)},
        )
        made.service(
            "ingress",
            namespace="istio-system",
            ports=(
                ServicePort("http2", 80, 8080, "HTTP2"),
                ServicePort("https", 443, "https", "HTTPS"),
            ),
        )
        made.start()
        yield made


@pytest.fixture
def mesh(shared: Mesh) -> Iterator[Mesh]:
    shared.calm()
    yield shared
    shared.apply()


def ask(mesh: Mesh, path: str = "/", host: str = "shop.example", **headers: str) -> httpx.Response:
    _, port = mesh.pods["ingress"].pod.published[8080][0]
    return httpx.get(f"http://127.0.0.1:{port}{path}", headers={"host": host, **headers})


def test_a_client_on_this_machine_has_the_machines_address(mesh: Mesh) -> None:
    mesh.apply(SUBSETS + gateway() + site("[shop.example]", "v1"))
    seen = ask(mesh).json()["headers"]["x-forwarded-for"]
    assert not ipaddress.ip_address(seen).is_loopback


def gateway(hosts: str = '["*"]', *, name: str = "web", port: str = "", tls: str = "") -> str:
    listen = port or "{number: 80, name: http, protocol: HTTP}"
    return (
        "apiVersion: networking.istio.io/v1\nkind: Gateway\n"
        f"metadata: {{name: {name}}}\nspec:\n  selector: {{istio: ingressgateway}}\n"
        f"  servers:\n  - port: {listen}\n    hosts: {hosts}\n{tls}---\n"
    )


def site(
    hosts: str, subset: str, *, name: str = "site", match: str = "", gateways: str = "[web]"
) -> str:
    where = f"match: [{match}]\n    " if match else ""
    return (
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\n"
        f"metadata: {{name: {name}}}\nspec:\n  hosts: {hosts}\n  gateways: {gateways}\n"
        f"  http:\n  - {where}route: [{{destination: {{host: server, subset: {subset}}}}}]\n---\n"
    )


def test_a_gateway_at_the_edge_is_stricter(mesh: Mesh) -> None:
    """The profile EDGE of connectionSettings: other headers and paths than Envoy's own defaults."""
    manifests = SUBSETS + gateway() + site('["*"]', "v1")
    mesh.apply(manifests)
    assert ask(mesh, "//a%2Fb", x_a="1").status_code == 200
    mesh.mesh_config["defaultConfig"] = {"connectionSettings": {"profile": "EDGE"}}
    try:
        mesh.apply(manifests)
        assert ask(mesh, "//a").json()["path"] == "/a"
        assert ask(mesh, x_a="1").status_code == 400
        assert ask(mesh, "/a%2Fb").headers["location"].endswith("/a/b")
        pod, url = mesh.pods["ingress"].pod, "http://shop.example/a"
        told = request.explain(mesh.snapshot(), pod, "GET", f"{url}%2Fb")
        assert (told.status, told.steps[-1].says) == (307, "307 redirect: path /a/b")
        assert request.explain(mesh.snapshot(), pod, "GET", url, [("x_a", "1")]).status == 400
    finally:
        mesh.mesh_config.pop("defaultConfig")


def test_trusted_proxies_say_who_the_client_is(mesh: Mesh) -> None:
    block = (
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
        "metadata: {name: block, namespace: istio-system}\nspec:\n  action: DENY\n"
        "  rules: [{from: [{source: {remoteIpBlocks: [203.0.113.0/24]}}]}]\n---\n"
    )
    mesh.mesh_config["defaultConfig"] = {"gatewayTopology": {"numTrustedProxies": 2}}
    try:
        mesh.apply(SUBSETS + gateway() + site('["*"]', "v1") + block)
        pod, url = mesh.pods["ingress"].pod, "http://shop.example/"
        for sent, status in {
            "203.0.113.7, 198.51.100.1": 403,
            "198.51.100.1, 203.0.113.7": 200,
            "203.0.113.7": 200,
        }.items():
            told = request.explain(mesh.snapshot(), pod, "GET", url, [("x-forwarded-for", sent)])
            assert ask(mesh, **{"x-forwarded-for": sent}).status_code == status, sent
            assert (told.status or 200) == status, sent
    finally:
        mesh.mesh_config.pop("defaultConfig")


def test_no_gateway_refuses_connections_and_no_route_is_a_404(mesh: Mesh) -> None:
    with pytest.raises(httpx.ConnectError):
        ask(mesh)
    mesh.apply(gateway())
    reply = ask(mesh)
    assert (reply.status_code, reply.text, reply.headers["server"]) == (404, "", "istio-envoy")
    mesh.apply()
    with pytest.raises(httpx.ConnectError):
        ask(mesh)


def test_a_virtual_service_brings_traffic_in(mesh: Mesh) -> None:
    mesh.apply(SUBSETS + gateway() + site('["*"]', "v1"))
    reply = ask(mesh, "/page", **{"x-envoy-attempt-count": "7"})
    assert reply.json()["version"] == "1.0"
    seen = reply.json()["headers"]
    assert seen["x-forwarded-proto"] == "http"
    assert seen["x-envoy-attempt-count"] == "1"  # what a client claims is not believed
    assert reply.headers["server"] == "istio-envoy"
    assert "x-envoy-upstream-service-time" in reply.headers


def test_routes_of_several_virtual_services_join_and_catch_alls_go_last(mesh: Mesh) -> None:
    mesh.apply(
        SUBSETS
        + gateway()
        + site('["*"]', "v1", name="everything")
        + site('["*"]', "v2", name="special", match="{uri: {prefix: /special}}")
    )
    assert ask(mesh, "/special").json()["version"] == "2.0"
    assert ask(mesh, "/other").json()["version"] == "1.0"


def test_hosts_of_gateway_and_virtual_service_intersect(mesh: Mesh) -> None:
    mesh.apply(
        SUBSETS
        + gateway('["*.example"]')
        + site('["shop.example", "shop.elsewhere"]', "v1", name="shop")
        + site('["*"]', "v2", name="rest")
    )
    assert ask(mesh, host="shop.example").json()["version"] == "1.0"
    assert ask(mesh, host="shop.example:80").json()["version"] == "1.0"
    assert ask(mesh, host="other.example").json()["version"] == "2.0"
    assert ask(mesh, host="shop.elsewhere").status_code == 404


def test_a_gateway_host_can_be_limited_to_a_namespace(mesh: Mesh) -> None:
    for prefix, status in (("default/", 200), ("./", 200), ("*/", 200), ("elsewhere/", 404)):
        mesh.apply(SUBSETS + gateway(f'["{prefix}*"]') + site('["*"]', "v1"))
        assert ask(mesh).status_code == status, prefix


def test_gateways_on_the_same_port_merge(mesh: Mesh) -> None:
    mesh.apply(
        SUBSETS
        + gateway('["one.example"]', name="one")
        + gateway('["two.example"]', name="two")
        + site('["one.example"]', "v1", name="one", gateways="[one]")
        + site('["two.example"]', "v2", name="two", gateways="[default/two]")
    )
    assert ask(mesh, host="one.example").json()["version"] == "1.0"
    assert ask(mesh, host="two.example").json()["version"] == "2.0"


def test_a_selector_that_fits_no_pod_opens_nothing(mesh: Mesh) -> None:
    mesh.apply(gateway().replace("ingressgateway", "egressgateway"))
    with pytest.raises(httpx.ConnectError):
        ask(mesh)


def test_a_match_can_name_the_gateway(mesh: Mesh) -> None:
    mesh.apply(
        SUBSETS
        + gateway()
        + site('["*.example"]', "v2", match="{gateways: [other]}", gateways="[web, mesh]", name="a")
        + site('["*.example"]', "v1", match="{gateways: [web]}", gateways="[web]", name="b")
    )
    assert ask(mesh).json()["version"] == "1.0"


def test_https_redirect(mesh: Mesh) -> None:
    mesh.apply(SUBSETS + gateway(tls="    tls: {httpsRedirect: true}\n") + site('["*"]', "v1"))
    reply = ask(mesh, "/page")
    assert (reply.status_code, reply.headers["location"]) == (301, "https://shop.example/page")


def certificate(folder: Path) -> tuple[bytes, bytes]:
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1"
    command += " -subj /CN=shop.example -addext subjectAltName=DNS:shop.example"
    subprocess.run(
        [*command.split(), "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
        check=True,
        capture_output=True,
    )
    return (folder / "cert.pem").read_bytes(), (folder / "key.pem").read_bytes()


def test_https_with_a_certificate_from_a_secret(mesh: Mesh, tmp_path: Path) -> None:
    cert, key = (base64.b64encode(part).decode() for part in certificate(tmp_path))
    secret = (
        "apiVersion: v1\nkind: Secret\nmetadata: {name: shop-cert, namespace: istio-system}\n"
        f"type: kubernetes.io/tls\ndata: {{tls.crt: {cert}, tls.key: {key}}}\n---\n"
    )
    secure = gateway(
        port="{number: 443, name: https, protocol: HTTPS}",
        tls="    tls: {mode: SIMPLE, credentialName: shop-cert}\n",
    )
    mesh.apply(SUBSETS + secure + site('["*"]', "v1"))
    _, port = mesh.pods["ingress"].pod.published[8443][0]
    url = f"https://127.0.0.1:{port}/"
    context = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
    context.check_hostname = False
    with pytest.raises(httpx.ConnectError):  # no Secret yet
        httpx.get(url, verify=context)
    mesh.apply(secret + SUBSETS + secure + site('["*"]', "v1"))
    reply = httpx.get(url, verify=context, headers={"host": "shop.example"})
    assert reply.json()["version"] == "1.0"
    assert reply.json()["headers"]["x-forwarded-proto"] == "https"


@dataclass(frozen=True)
class Keys:
    """Certificates of a server and a client that sign themselves."""

    server: Path
    client: Path

    def secret(self) -> str:
        """The server's certificate with its key, and the client's as the authority."""
        files = {
            "tls.crt": self.server / "cert.pem",
            "tls.key": self.server / "key.pem",
            "ca.crt": self.client / "cert.pem",
        }
        data = {name: base64.b64encode(file.read_bytes()).decode() for name, file in files.items()}
        return (
            "apiVersion: v1\nkind: Secret\nmetadata: {name: shop-cert, namespace: istio-system}\n"
            f"data: {json.dumps(data)}\n---\n"
        )

    def context(self, *, client: bool = False) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.server / "cert.pem"))
        if client:
            context.load_cert_chain(self.client / "cert.pem", self.client / "key.pem")
        return context


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    folders = [tmp_path_factory.mktemp(name) for name in ("server", "client")]
    for folder in folders:
        certificate(folder)
    return Keys(*folders)


def secure_get(mesh: Mesh, context: ssl.SSLContext, name: str = "shop.example") -> httpx.Response:
    """HTTPS to the gateway with a server name."""
    _, port = mesh.pods["ingress"].pod.published[8443][0]
    with httpx.Client(verify=context) as session:
        request = session.build_request(
            "GET",
            f"https://127.0.0.1:{port}/",
            headers={"host": name},
            extensions={"sni_hostname": name},
        )
        return session.send(request)


HTTPS = "{number: 443, name: https, protocol: HTTPS}"
TLS = "{number: 443, name: tls, protocol: TLS}"


@pytest.mark.parametrize("mode", ["MUTUAL", "OPTIONAL_MUTUAL"])
def test_certificates_of_clients(mesh: Mesh, keys: Keys, mode: str) -> None:
    def server(more: str) -> str:
        tls = f"    tls: {{mode: {mode}, credentialName: shop-cert{more}}}\n"
        return gateway('["shop.example"]', port=HTTPS, tls=tls)

    rest = keys.secret() + SUBSETS + site('["shop.example"]', "v1")
    mesh.apply(rest + server(""))
    assert secure_get(mesh, keys.context(client=True)).json()["version"] == "1.0"
    if mode == "MUTUAL":
        with pytest.raises(httpx.HTTPError):
            secure_get(mesh, keys.context())
    else:
        assert secure_get(mesh, keys.context()).status_code == 200
    mesh.apply(rest + server(", subjectAltNames: [another.example]"))
    with pytest.raises(httpx.HTTPError):
        secure_get(mesh, keys.context(client=True))


def connections(route: str, hosts: str = '["shop.example"]') -> str:
    return (
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: connections}\n"
        f"spec:\n  hosts: {hosts}\n  gateways: [web]\n{route}\n---\n"
    )


def test_tls_passes_through_by_its_server_name(mesh: Mesh, keys: Keys) -> None:
    pod = mesh.pods["behind"].pod
    server = Server("behind", "secure", (pod.address, 8443))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(keys.server / "cert.pem", keys.server / "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    mesh.listen(server)
    to = "    route: [{destination: {host: behind}}]"
    mesh.apply(
        gateway('["*.example"]', port=TLS, tls="    tls: {mode: PASSTHROUGH}\n")
        + connections(f"  tls:\n  - match: [{{port: 443, sniHosts: [shop.example]}}]\n{to}")
    )
    assert secure_get(mesh, keys.context()).json()["version"] == "secure"
    any_name = keys.context()
    any_name.check_hostname = False
    with pytest.raises(httpx.ConnectError):
        secure_get(mesh, any_name, "other.example")


def test_a_gateway_ends_tls_and_forwards_bytes(mesh: Mesh, keys: Keys) -> None:
    rule = "  tcp:\n  - route: [{destination: {host: server, port: {number: 80}}}]"
    ended = gateway(
        '["shop.example"]', port=TLS, tls="    tls: {mode: SIMPLE, credentialName: shop-cert}\n"
    )
    mesh.apply(keys.secret() + ended + connections(rule))
    reply = secure_get(mesh, keys.context()).json()
    assert reply["pod"].startswith("server")
    assert "x-forwarded-proto" not in reply["headers"]


def test_a_tcp_server(mesh: Mesh) -> None:
    rule = "  tcp:\n  - match: [{port: 31400}]\n    route: [{destination: {host: server}}]"
    tcp = gateway(port="{number: 31400, name: tcp, protocol: TCP}")
    mesh.apply(tcp + connections(rule, '["*"]'))
    _, port = mesh.pods["ingress"].pod.published[31400][0]
    reply = httpx.get(f"http://127.0.0.1:{port}/")
    assert reply.json()["pod"].startswith("server")
    assert "server" not in reply.headers or reply.headers["server"] != "istio-envoy"


def test_an_update_keeps_open_connections(mesh: Mesh) -> None:
    """Routes change without the listener, so a connection made before lives on."""
    mesh.apply(SUBSETS + gateway() + site('["*"]', "v1"))
    _, port = mesh.pods["ingress"].pod.published[8080][0]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        first = client.get("/")
        stream = first.extensions["network_stream"]
        before = stream.get_extra_info("client_addr")
        mesh.apply(SUBSETS + gateway() + site('["*"]', "v2"))
        second = client.get("/")
        assert second.extensions["network_stream"].get_extra_info("client_addr") == before
    assert (first.json()["version"], second.json()["version"]) == ("1.0", "2.0")
