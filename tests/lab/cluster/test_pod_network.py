"""A lab whose pods have networks of their own: programs in them notice nothing of the lab."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.support.crash import rounds
from tests.support.lab import COMMAND, SMALL, Lab
from tests.support.namespaces import require_namespaces
from tests.support.wait import wait

MOUNTS = """
apiVersion: v1
kind: ConfigMap
metadata: {name: words}
data: {word: hello}
---
apiVersion: v1
kind: Pod
metadata: {name: mounts, labels: {app: mounts}, annotations: {sidecar.istio.io/inject: "false"}}
spec:
  hostname: custom
  terminationGracePeriodSeconds: 1
  volumes:
  - {name: words, configMap: {name: words}}
  - {name: run, emptyDir: {}}
  - {name: tmp, emptyDir: {}}
  containers:
  - name: c
    image: curlimages/curl
    command: [sleep, infinity]
    volumeMounts:
    - {name: words, mountPath: /not-on-this-machine/words, readOnly: true}
    - {name: run, mountPath: /var/run/not-on-this-machine}
    - {name: tmp, mountPath: /tmp}
    workingDir: /not-on-this-machine/words
    readinessProbe:
      exec: {command: [sh, -c, "cat word >> /tmp/probed && [ $(hostname) = custom ]"]}
      periodSeconds: 1
"""


OWN = """
apiVersion: v1
kind: Service
metadata: {name: files}
spec:
  selector: {app: files}
  ports: [{name: http, port: 80}]
---
apiVersion: v1
kind: Pod
metadata: {name: files, labels: {app: files}}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{name: words, configMap: {name: words}}]
  containers:
  - name: files
    image: registry.example/mine/files:v3
    args: ["80", --directory, /pages]
    volumeMounts: [{name: words, mountPath: /pages}]
    readinessProbe: {httpGet: {path: /word, port: 80}, periodSeconds: 1}
"""


ECHO = """
import socket
with socket.socket(type=socket.SOCK_DGRAM) as server:
    server.bind(("0.0.0.0", 5353))
    server.settimeout(60)
    _, client = server.recvfrom(9)
    server.sendto(client[0].encode(), client)
"""
"""Tells a client by UDP which address it has."""

OTHER_WAYS = """
import errno, json, socket, sys, time

def udp(address, tries):
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.settimeout(0.5)
        client.connect((address, 5353))
        for _ in range(tries):
            try:
                client.send(b"x")
                return client.recv(99).decode()
            except ConnectionRefusedError:
                time.sleep(0.1)
            except TimeoutError:
                pass
        return "no answer"

def ping():
    socket.socket(type=socket.SOCK_DGRAM, proto=socket.IPPROTO_ICMP).close()

def ipv6():
    with socket.socket(socket.AF_INET6) as client:
        client.connect(("2001:db8::1", 80))

def outcome(function, *given):
    try:
        return function(*given)
    except OSError as error:
        return errno.errorcode[error.errno]

