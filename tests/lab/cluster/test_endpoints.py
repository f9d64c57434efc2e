"""Endpoints that manifests give, and the names of pods below a headless Service."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lab.manifests.load import parse
from lab.manifests.read import ManifestError
from tests.support.lab import Lab
from tests.support.namespaces import require_namespaces
from tests.support.wait import wait

WRITTEN = """
apiVersion: v1
kind: Service
metadata: {name: mine}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Endpoints
metadata: {name: mine}
subsets: [{addresses: [{ip: 10.244.0.2}], ports: [{name: http, port: PORT}]}]
---
apiVersion: v1
kind: Service
metadata: {name: direct}
spec: {clusterIP: None, ports: [{name: tcp, port: PORT}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: direct-1, labels: {kubernetes.io/service-name: direct}}
addressType: IPv4
endpoints:
- {addresses: [10.244.0.2], hostname: first}
- {addresses: [10.244.0.3], conditions: {ready: false}}
ports: [{name: tcp, port: PORT}]
---
apiVersion: v1
kind: Service
metadata: {name: nobody}
spec: {ports: [{name: tcp, port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: outsider, labels: {sidecar.istio.io/inject: "false"}}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: curl, image: curlimages/curl, command: [sleep, infinity]}]
"""

NAMED = """
apiVersion: v1
kind: Service
metadata: {name: peers}
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector: {app: peers}
  ports: [{name: tcp, port: 7000}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: peer}
spec:
  serviceName: peers
  selector: {matchLabels: {app: peers}}
  template:
    metadata: {labels: {app: peers, sidecar.istio.io/inject: "false"}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: c, image: curlimages/curl, command: [sleep, infinity]}]
---
apiVersion: v1
kind: Pod
metadata: {name: own, labels: {app: peers, sidecar.istio.io/inject: "false"}}
spec:
  hostname: chosen
  subdomain: peers
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: curlimages/curl, command: [sleep, infinity]}]
---
apiVersion: v1
kind: Pod
metadata: {name: stranger, labels: {app: peers, sidecar.istio.io/inject: "false"}}
spec:
  hostname: stranger
  subdomain: elsewhere
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: curlimages/curl, command: [sleep, infinity]}]
"""


@pytest.fixture
def port() -> Iterator[int]:
    """The port of a server of this machine, which answers with the Host it was asked for."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = f"outside {self.headers['Host']}".encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def lookup(lab: Lab, pod: str, name: str) -> list[str]:
    """The addresses of a name, as a program of a pod finds them."""
    script = (
        "import socket, sys\n"
        "try: found = socket.getaddrinfo(sys.argv[1], 80, socket.AF_INET, socket.SOCK_STREAM)\n"
        "except socket.gaierror: found = []\n"
        "print(*sorted(one[4][0] for one in found))"
    )
    return lab.ok("exec", pod, "--", "python3", "-c", script, name).split()


def test_endpoints_have_the_labels_of_their_service(lab: Lab) -> None:
    kinds, plain = "endpoints,endpointslices", "-l=asked=yes,!service.kubernetes.io/headless"
    lab.ok("label", "service", "message-service", "asked=yes")
    try:
        found = lab.ok("get", kinds, plain, "-o=name").splitlines()
        assert [name.partition("/")[0] for name in found] == [
            "endpoints",
            "endpointslice.discovery.k8s.io",
        ]
    finally:
        lab.ok("label", "service", "message-service", "asked-")
    assert lab.ok("get", kinds, plain, "-o=name") == ""


def test_a_service_without_a_selector_leads_where_its_endpoints_say(lab: Lab, port: int) -> None:
    require_namespaces()
    lab.apply(WRITTEN.replace("PORT", str(port)))
    lab.ok("wait", "--for=condition=Ready", "pod/outsider", "--timeout=30s")
    for pod in ("curl", "outsider"):  # With a sidecar and without.
        curl = ("exec", pod, "--", "curl", "-sS", "-m", "5")
        assert lab.ok(*curl, "http://mine/") == "outside mine"
        assert lab.ok(*curl, f"http://direct:{port}/") == f"outside direct:{port}"
        assert lab.run(*curl, "http://nobody/").status != 0
    address = lab.json("service", "mine")["spec"]["clusterIP"]
    assert lookup(lab, "curl", "mine") == [address]
    assert lookup(lab, "curl", "direct") == lookup(lab, "curl", "first.direct") == ["10.244.0.2"]

    place = f"10.244.0.2:{port}"
    assert place in lab.ok("get", "endpoints", "mine")
    assert "10.244.0.2" in lab.ok("get", "endpointslices", "direct-1")
    assert "10.244.0.2" in lab.ok("get", "endpointslices", "-l", "kubernetes.io/service-name=mine")
    assert place in lab.ok("describe", "service", "mine")
    assert place in lab.ok("describe", "service", "direct")
    assert "10.244.0.3" not in lab.ok("describe", "service", "direct")
    assert place in lab.ok("proxy-config", "endpoints", "curl")
    answer = lab.ok("route", "--from", "curl", "http://mine/")
    assert "100% to outbound|80||mine.default.svc.cluster.local" in answer
    assert "plain text to the application itself: the address is no pod's" in answer
    refused = lab.run("port-forward", "svc/mine", "0:80")
    assert "Service is defined without a selector" in refused.err

    lab.ok("delete", "endpoints", "mine")
    gone = ("exec", "outsider", "--", "curl", "-sS", "-m", "5", "http://mine/")
    wait(lambda: "onnect" in lab.run(*gone).err, "nobody is behind the Service", 10)
    made = lab.run("delete", "endpoints", "message-service")
    assert 'endpoints "message-service" is made by the lab itself' in made.err
    lab.ok("delete", "pod/outsider", "svc/mine", "svc/direct", "svc/nobody")
    lab.ok("delete", "endpointslices", "direct-1")


