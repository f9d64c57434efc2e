"""Verbs about a running lab: proxy-status, x describe, diff, edit, top, history, logs -p, URLs."""

from __future__ import annotations

import base64
import http.server
import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from cryptography import x509

from lab import versions
from lab.cli.client import Client, FailureError
from lab.manifests import read
from tests.support.lab import COMMAND, SMALL, Lab, container_statuses
from tests.support.wait import wait

RULE = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: told}
spec:
  hosts: [message-service]
  http:
  - name: all
    match: [{uri: {prefix: /hello}}]
    route: [{destination: {host: message-service}}]
    timeout: 3s
"""
BROKEN = """
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: cut}
spec:
  workloadSelector: {labels: {app: curl}}
  configPatches:
  - applyTo: CLUSTER
    match: {cluster: {service: message-service.default.svc.cluster.local}}
    patch: {operation: MERGE, value: {connect_timeout: -1s}}
"""


@pytest.fixture
def rule(lab: Lab) -> Iterator[str]:
    lab.apply(RULE)
    yield "told"
    lab.ok("delete", "vs", "told", "--ignore-not-found")


def test_proxy_status_says_what_each_envoy_has(lab: Lab) -> None:
    header, *rows = lab.ok("proxy-status").splitlines()
    types = ["CDS", "ECDS", "EDS", "LDS", "RDS"]
    assert header.split() == ["NAME", "CLUSTER", *types, "ISTIOD", "VERSION"]
    assert any(row.startswith("curl.default ") for row in rows)
    for row in rows:
        cells = re.split(r" {2,}", row)
        assert all(re.fullmatch(r"SYNCED \(\w+\)|NOT SENT|IGNORED", cell) for cell in cells[2:7]), (
            row
        )
        assert cells[7:] == ["istiod", versions.istio()]


def test_events_are_chosen_by_their_fields(lab: Lab) -> None:
    fields = "involvedObject.name=curl,reason=Scheduled,type=Normal"
    head, *rows = lab.ok("get", "events", "--field-selector", fields).splitlines()
    assert head.split() == ["LAST", "SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]
    assert rows
    assert all(" pod/curl " in row for row in rows)
    head, *rows = lab.ok("events", "--for", "pod/curl").splitlines()
    assert rows
    assert all(" Pod/curl " in row for row in rows)
    names = lab.ok("get", "events", "-o", "jsonpath={.items[*].involvedObject.name}").split()
    assert "curl" in names
    assert (
        "field label not supported: host"
        in lab.run("get", "events", "--field-selector", "host=x").err
    )
    assert lab.run("events", "--for", "curl").err == "Error: --for must be in resource/name form\n"
    assert lab.run("events", "-n", "none-here").err == "No events found in none-here namespace.\n"


def test_a_place_in_no_file_is_that_of_the_object(lab: Lab, rule: str, tmp_path: Path) -> None:
    asked = ("route", "--from", "curl", "GET", "http://message-service/hello/x")
    assert f"  virtualservice/{rule}.default:spec.http[0].match[0]\n" in lab.ok(*asked)
    lab.ok("patch", "vs", rule, "--type=merge", "-p", '{"spec": {"gateways": ["none"]}}')
    subject = f"(VirtualService default/{rule} spec.gateways[0])"
    found = lab.run("analyze")
    assert f"{subject} Referenced gateway not found" in found.out
    file = tmp_path / "told.yaml"
    file.write_text(RULE)
    lab.ok("apply", "-f", str(file))
    assert f"  {file}:9\n" in lab.ok(*asked)
    warned = lab.run("apply", "-f", "-", stdin=RULE.replace("host: message", "host: massage"))
    assert warned.err.startswith(f"Warning: -:10: VirtualService {rule}: Referenced host not found")
    bad = lab.run("apply", "-f", "-", stdin=RULE.replace("timeout", "timeoutt"))
    assert bad.err.startswith("Error: -:11: VirtualService told")


def test_proxy_status_names_a_refusal(lab: Lab) -> None:
    assert lab.run("apply", "-f", "-", stdin=BROKEN).status == 1
    try:
        rows = {row.split()[0]: row for row in lab.ok("proxy-status").splitlines()}
        assert rows["curl.default"].split()[2] == "ERROR"
        assert all("ERROR" not in row for name, row in rows.items() if name != "curl.default")
        told = lab.ok("proxy-status", "curl")
        assert told.startswith("Clusters Don't Match\n--- Istiod Clusters\n+++ Envoy Clusters\n")
        assert "PRIVATE KEY" not in told
    finally:
        lab.ok("delete", "envoyfilter", "cut")
    assert "ERROR" not in lab.ok("proxy-status", "-n", "default")
    assert re.fullmatch(
        r"Clusters Match\nListeners Match\nRoutes Match \(RDS last loaded at .+\)\n",
        lab.ok("proxy-status", "curl.default"),
    )


def test_proxy_status_of_istioctl_names_the_types(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["istioctl"])
    head, *rows = lab.ok("ps", "-n", "default").splitlines()
    assert head.split() == ["NAME", "CLUSTER", "ISTIOD", "VERSION", "SUBSCRIBED", "TYPES"]
    assert all(row.endswith("4 (CDS,LDS,EDS,RDS)") for row in rows)
    assert "SYNCED" in lab.ok("ps", "-v", "1")


def test_a_proxy_tells_its_bootstrap_and_its_loggers(lab: Lab) -> None:
    bootstrap = json.loads(lab.ok("proxy-config", "bootstrap", "curl"))["bootstrap"]
    assert bootstrap["node"]["metadata"]["NAME"] == "curl"
    assert yaml.safe_load(lab.ok("pc", "b", "curl", "-o", "yaml"))["bootstrap"] == bootstrap
    assert re.fullmatch(
        rf"Istio Version: {versions.istio()}\nEnvoy Version: \d+\.\d+\.\d+/\S+\n",
        lab.ok("proxy-config", "bootstrap", "curl", "-o", "short"),
    )
    log = ("proxy-config", "log", "deploy/message-service")
    try:
        text = lab.ok(*log, "--level", "rbac:debug,info")
        assert text.count(".default:\nactive loggers:\n") == 2
        assert (text.count("  rbac: debug\n"), text.count("  http: info\n")) == (2, 2)
        assert lab.ok("proxy-config", "log", "-l", "app=message-service") == text
    finally:
        assert lab.ok(*log, "--reset").count("  rbac: warning\n") == 2
    for words, reason in (
        (("--level", "rbac:loud"), "unrecognized logging level: loud"),
        (("--level", "nobody:debug"), "unrecognized logger name: nobody"),
        (("--level", "info", "-r"), "--level cannot be combined with --reset"),
        (("-o", "json"), "--output is not applicable for this command"),
    ):
        answer = lab.run(*log, *words)
        assert (answer.status, answer.err.startswith(f"Error: {reason}")) == (1, True), answer


MESSAGE = "outbound|80||message-service.default.svc.cluster.local"


def test_a_configuration_is_restricted_by_istioctls_options(lab: Lab) -> None:
    def column(number: int, *words: str) -> list[str]:
        rows = lab.ok("proxy-config", *words).splitlines()[1:]
        return [re.split(" {2,}", row)[number] for row in rows]

    places = [pod["status"]["podIP"] for pod in lab.ready("app=message-service", 2)]
    ends = sorted(f"{place}:8080" for place in places)
    of_message = ("endpoint", "curl", "--cluster", MESSAGE)
    assert column(0, *of_message, "--status", "healthy", "--port", "8080") == ends
    assert column(0, *of_message, "--status", "UNHEALTHY") == []
    assert column(0, *of_message, "--port", "80") == []
    assert column(0, "endpoint", "curl", "--address", places[0]) == [f"{places[0]}:8080"]
    (shown,) = json.loads(lab.ok("pc", "ep", "curl", "--address", places[0], "-o", "json"))
    assert (shown["name"], len(shown["hostStatuses"])) == (MESSAGE, 1)
    hosts = column(0, "cluster", "curl", "--fqdn", "message", "--direction", "outbound")
    assert set(hosts) == {"message-service.default.svc.cluster.local"}
    assert column(0, "cluster", "curl", "--subset", "nothing") == []
    http = {*column(0, "listener", "curl", "--type", "http+tcp")}
    tcp = {*column(0, "listener", "curl", "--type", "TCP")}
    assert "0.0.0.0" in http
    assert column(3, "listener", "curl", "--type", "tcp", "--port", "15001")
    assert {*column(0, "listener", "curl", "--address", "0.0.0.0")} == {"0.0.0.0"}
    assert tcp
    for words, owner in (
        (("routes", "curl", "--status", "HEALTHY"), "--status belongs to proxy-config endpoints"),
        (("secret", "curl", "--port", "80"), "--port belongs to proxy-config listeners, clusters"),
    ):
        assert lab.run("proxy-config", *words).err.startswith(f"Error: {owner}")


def test_the_admin_page_of_a_proxy_is_served(lab: Lab) -> None:
    argv = [*COMMAND, "--state", str(lab.folder), "dashboard", "envoy", "deploy/message-service"]
    with subprocess.Popen([*argv, "-p", "0"], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            page = process.stdout.readline().rpartition(": ")[2].strip()
            assert process.stdout.readline().startswith("Forwarding from")
            assert httpx.get(f"{page}/ready").text == "LIVE\n"
        finally:
            process.terminate()
    assert lab.run("dashboard", "envoy").err == (
        "Error: say which proxy: guestbook dashboard envoy deploy/ui\n"
    )
    assert "instead: guestbook graph" in lab.run("dashboard", "kiali").err


@pytest.mark.parametrize("kind", ["listeners", "routes", "clusters", "secret"])
def test_a_configuration_is_the_same_in_json_and_yaml(lab: Lab, kind: str) -> None:
    texts = [lab.ok("proxy-config", kind, "curl", "-o", form) for form in ("json", "yaml")]
    first, second = map(yaml.safe_load, texts)
    assert first == second
    assert first


def test_json_has_istioctls_names_of_fields(lab: Lab) -> None:
    def shown(kind: str) -> Any:
        return json.loads(lab.ok("proxy-config", kind, "curl", "-o", "json"))

    cluster = {one["name"]: one for one in shown("clusters")}[
        "outbound|80||message-service.default.svc.cluster.local"
    ]
    assert cluster["circuitBreakers"]["thresholds"]
    # Names that are a map's keys or a struct's stay.
    assert "ISTIO_VERSION" in shown("bootstrap")["bootstrap"]["node"]["metadata"]
    assert all("virtualHosts" in one for one in shown("routes"))
    assert any("hostStatuses" in one for one in shown("endpoints"))
    (certificate,) = [
        one["secret"]["tlsCertificate"]["certificateChain"]["inlineBytes"]
        for one in shown("secret")["dynamicActiveSecrets"]
        if one["name"] == "default"
    ]
    assert x509.load_pem_x509_certificate(base64.b64decode(certificate))
    # `all` is Envoy's dump as it is.
    assert "dynamic_listeners" in {key for part in shown("all")["configs"] for key in part}


def test_a_service_and_a_pod_are_described_in_the_mesh(lab: Lab, rule: str) -> None:
    lines = lab.ok("x", "describe", "svc", "message-service").splitlines()
    assert lines[:3] == [
        "Service: message-service",
        "   Port: http 80/HTTP targets pod port 8080",
        f"VirtualService: {rule}",
    ]
    assert lines[3].startswith("   http[0] “all”")
    assert "      Match: /hello*" in lines
    assert '      Route to host "message-service"' in lines
    assert "      timeout: 3s" in lines
    assert "   Workload mTLS mode: PERMISSIVE" in lines
    pod = lab.pods("app=message-service")[0]["metadata"]["name"]
    told = lab.ok("x", "describe", "pod", pod)
    assert told.startswith(f"Pod: {pod}\n   Pod Ports: 8080")
    assert "Service: message-service\n" in told
    assert lab.run("x", "describe", "svc", "nothing").err == (
        'Error from server (NotFound): services "nothing" not found\n'
    )


def test_diff_shows_what_apply_would_change(lab: Lab, rule: str) -> None:
    assert lab.run("diff", "-f", "-", stdin=RULE).status == 0
    answer = lab.run("diff", "-f", "-", stdin=RULE.replace("3s", "4s"))
    assert answer.status == 1
    assert "-    timeout: 3s\n+    timeout: 4s\n" in answer.out
    assert answer.out.startswith("--- live/virtualservice.networking.istio.io/told\n")
    new = lab.run("diff", "-f", "-", stdin=RULE.replace("told", "untold"))
    assert (new.status, new.out.count("\n-")) == (1, 0)
    assert lab.run("get", "vs", "untold").status == 1
    assert lab.run("diff", "-f", "-", stdin="a: [").status == 2


def test_edit_applies_what_was_saved(
    lab: Lab, rule: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("KUBE_EDITOR", "sed -i s/3s/5s/")
    assert lab.ok("edit", f"vs/{rule}") == "virtualservice.networking.istio.io/told edited\n"
    assert lab.json("vs", rule)["spec"]["http"][0]["timeout"] == "5s"
    assert lab.ok("edit", "vs", rule) == "Edit cancelled, no changes made.\n"
    lab.ok("label", "vs", rule, "team=red")
    monkeypatch.setenv("KUBE_EDITOR", "sed -i -e /labels:/d -e /team:/d")
    lab.ok("edit", "vs", rule)
    assert "labels" not in lab.json("vs", rule)["metadata"]
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("KUBE_EDITOR", "sed -i s/timeout/timout/")
    answer = lab.run("edit", "vs", rule)
    assert answer.status == 1
    assert 'unknown field "spec.http[0].timout" (did you mean "timeout"?)' in answer.err
    (kept,) = tmp_path.iterdir()
    assert f"A copy of your changes has been stored to '{kept}'" in answer.err
    assert answer.err.startswith(f"Error: {kept}:")
    for change in ("s/name: told/name: other/", "s/VirtualService/ConfigMap/", r"$a---\na: b"):
        monkeypatch.setenv("KUBE_EDITOR", f"sed -i '{change}'")
        answer = lab.run("edit", "vs", rule)
        assert answer.err.startswith("Error: at least one of apiVersion, kind, name and namespace")
    monkeypatch.setenv("KUBE_EDITOR", "false")
    assert lab.run("edit", "vs", rule).err == "Error: there was a problem with the editor 'false'\n"


def test_top_measures_the_processes_of_pods(lab: Lab) -> None:
    header, *rows = lab.ok("top", "pod", "-l", "app=message-service", "--containers").splitlines()
    assert header.split() == ["POD", "NAME", "CPU(cores)", "MEMORY(bytes)"]
    found = [re.split(r" {2,}", row) for row in rows]
    assert {cells[1] for cells in found} == {"message-service", "istio-proxy"}
    assert all(int(cells[3].removesuffix("Mi")) > 10 for cells in found)
    pods = lab.ok("top", "pods", "--sort-by", "memory").splitlines()[1:]
    sizes = [int(row.split()[2].removesuffix("Mi")) for row in pods]
    assert sizes == sorted(sizes, reverse=True)


def test_a_restart_is_a_revision_and_stays_one(lab: Lab) -> None:
    manifest = Path(__file__).parents[1] / "cluster" / "small.yaml"
    lab.ok("apply", "-f", str(manifest))  # Another test may have left another version.
    lab.ok("rollout", "status", "deploy/message-service", "--timeout=60s")
    before = lab.ok("rollout", "history", "deploy/message-service").splitlines()
    assert before[:2] == ["deployment.apps/message-service ", "REVISION   CHANGE-CAUSE"]
    lab.ok("rollout", "restart", "deploy/message-service")
    lab.ok("rollout", "status", "deploy/message-service", "--timeout=60s")
    after = lab.ok("rollout", "history", "deploy/message-service").splitlines()
    assert len(after) == len(before) + 1
    newest = after[-2].split()[0] if not after[-1] else after[-1].split()[0]
    shown = lab.ok("rollout", "history", "deploy/message-service", f"--revision={newest}")
    assert "restartedAt" in shown
    applied = lab.ok("apply", "-f", str(manifest))
    assert "deployment.apps/message-service unchanged" in applied
    lab.ready("app=message-service", 2)


def test_a_rollout_is_undone(lab: Lab) -> None:
    lab.ok("apply", "-f", str(SMALL))
    lab.ok("rollout", "status", "deploy/message-service", "--timeout=60s")
    target = ("deploy/message-service",)
    before = lab.json(*target)["spec"]["template"]
    first = lab.ok("rollout", "history", *target).split()[-2]
    lab.ok("rollout", "restart", *target)
    told = lab.ok("rollout", "undo", *target, "--dry-run=client")
    assert told.startswith("deployment.apps/message-service Pod Template:\n  Labels:")
    assert told.endswith(" (dry run)\n")
    assert lab.json(*target)["spec"]["template"] != before
    assert lab.ok("rollout", "undo", *target) == "deployment.apps/message-service rolled back\n"
    assert lab.json(*target)["spec"]["template"] == before
    lab.ok("rollout", "status", *target, "--timeout=60s")
    newest = int(lab.ok("rollout", "history", *target).split()[-2])
    assert newest == int(first) + 2
    assert lab.ok("rollout", "undo", *target, f"--to-revision={newest}") == (
        "deployment.apps/message-service skipped rollback "
        f"(current template already matches revision {newest})\n"
    )
    assert lab.run("rollout", "undo", *target, "--to-revision=99").err == (
        "Error: unable to find specified revision 99 in history\n"
    )
    lab.ready("app=message-service", 2)


def test_objects_are_selected_by_fields(lab: Lab) -> None:
    def names(*words: str) -> list[str]:
        return lab.ok("get", *words, "-o", "name").split()

    assert names("pods", "--field-selector", "metadata.name=curl") == ["pod/curl"]
    others = names("pods", "--field-selector=metadata.name!=curl,status.phase==Running")
    assert len(others) >= 2
    assert "pod/curl" not in others
    assert not set(others) & set(names("pods", "--field-selector=status.phase!=Running"))
    assert names("pods", "--field-selector=spec.nodeName!=lab") == []
    assert names("svc", "-A", "--field-selector", "metadata.namespace=nowhere") == []
    refused = lab.run("get", "pods", "--field-selector", "spec.color=red")
    assert refused.err == (
        'Error: Unable to find "/v1, Resource=pods" that match label selector "", '
        'field selector "spec.color=red": field label not supported: spec.color\n'
    )
    assert lab.run("get", "deploy", "--field-selector", "status.phase=x").status == 1
    assert lab.run("get", "pods", "--field-selector", "name").err == (
        "Error: invalid selector: 'name'; can't understand 'name'\n"
    )
    assert lab.run("get", "pod", "curl", "--field-selector=status.phase=Running").err == (
        "Error: name cannot be provided when a selector is specified\n"
    )


ONCE = """
apiVersion: v1
kind: Pod
metadata: {name: again, annotations: {sidecar.istio.io/inject: "false"}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: curlimages/curl
    command: [sh, -c, "test -f here && echo second || echo first; test -f here && sleep 60; touch here"]
    volumeMounts: [{name: kept, mountPath: /kept}]
    workingDir: /kept
  volumes: [{name: kept, emptyDir: {}}]
"""  # noqa: E501


def test_the_log_of_the_run_before(lab: Lab) -> None:
    lab.apply(ONCE.replace("touch here", "touch here; exit 3"))
    try:

        def started_again() -> bool:
            pod = lab.json("pod", "again")
            return any(state["restartCount"] for state in container_statuses(pod))

        wait(started_again, "a restart", 30)
        wait(lambda: "first" in lab.run("logs", "again", "-p").out, "the first run's log", 30)
        refused = lab.run("logs", "curl", "-c", "curl", "-p")
        assert 'previous terminated container "curl" in pod "curl" not found' in refused.err
    finally:
        lab.ok("delete", "pod", "again", "--now")


@pytest.fixture
def site() -> Iterator[str]:
    """A server of manifests: good, missing, too large."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = {"/good.yaml": RULE, "/large.yaml": "#" * (read.MAX_BYTES + 1)}.get(self.path)
            self.send_response(404 if body is None else 200)
            self.end_headers()
            self.wfile.write((body or "").encode())

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_manifests_can_be_at_a_url(lab: Lab, site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    url = f"{site}/good.yaml"
    assert lab.ok("apply", "-f", url) == "virtualservice.networking.istio.io/told created\n"
    lab.ok("delete", "-f", url)
    missing = lab.run("apply", "-f", f"{site}/none.yaml")
    assert missing.err == f"Error: unable to read URL {site}/none.yaml: 404\n"
    assert "more than 4 MB" in lab.run("apply", "-f", f"{site}/large.yaml").err
    assert "unable to read URL" in lab.run("apply", "-f", "http://127.0.0.1:1/x.yaml").err


def test_version_names_what_is_played_and_what_runs(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    istio = versions.istio()
    assert re.search(
        rf"^Client Version: v1\.\d+\.\d+.*\nclient version: {istio}\n", lab.ok("version")
    )
    monkeypatch.setattr(sys, "argv", ["/somewhere/istioctl"])
    assert lab.ok("version", "--remote=false") == f"client version: {istio}\n"
    assert re.fullmatch(
        rf"client version: {istio}\ncontrol plane version: {istio}\n"
        rf"data plane version: {istio} \(\d+ proxies\)\n",
        lab.ok("version", "--short"),
    )
    assert f'pilot version: version.BuildInfo{{Version:"{istio}"' in lab.ok(
        "version", "--short=false"
    )
    told = json.loads(lab.ok("version", "-o", "json"))
    assert told["clientVersion"]["version"] == told["meshVersion"][0]["Info"]["version"] == istio
    assert {"ID": "curl.default", "IstioVersion": istio, "Type": "sidecar"} in told[
        "dataPlaneVersion"
    ]
    monkeypatch.setattr(sys, "argv", ["kubectl"])
    lines = lab.ok("version").splitlines()
    assert [line.split()[0] for line in lines] == ["Client", "Kustomize", "Server"]
    assert lab.ok("version", "--client").splitlines() == lines[:2]
    assert "serverVersion" not in json.loads(lab.ok("version", "--client", "-o", "json"))


def test_a_file_with_a_namespace_and_what_is_in_it_can_be_deleted(lab: Lab) -> None:
    text = (
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: short}\n---\n"
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: inside, namespace: short}\n"
    )
    lab.apply(text)
    assert lab.ok("delete", "-f", "-", stdin=text).splitlines() == [
        'configmap "inside" deleted from short namespace',
        'namespace "short" deleted',
    ]


NEVER = """
apiVersion: v1
kind: Pod
metadata: {name: never, annotations: {sidecar.istio.io/inject: "false"}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: curlimages/curl
    command: [sleep, infinity]
    readinessProbe: {tcpSocket: {port: 9999}, periodSeconds: 1, failureThreshold: 1}
"""


def test_a_pod_that_is_never_ready_says_why(lab: Lab) -> None:
    lab.apply(NEVER)
    try:
        wait(lambda: "Unhealthy" in lab.ok("describe", "pod", "never"), "an event", 20)
        lines = [line for line in lab.ok("get", "events").splitlines() if "pod/never " in line]
        assert any("Readiness probe failed: dial " in line for line in lines), lines
        said = "Not ready   default/never: Readiness probe failed: dial "
        assert said in lab.ok("status")
    finally:
        lab.ok("delete", "pod", "never", "--now")


def test_a_pod_for_one_request(lab: Lab) -> None:
    """The image takes options of curl, and a program that is not there is said."""
    asked = ("run", "once", "--rm", "-it", "--restart=Never", "--image=curlimages/curl", "--")
    answer = lab.run(
        *asked, "-sS", "--retry", "9", "--retry-connrefused", "http://message-service/hello/x"
    )
    assert '"greeting":"Hello x' in answer.out
    assert answer.out.endswith('pod "once" deleted from default namespace\n')
    missing = lab.run(*asked[:-1], "--command", "--", "no-such-program")
    assert missing.status == 1
    assert "no-such-program" in missing.err


def test_a_pod_that_would_start_again_is_answered_once(lab: Lab) -> None:
    words = ("--image=curlimages/curl", "--command", "--", "sh", "-c", "echo once; exit 3")
    answer = lab.run("run", "again", "--rm", "-it", *words)
    assert answer.status == 3
    assert answer.out == 'once\npod "again" deleted from default namespace\n'


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["created", "followed"])
def test_a_pod_for_one_request_goes_with_the_command(lab: Lab, number: int, moment: str) -> None:
    """A signal as soon as the pod is there, and one while its log is printed."""
    words = ("run", "short", "--rm", "-i", "--image=curlimages/curl", "--command", "--")
    argv = [*COMMAND, "--state", str(lab.folder), *words, "sh", "-c", "echo began; sleep 60"]
    with subprocess.Popen(argv, stdout=-1, stderr=-1, text=True) as process:
        assert process.stdout is not None
        if moment == "created":
            wait(lambda: not lab.run("get", "pod", "short").status, "the pod", 20)
        else:
            assert process.stdout.readline() == "began\n"
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert out.endswith('pod "short" deleted from default namespace\n')
    assert (process.returncode, err) == (128 + number, "")
    assert lab.run("get", "pod", "short").status == 1