ways = [(udp, sys.argv[1], 100), (udp, "192.0.2.1", 1), (ping,), (ipv6,)]
print(json.dumps([outcome(*way) for way in ways]))
"""


@pytest.fixture
def pods(request: pytest.FixtureRequest) -> Lab:
    """The lab of all tests, where its pods have networks of their own."""
    require_namespaces()
    found: Lab = request.getfixturevalue("lab")
    return found


def shell(lab: Lab, pod: str, script: str, *options: str) -> str:
    return lab.ok("exec", pod, *options, "--", "sh", "-c", script).strip()


def test_status_says_so(pods: Lab) -> None:
    assert json.loads(pods.ok("status", "-o", "json"))["network"] == "pods"
    assert "each has a network of its own" in pods.ok("status")


def test_a_program_without_proxy_variables_calls_through_both_sidecars(pods: Lab) -> None:
    script = (
        "import os, urllib.request as r\n"
        "assert not [name for name in os.environ if name.lower().endswith('_proxy')]\n"
        "print(r.urlopen('http://message-service/hello/you', timeout=10).read().decode())"
    )
    answer = json.loads(pods.ok("exec", "curl", "--", "python3", "-c", script))
    assert answer["greeting"].startswith("Hello you from message-service-")
    assert statistic(pods, "curl", "outbound", "upstream_rq_total") >= 1
    # By mutual TLS: both ends have a handshake.
    assert statistic(pods, "curl", "outbound", "ssl.handshake") >= 1
    assert statistic(pods, answer["hostname"], "listener.0.0.0.0_15006", "ssl.handshake") >= 1


def test_the_proxys_own_commands_go_past_the_proxy(pods: Lab) -> None:
    """As user 1337 on a cluster: in plain text, without the identity of the pod."""
    before = statistic(pods, "curl", "outbound", "upstream_rq_total")
    url = "http://message-service/hello/past"
    for options in (["-c", "istio-proxy"], []):
        answer = pods.ok("exec", "curl", *options, "--", "curl", "-sS", "-m", "5", url)
        assert "Hello past" in answer
    assert statistic(pods, "curl", "outbound", "upstream_rq_total") == before + 1
    missing = pods.run("exec", "curl", "-c", "istio-proxy", "--", "no-such-program")
    assert missing.status == 127
    assert 'exec: "no-such-program": executable file not found in $PATH' in missing.err


def test_what_is_no_tcp_over_ipv4(pods: Lab) -> None:
    server = pods.pods("app=message-service")[0]
    command = [*COMMAND, "--state", str(pods.folder), "exec", server["metadata"]["name"], "--"]
    with subprocess.Popen([*command, "python3", "-c", ECHO]) as echo:
        asked = ("exec", "curl", "--", "python3", "-c", OTHER_WAYS, server["status"]["podIP"])
        to_pod, outside, ping, ipv6 = json.loads(pods.ok(*asked))
    assert echo.returncode == 0
    assert to_pod == pods.pods("app=curl")[0]["status"]["podIP"]
    assert outside == "no answer"
    assert ping == "EACCES"
    assert ipv6 in ("ENETUNREACH", "EAFNOSUPPORT")  # The other where the kernel has no IPv6.


def statistic(lab: Lab, pod: str, owner: str, name: str) -> int:
    """The sum of a pod's statistics of that name."""
    request = ["pilot-agent", "request", "GET", f"stats?filter={owner}.*{name}$"]
    lines = lab.ok("exec", pod, "-c", "istio-proxy", "--", *request).splitlines()
    return sum(int(line.rpartition(": ")[2]) for line in lines)


def test_localhost_refuses_exactly_while_the_gateway_does_not_listen(pods: Lab) -> None:
    def curl() -> int:
        return subprocess.run(["curl", "-s", pods.url()], stdout=subprocess.DEVNULL).returncode

    files = ("-f", "istio/02-ingress/gateway.yaml")
    for _ in range(2):
        pods.ok("apply", *files)
        assert httpx.get(pods.url()).status_code == 404
        pods.ok("delete", *files)
        assert [curl() for _ in range(20)] == [7] * 20


def test_a_pod_has_address_name_and_resolver_of_its_own(pods: Lab) -> None:
    pod = pods.json("pod", "curl")
    address = pod["status"]["podIP"]
    assert shell(pods, "curl", "hostname") == "curl"
    assert "nameserver 10.96.0.10" in shell(pods, "curl", "cat /etc/resolv.conf")
    assert f"{address}\tcurl" in shell(pods, "curl", "cat /etc/hosts")
    script = f"import socket; s = socket.create_server(('{address}', 80)); print('bound')"
    assert pods.ok("exec", "curl", "--", "python3", "-c", script) == "bound\n"


def test_a_pod_reaches_another_by_its_address(pods: Lab) -> None:
    server = pods.ready("app=message-service", 2)[0]
    url = f"http://{server['status']['podIP']}:8080/hello/direct"
    assert "Hello direct" in pods.ok("exec", "curl", "--", "curl", "-sS", "-m", "5", url)


