"""Gateways of one's own, made by gateway injection as on istio.io's page "Installing Gateways"."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.lab import Lab
from tests.support.namespaces import require_namespaces
from tests.support.wait import wait

EGRESS = """
apiVersion: v1
kind: Service
metadata: {name: istio-egressgateway, namespace: istio-system}
spec:
  selector: {istio: egressgateway}
  ports: [{name: http2, port: 80, targetPort: 8080}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: istio-egressgateway, namespace: istio-system}
spec:
  selector: {matchLabels: {istio: egressgateway}}
  template:
    metadata:
      annotations: {inject.istio.io/templates: gateway}
      labels: {istio: egressgateway, sidecar.istio.io/inject: "true"}
    spec:
      containers:
      - {name: istio-proxy, image: auto}
"""
ROUTES = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: beyond}
spec:
  hosts: [beyond.example]
  location: MESH_EXTERNAL
  resolution: STATIC
  endpoints: [{address: 10.244.0.2}]
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: %d}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: beyond}
spec:
  selector: {istio: egressgateway}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: [beyond.example]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: beyond}
spec:
  hosts: [beyond.example]
  gateways: [beyond, mesh]
  http:
  - match: [{gateways: [mesh], port: 80}]
    route:
    - destination: {host: istio-egressgateway.istio-system.svc.cluster.local, port: {number: 80}}
  - match: [{gateways: [beyond], port: 80}]
    route: [{destination: {host: beyond.example, port: {number: 80}}}]
"""


@contextmanager
def outside() -> Iterator[int]:
    """A server of this machine; yields its port."""
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_an_egress_gateway_is_injected_and_taken(lab: Lab) -> None:
    require_namespaces()
    labels = ("-l", "istio=egressgateway", "-n", "istio-system")
    with outside() as port:
        try:
            assert "Warning" not in lab.run("apply", "-f", "-", stdin=EGRESS).err
            lab.apply(ROUTES % port)
            lab.ready("istio=egressgateway", 1, "istio-system")
            ask = ("curl", "-s", "-I", "--resolve", "beyond.example:80:10.9.9.9")
            wait(
                lambda: " 200 " in lab.run("exec", "curl", "--", *ask, "http://beyond.example").out,
                "the server outside",
            )
            assert "proxyv2" in lab.ok("get", "pods", *labels, "-o", "yaml")
            gateway = "istio-egressgateway.istio-system"

            def edges() -> list[tuple[str, ...]]:
                return [tuple(row.split()[:2]) for row in lab.ok("graph").splitlines()]

            wait(lambda: {("curl", gateway), (gateway, "beyond.example")} <= set(edges()), "graph")
            assert ("(outside)", gateway) not in edges()
        finally:
            lab.ok("delete", "-f", "-", "--ignore-not-found", stdin=ROUTES % port)
            lab.ok("delete", "-f", "-", "--ignore-not-found", stdin=EGRESS)


@pytest.mark.parametrize(
    ("there", "instead", "reason"),
    [
        ("templates: gateway", "templates: sidecar", 'inject.istio.io/templates: "gateway"'),
        ('inject: "true"', 'inject: "false"', 'sidecar.istio.io/inject: "false"'),
    ],
)
def test_the_image_auto_needs_the_injector(lab: Lab, there: str, instead: str, reason: str) -> None:
    answer = lab.run("apply", "-f", "-", stdin=EGRESS.replace(there, instead))
    assert answer.status == 1
    assert reason in answer.err
    assert "istio-egressgateway" not in lab.ok("get", "deploy", "-n", "istio-system")
