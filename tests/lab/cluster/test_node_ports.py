"""Node ports: ports of localhost that lead to Services of type NodePort and LoadBalancer."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator

import httpx
import pytest

from lab.cluster import host_ports
from lab.manifests import load
from lab.manifests.read import ManifestError
from tests.support.lab import SMALL, Lab, running
from tests.support.namespaces import require_namespaces
from tests.support.wait import wait

GATEWAY = ("-n", "istio-system", "svc", "istio-ingressgateway")
RULES = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: ways-in}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}
  - {port: {number: 31400, name: tcp, protocol: TCP}, hosts: ["*"]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: ways-in}
spec:
  hosts: ["*"]
  gateways: [ways-in]
  http:
  - route: [{destination: {host: message-service}}]
  tcp:
  - match: [{port: 31400}]
    route: [{destination: {host: message-service, port: {number: 80}}}]
"""
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: by-node}
spec:
  type: NodePort
  selector: {app: message-service}
  ports: [{name: http, port: 80, targetPort: 8080%s}]
"""
SERVING = ("--command", "--", "python3", "-m", "http.server", "8080")


@pytest.fixture(scope="module", params=["pods", "proxy"])
def either(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lab]:
    """A lab of each network."""
    if request.param == "pods":
        require_namespaces()
        yield request.getfixturevalue("lab")
        return
    folder = tmp_path_factory.mktemp("lab") / "state"
    with running(folder, "-f", str(SMALL), "--network", "proxy") as started:
        yield started


def greeting(address: str) -> bool:
    try:
        answer = httpx.get(f"http://{address}/hello/you", trust_env=False)
    except httpx.TransportError:
        return False
    return answer.status_code == 200 and "Hello you" in answer.text


def test_istios_recipe_finds_the_gateway(either: Lab) -> None:
    """The lines of Istio's pages for a cluster without load balancers."""
    before = either.ok("get", *GATEWAY, "-o", "json")
    service = json.loads(before)
    service["spec"]["ports"].append({"name": "tcp", "port": 31400, "targetPort": 31400})
    either.apply(RULES)
    either.apply(json.dumps(service))
    try:
        labels = ("-l", "istio=ingressgateway", "-n", "istio-system")
        path = "jsonpath={.items[0].status.hostIP}"
        host = either.ok("get", "po", *labels, "-o", path)
        for name in ("http2", "tcp"):
            path = f'jsonpath={{.spec.ports[?(@.name=="{name}")].nodePort}}'
            port = either.ok("get", *GATEWAY, "-o", path)
            wait(lambda where=f"{host}:{port}": greeting(where), name)  # type: ignore[misc]
        row = either.ok("get", *GATEWAY[2:], *GATEWAY[:2]).splitlines()[1].split()
        assert row[3] == "<pending>"
        assert f",31400:{port}/TCP" in row[4]
    finally:
        either.apply(before)
        either.ok("delete", "gateway,vs", "ways-in")


def test_the_status_port_has_a_node_port_where_pods_have_a_network(either: Lab) -> None:
    path = 'jsonpath={.spec.ports[?(@.name=="status-port")].nodePort}'
    url = f"http://localhost:{either.ok('get', *GATEWAY, '-o', path)}/healthz/ready"
    if "pods" in either.ok("status").partition("Network")[2].splitlines()[0]:
        assert httpx.get(url, trust_env=False).status_code == 200
    else:
        with pytest.raises(httpx.ConnectError):
            httpx.get(url, trust_env=False)


def test_a_node_port_leads_to_its_service(either: Lab) -> None:
    either.apply(SERVICE % "")
    port = either.json("svc", "by-node")["spec"]["ports"][0]["nodePort"]
    assert port in host_ports.NODE_PORTS
    wait(lambda: greeting(f"localhost:{port}"), "the Service")
    other = host_ports.node_port("any", None, ())
    either.ok("delete", "svc", "by-node")
    wait(lambda: not greeting(f"localhost:{port}"), "the end of the Service")
    either.apply(SERVICE % f", nodePort: {other}")
    wait(lambda: greeting(f"localhost:{other}"), "the port that was asked for")
    either.ok("delete", "svc", "by-node")


def test_a_node_port_can_be_changed_and_is_nobody_elses(either: Lab) -> None:
    either.apply(SERVICE % "")
    try:
        shown = either.json("svc", "by-node")
        had = shown["spec"]["ports"][0]["nodePort"]
        either.apply(json.dumps(shown))
        assert either.json("svc", "by-node")["spec"]["ports"][0]["nodePort"] == had
        other = host_ports.node_port("any other", None, {had})
        either.apply(SERVICE % f", nodePort: {other}")
        wait(lambda: greeting(f"localhost:{other}"), "the port that was asked for")
        wait(lambda: not greeting(f"localhost:{had}"), "the end of the one before")
        second = (SERVICE % f", nodePort: {other}").replace("by-node", "second")
        refused = either.run("apply", "-f", "-", stdin=second)
        assert "spec.ports[0].nodePort: provided port is already allocated" in refused.err
        low = (SERVICE % ", nodePort: 8081").replace("by-node", "second")
        assert "not in the valid range" in either.run("apply", "-f", "-", stdin=low).err
        either.ok("patch", "svc", "by-node", "-p", '{"spec": {"type": "ClusterIP"}}')
        assert "nodePort" not in either.json("svc", "by-node")["spec"]["ports"][0]
        nothing = ("patch", "svc", "by-node", "--type=merge", "-p", '{"spec": null}')
        assert "spec: required" in either.run(*nothing).err
    finally:
        either.ok("delete", "svc", "by-node")


def test_pods_start_where_a_node_port_is_taken_meanwhile(either: Lab) -> None:
    """A program of the machine takes the number between two turns of the Service."""
    nobody = (SERVICE % "").replace("app: message-service", "app: late")
    either.apply(nobody)
    try:
        number = either.json("svc", "by-node")["spec"]["ports"][0]["nodePort"]
        with contextlib.suppress(OSError):  # In the proxy network the lab listens at once.
            taken = socket.create_server(("127.0.0.1", number))
            with taken:
                either.ok("run", "late", "--image=curlimages/curl", "--labels=app=late", *SERVING)
                either.ok("wait", "--for=condition=Ready", "pod/late", "--timeout=30s")

                def moved() -> bool:
                    found = either.json("svc", "by-node")["spec"]["ports"][0]["nodePort"]
                    return bool(found != number)

                wait(moved, "another number")
    finally:
        either.ok("delete", "svc", "by-node")
        either.ok("delete", "pod", "late", "--ignore-not-found")


def test_a_node_port_stays_unless_it_is_taken() -> None:
    first = host_ports.node_port("default/ui/80", None, ())
    assert first is not None
    assert host_ports.node_port("default/ui/80", None, ()) == first
    second = host_ports.node_port("default/ui/80", first, {first})
    assert second in host_ports.NODE_PORTS
    assert second != first
    assert host_ports.node_port("x", None, host_ports.NODE_PORTS) is None


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("type: NodePort, ports: [{port: 81, nodePort: 8080}]", "is not in the valid range"),
        ("ports: [{port: 81, nodePort: 30080}]", "may not be used when `type` is 'ClusterIP'"),
    ],
)
def test_a_node_port_that_kubernetes_refuses(spec: str, reason: str) -> None:
    text = f"apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {{{spec}}}\n"
    with pytest.raises(ManifestError, match=reason):
        load.parse([("a.yaml", text)])