def test_volumes_are_where_the_manifest_mounts_them(pods: Lab) -> None:
    pods.apply(MOUNTS)
    pods.ready("app=mounts", 1)
    assert shell(pods, "mounts", "hostname") == "custom"
    assert shell(pods, "mounts", "cat word && pwd") == "hello/not-on-this-machine/words"
    assert shell(pods, "mounts", "cat /tmp/probed").startswith("hello")
    denied = pods.run("exec", "mounts", "--", "touch", "/not-on-this-machine/words/new")
    assert "Read-only" in denied.err
    shell(
        pods, "mounts", "touch /var/run/not-on-this-machine/of-the-pod-alone /tmp/of-the-pod-alone"
    )
    listed = shell(pods, "mounts", "ls /var/run/not-on-this-machine /tmp")
    assert listed.count("of-the-pod-alone") == 2
    assert not Path("/not-on-this-machine").exists()
    assert not Path("/run/not-on-this-machine").exists()
    assert not Path("/tmp/of-the-pod-alone").exists()
    pods.ok("delete", "pod", "mounts")


def test_a_program_of_ones_own_plays_an_image(pods: Lab) -> None:
    """It runs as the manifest says, behind a sidecar, and knows nothing of the lab."""
    pods.apply(MOUNTS.split("---")[0])
    unknown = pods.run("apply", "-f", "-", stdin=OWN)
    assert 'no program for the image "registry.example/mine/files:v3"' in unknown.err
    pods.ok("image", "mine/files=python3 -m http.server")
    assert "mine/files" in pods.ok("image")
    pods.apply(OWN)
    pods.ready("app=files", 1)
    wait(
        lambda: shell(pods, "curl", "curl -sS -m 5 http://files/word") == "hello",
        "the program answers through the mesh",
        10,
    )
    assert statistic(pods, "files", "listener.0.0.0.0_15006", "ssl.handshake") >= 1
    pods.ok("delete", "pod", "files")
    pods.ok("delete", "service", "files")
    pods.ok("image", "mine/files-")
    assert "mine/files" not in pods.ok("image")
    refused = pods.run("image", "mine/files=no-such-program --x")
    assert '"no-such-program" is no program' in refused.err


def test_localhost_leads_to_the_gateways_own_port(pods: Lab) -> None:
    gateway = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: hello}
spec:
  hosts: ["*"]
  gateways: [hello]
  http: [{route: [{destination: {host: message-service}}]}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: hello}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]
"""
    pods.apply(gateway)
    assert "Hello in" in httpx.get(f"{pods.url()}/hello/in", timeout=10).text
    policy = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: node, namespace: istio-system}
spec:
  selector: {matchLabels: {istio: ingressgateway}}
  action: DENY
  rules: [{from: [{source: {ipBlocks: [10.244.0.1]}}]}]
"""
    pods.apply(policy)
    assert httpx.get(f"{pods.url()}/hello/in", timeout=10).status_code == 403
    told = pods.run("route", f"{pods.url()}/hello/in")
    assert (told.status, "denied by istio-system/node" in told.out) == (1, True)
    pods.ok("delete", "authorizationpolicy", "node", "-n", "istio-system")
    pods.ok("delete", "virtualservice", "hello")
    pods.ok("delete", "gateway", "hello")


def test_route_knows_the_address_of_a_service(pods: Lab) -> None:
    service = json.loads(pods.ok("get", "service", "message-service", "-o", "json"))
    address = service["spec"]["clusterIP"]
    told = pods.ok("route", "--from", "curl", f"http://{address}/hello/x")
    assert "100% to outbound|80||message-service.default.svc.cluster.local" in told


def test_port_forward_and_proxy_config_reach_a_pod(pods: Lab) -> None:
    command = [sys.executable, "-m", "lab.cli", "--state", str(pods.folder), "port-forward"]
    with subprocess.Popen(
        [*command, "deploy/message-service", ":8080"], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline().split(" -> ")[0].rpartition(":")[2]
            assert "Hello" in httpx.get(f"http://localhost:{port}/hello/x", timeout=10).text
        finally:
            process.send_signal(signal.SIGINT)
    assert "virtualInbound" in pods.ok("proxy-config", "listeners", "curl", "-o", "json")


def test_kill_leaves_nothing_behind_and_the_lab_starts_again(tmp_path: Path) -> None:
    """Under traffic, and with commands of `exec` running; links and mounts are as before."""
    require_namespaces()
    for gone, ready in rounds(tmp_path / "state", 2, "curl", "-f", str(SMALL)):
        assert gone < 5
        assert ready < 20