def test_pods_have_the_names_that_they_ask_for_below_a_headless_service(lab: Lab) -> None:
    require_namespaces()
    lab.apply(NAMED)
    ready = {pod["metadata"]["name"]: pod["status"]["podIP"] for pod in lab.ready("app=peers", 3)}
    assert lookup(lab, "curl", "peers") == sorted(ready.values())
    assert lookup(lab, "curl", "peer-0.peers.default.svc.cluster.local") == [ready["peer-0"]]
    assert lookup(lab, "curl", "chosen.peers") == [ready["own"]]
    # A subdomain of another name: the pod is below the Service by its address alone.
    assert lookup(lab, "curl", "stranger.peers") == []
    assert lookup(lab, "curl", ready["stranger"].replace(".", "-") + ".peers") == [
        ready["stranger"]
    ]
    for pod, name in (("own", "chosen"), ("peer-0", "peer-0")):
        assert lab.ok("exec", pod, "--", "hostname").strip() == name
        full = f"{name}.peers.default.svc.cluster.local"
        assert lab.ok("exec", pod, "--", "hostname", "-f").strip() == full
    lab.ok("delete", "svc/peers", "statefulset/peer", "pod/own", "pod/stranger")


HEAD = "apiVersion: v1\nkind: Endpoints\nmetadata: {name: e}\n"
SLICE = (
    "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n"
    "metadata: {name: e, labels: {kubernetes.io/service-name: e}}\n"
)


@pytest.mark.parametrize(
    ("text", "place", "reason"),
    [
        (HEAD + "subsets:\n- addresses:\n  - ip: example.com", "x:6", "is no IP address"),
        (HEAD + "subsets:\n- addresses:\n  - ip: 127.0.0.1", "x:6", "loopback range"),
        (HEAD + "subsets:\n- addresses:\n  - ip: 169.254.1.1", "x:6", "link-local range"),
        (HEAD + "subsets:\n- addresses:\n  - ip: '::2'", "x:6", "the lab has IPv4 only"),
        (HEAD + "subsets:\n- ports: [{port: 1}]", "x:5", "`addresses` or `notReadyAddresses`"),
        (HEAD + "subsets:\n- addresses: [{ip: 1.2.3.4}]\n  ports:\n  - port: 0", "x:7", "port"),
        (
            HEAD + "subsets:\n- addresses: [{ip: 1.2.3.4}]\n  ports: [{port: 1}, {port: 2}]",
            "x:6",
            "with several ports each needs a name",
        ),
        (HEAD + "subset: []", "x:4", "subset"),
        (SLICE + "addressType: FQDN\nendpoints: []", "x:4", "use a Service of type ExternalName"),
        (SLICE + "addressType: IPv6\nendpoints: []", "x:4", "the lab has IPv4 only"),
        (SLICE + "endpoints: []", "x:1", "addressType"),
        (
            SLICE + "addressType: IPv4\nendpoints:\n- addresses: [1.2.3.4, 1.2.3.5]",
            "x:6",
            "an endpoint each",
        ),
        (SLICE + "addressType: IPv4\nendpoints:\n- addresses: [1.2.3]", "x:6", "no IP address"),
    ],
)
def test_a_bad_endpoint_is_an_error_with_its_line(text: str, place: str, reason: str) -> None:
    with pytest.raises(ManifestError) as error:
        parse([("x", text)])
    assert str(error.value).startswith(f"{place}: ")
    assert reason in str(error.value)


def test_a_slice_of_no_service_is_a_warning() -> None:
    text = SLICE.replace("kubernetes.io/service-name", "other") + "addressType: IPv4\n"
    (warning,) = parse([("x", text)]).warnings
    assert "without the label kubernetes.io/service-name it is of no Service" in warning