def test_signals_are_as_before_when_the_pod_cannot_be_deleted(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    call = Client.call

    def refusing(client: Client, operation: str, **body: Any) -> Any:
        if operation == "delete":
            raise FailureError("the lab stopped while it was asked")
        return call(client, operation, **body)

    with monkeypatch.context() as patch:
        patch.setattr(Client, "call", refusing)
        words = ("run", "kept", "--rm", "-i", "--image=curlimages/curl", "--command", "--", "true")
        answer = lab.run(*words)
    lab.ok("delete", "pod", "kept", "--now")
    assert answer.err == "Error: the lab stopped while it was asked\n"
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_reader_of_several_logs_may_leave(lab: Lab) -> None:
    argv = [*COMMAND, "--state", str(lab.folder), "logs", "-f", "-l", "app=message-service"]
    with subprocess.Popen(
        [*argv, "--all-containers"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        for pod in lab.pods("app=message-service"):
            name = pod["metadata"]["name"]
            lab.run(
                "exec", "curl", "--", "curl", "-s", f"http://{pod['status']['podIP']}:8080/{name}"
            )
        assert process.wait(20) == 1
        assert process.stderr.read() == ""


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        ("logs -l app=none", 0, "No resources found in default namespace.\n"),
        (
            "get pod curl -A",
            1,
            "Error: a resource cannot be retrieved by name across all namespaces\n",
        ),
        (
            "wait pod/none --for=condition=Ready",
            1,
            'Error from server (NotFound): pods "none" not found\n',
        ),
        (
            "rollout undo svc/message-service",
            1,
            'Error: no rollbacker has been implemented for "Service"\n',
        ),
        (
            "apply rule.yaml",
            1,
            "Error: Got unexpected extra argument(s) (rule.yaml): a file is given with -f\n"
            "See: guestbook apply --help\n",
        ),
    ],
)
def test_a_mistake_is_answered_as_kubectl_does(
    lab: Lab, words: str, status: int, says: str
) -> None:
    answer = lab.run(*words.split())
    assert (answer.status, answer.err) == (status, says)


def test_a_warning_about_an_installation_is_said_once(lab: Lab) -> None:
    first = lab.run("install", "-y", "-f", "istio/install/istio.yaml")
    again = lab.run("install", "-y", "-f", "istio/install/istio.yaml")
    lab.ok("delete", "-f", "istio/install/istio.yaml")
    assert (first.status, again.status, again.err) == (0, 0, "")
