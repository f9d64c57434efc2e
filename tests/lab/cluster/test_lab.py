"""A running lab: what happens to its processes, watched from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from lab.cluster import controllers
from tests.support.lab import COMMAND, Lab, alive, condition, process_of
from tests.support.wait import wait

HELLO = "http://message-service/hello/you"


def container(pod: Any, name: str) -> Any:
    status = pod["status"]
    every = [*status["containerStatuses"], *status.get("initContainerStatuses", ())]
    return next(item for item in every if item["name"] == name)


def hello(lab: Lab) -> str:
    answer = lab.run("exec", "curl", "-c", "curl", "--", "curl", "-sS", "-m", "10", HELLO)
    assert answer.status == 0, answer
    return str(json.loads(answer.out)["hostname"])


def test_pods_have_kubernetes_names_and_know_them(lab: Lab) -> None:
    pods = lab.ready("app=message-service", 2)
    names = {pod["metadata"]["name"] for pod in pods}
    for name in names:
        deployment, template, own = name.rsplit("-", 2)
        assert deployment == "message-service"
        assert len(own) == 5
        assert any(p["metadata"]["labels"]["pod-template-hash"] == template for p in pods)
    assert {hello(lab) for _ in range(20)} == names


def test_a_killed_service_comes_back(lab: Lab) -> None:
    pod = lab.ready("app=message-service", 2)[0]
    name = pod["metadata"]["name"]
    before = container(pod, "message-service")["restartCount"]
    os.kill(process_of(pod, "message-service"), signal.SIGKILL)

    def restarted() -> bool:
        found = lab.json("pod", name)
        state = container(found, "message-service")
        return state["restartCount"] == before + 1 and condition(found)

    wait(restarted, "the container is restarted and ready", 30)
    assert "message-service" in lab.ok("describe", "pod", name)
    last = container(lab.json("pod", name), "message-service")["lastState"]
    assert last["terminated"]["exitCode"] == 137
    assert hello(lab)


def test_a_killed_envoy_comes_back(lab: Lab) -> None:
    pod = lab.ready("app=curl", 1)[0]
    old = process_of(pod, "istio-proxy")
    os.kill(old, signal.SIGKILL)

    def restarted() -> bool:
        found = lab.json("pod", "curl")
        return process_of(found, "istio-proxy") not in (0, old) and condition(found)

    wait(restarted, "the proxy is restarted and ready", 30)
    assert hello(lab)


BROKEN = """
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: broken}
spec:
  workloadSelector: {labels: {app: curl}}
  configPatches:
  - applyTo: CLUSTER
    match: {cluster: {service: message-service.default.svc.cluster.local}}
    patch: {operation: MERGE, value: {connect_timeout: -1s}}
"""


def test_apply_names_the_proxy_that_has_not_taken_it_in_time(lab: Lab) -> None:
    """It answers with nothing of an earlier push, such as its refusals."""
    before = lab.run("apply", "-f", "-", stdin=BROKEN)
    assert before.status == 1
    assert "Envoy of pod curl refused the configuration" in before.err
    envoy = process_of(lab.ready("app=curl", 1)[0], "istio-proxy")
    os.kill(envoy, signal.SIGSTOP)
    try:
        answer = lab.run("apply", "-f", "-", stdin=BROKEN.replace("-1s", "7s"))
    finally:
        os.kill(envoy, signal.SIGCONT)
    assert answer.status == 0
    assert answer.out == "envoyfilter.networking.istio.io/broken configured\n"
    assert "Warning: not yet taken by: curl.default\n" in answer.err
    assert "refused" not in answer.err
    lab.ok("delete", "envoyfilter", "broken")
    assert hello(lab)


NOBODY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nobody}
spec:
  selector: {matchLabels: {app: message-service}}
  action: DENY
  rules: [{}]
"""


def test_a_policy_holds_once_its_change_is_answered(lab: Lab) -> None:
    """The proxy of the client has connections open to both pods; each request would do for them."""
    ask = "for i in 1 2 3 4 5 6; do curl -sS -o /dev/null -w '%{http_code} ' " + HELLO + "; done"

    def statuses() -> set[str]:
        return set(lab.ok("exec", "curl", "-c", "curl", "--", "sh", "-c", ask).split())

    assert statuses() == {"200"}
    try:
        for _ in range(3):
            lab.apply(NOBODY)
            assert statuses() == {"403"}
            lab.ok("annotate", "authorizationpolicy", "nobody", "istio.io/dry-run=true")
            assert statuses() == {"200"}
            lab.ok("annotate", "authorizationpolicy", "nobody", "istio.io/dry-run-")
            assert statuses() == {"403"}
            lab.ok("delete", "authorizationpolicy", "nobody")
            assert statuses() == {"200"}
    finally:
        lab.ok("delete", "authorizationpolicy", "nobody", "--ignore-not-found")


def test_a_rolling_update_loses_no_request(lab: Lab, tmp_path: Path) -> None:
    lab.ready("app=message-service", 2)
    stop = tmp_path / "stop"
    ask = f"curl -sS -m 10 -w '\\n%{{http_code}}\\n' {HELLO}"
    script = f"while [ ! -e {stop} ]; do {ask}; done"
    command = [*COMMAND, "--state", str(lab.folder), "exec", "curl", "-c", "curl", "--"]
    logs = [tmp_path / f"client-{number}" for number in range(3)]
    clients = [subprocess.Popen([*command, "sh", "-c", f"({script}) > {log} 2>&1"]) for log in logs]

    def lines() -> list[str]:
        return [line for log in logs if log.exists() for line in log.read_text().splitlines()]

    try:
        wait(lambda: lines().count("200") > 10, "traffic flows", 30)
        manifest = Path(__file__).with_name("small.yaml").read_text()
        lab.apply(manifest.replace('DEMO_VERSION, value: "1.0"', 'DEMO_VERSION, value: "1.1"'))
        rollout = lab.ok("rollout", "status", "deploy/message-service", "--timeout=120s")
        assert "successfully rolled out" in rollout
        lab.ready("app=message-service", 2)
    finally:
        stop.touch()
        statuses = [client.wait(30) for client in clients]
    assert statuses == [0, 0, 0]
    assert [line for line in lines() if line != "200" and not line.startswith("{")] == []
    assert any('"version":"1.0"' in line for line in lines())
    assert all('"version":"1.1"' in log.read_text().splitlines()[-2] for log in logs)


def test_scaling_and_restarting(lab: Lab) -> None:
    lab.ok("scale", "deployment/message-service", "--replicas=3")
    three = {pod["metadata"]["name"] for pod in lab.ready("app=message-service", 3)}
    lab.ok("scale", "deploy", "message-service", "--replicas=2")
    two = {pod["metadata"]["name"] for pod in lab.ready("app=message-service", 2)}
    assert two < three
    lab.ok("rollout", "restart", "deployment/message-service")
    lab.ok("rollout", "status", "deployment/message-service")
    new = {pod["metadata"]["name"] for pod in lab.ready("app=message-service", 2)}
    assert not new & three


def test_endpoints_follow_readiness(lab: Lab) -> None:
    lab.apply(
        """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8000}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{name: flag, emptyDir: {}}]
  containers:
  - name: web
    image: localhost/guestbook/message:v1
    command: [sh, -c, "exec python -m http.server --bind ${HOST:-0.0.0.0} 8000"]
    ports: [{containerPort: 8000}]
    volumeMounts: [{name: flag, mountPath: /flag}]
    readinessProbe:
      exec: {command: [test, -e, /flag/ready]}
      periodSeconds: 1
      failureThreshold: 1
"""
    )
    curl = ("exec", "curl", "-c", "curl", "--", "curl", "-s", "-o", "/dev/null", "-w")
    status = (*curl, "%{http_code}", "http://web/")
    wait(lambda: lab.run(*status).out == "503", "no endpoint while not ready", 30)
    touch = ("exec", "web", "-c", "web", "--", "touch", "/flag/ready")
    wait(lambda: lab.run(*touch).status == 0, "the container runs", 30)
    lab.ok("wait", "--for=condition=Ready", "pod/web", "--timeout=30s")
    wait(lambda: lab.run(*status).out == "200", "the endpoint serves", 30)
    lab.ok("exec", "web", "-c", "web", "--", "rm", "/flag/ready")
    wait(lambda: lab.run(*status).out == "503", "the endpoint is gone again", 30)
    lab.ok("delete", "pod/web", "svc/web")


def test_a_client_without_a_sidecar_finds_a_headless_service(lab: Lab) -> None:
    """Its name, here in a variable, leads to the pods themselves, and to their own port."""
    lab.apply(
        """
apiVersion: v1
kind: Service
metadata: {name: bare}
spec:
  clusterIP: None
  selector: {app: message-service}
  ports: [{name: http, port: 8080}]
---
apiVersion: v1
kind: Pod
metadata: {name: client, labels: {sidecar.istio.io/inject: "false"}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: client
    image: curlimages/curl
    command: [sleep, infinity]
    env: [{name: BARE_URL, value: "http://bare:8080"}]
"""
    )
    lab.ok("wait", "--for=condition=Ready", "pod/client", "--timeout=30s")
    lab.ready("app=message-service", 2)
    ask = "curl -sS -m 5 $BARE_URL/hello/you"
    said = lab.ok("exec", "client", "-c", "client", "--", "sh", "-c", ask)
    assert "Hello you" in said
    assert lab.json("service", "bare")["spec"]["clusterIP"] == "None"
    lab.ok("delete", "pod/client", "svc/bare")


def ended_by(lab: Lab, name: str) -> tuple[Any, str]:
    """Returns how a container has ended that is restarted, and what `describe` says then."""

    def restarted() -> Any:
        found = container(lab.json("pod", name), "c")
        return found["restartCount"] and found["lastState"]["terminated"]

    ended = wait(restarted, seconds=30)
    described = lab.ok("describe", "pod", name)
    lab.ok("delete", "pod", name)
    return ended, described


def test_a_failing_liveness_probe_restarts(lab: Lab) -> None:
    lab.apply(
        """
apiVersion: v1
kind: Pod
metadata: {name: ailing, labels: {sidecar.istio.io/inject: "false"}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: curlimages/curl
    command: [sleep, infinity]
    livenessProbe: {tcpSocket: {port: 9}, periodSeconds: 1, failureThreshold: 1}
"""
    )
    assert "Liveness probe failed" in ended_by(lab, "ailing")[1]


STARTING = """
apiVersion: v1
kind: Pod
metadata: {name: NAME, labels: {sidecar.istio.io/inject: "false"}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: curlimages/curl
    command: [sh, -c, COMMAND]
    startupProbe: {exec: {command: [sh, -c, "test -e $HOME/started"]}, PROBE}
    livenessProbe: {tcpSocket: {port: 9}, periodSeconds: 1, failureThreshold: 1}
"""


def test_a_slow_start_is_seen_before_the_period_is_over_and_delays_the_other_probes(
    lab: Lab,
) -> None:
    command = "sleep 1; touch $HOME/started; sleep infinity"
    pod = STARTING.replace("NAME", "slow").replace("COMMAND", json.dumps(command))
    lab.apply(pod.replace("PROBE", "periodSeconds: 600, failureThreshold: 9"))
    described = ended_by(lab, "slow")[1]
    assert "Liveness probe failed" in described
    assert "Startup probe failed" not in described


def test_a_start_that_is_never_over_is_ended_after_as_many_periods(lab: Lab) -> None:
    pod = STARTING.replace("NAME", "stuck").replace("COMMAND", '"sleep infinity"')
    lab.apply(pod.replace("PROBE", "periodSeconds: 1, failureThreshold: 4"))
    ended, described = ended_by(lab, "stuck")
    assert "Startup probe failed" in described
    assert "Liveness probe failed" not in described
    began, over = (datetime.fromisoformat(ended[key]) for key in ("startedAt", "finishedAt"))
    assert (over - began).total_seconds() >= 3


def test_in_a_crowd_one_pod_of_a_workload_is_ahead(lab: Lab) -> None:
    count = controllers.CROWD * (os.cpu_count() or 1) + 1
    lab.apply(
        f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: crowd}}
spec:
  replicas: {count}
  selector: {{matchLabels: {{app: crowd}}}}
  template:
    metadata: {{labels: {{app: crowd, sidecar.istio.io/inject: "false"}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: c
        image: curlimages/curl
        command: [sleep, infinity]
        readinessProbe: {{tcpSocket: {{port: 9}}}}
"""
    )

    def starts() -> list[datetime]:
        each = [one for pod in lab.pods("app=crowd") for one in pod["status"]["containerStatuses"]]
        found = [one["state"]["running"]["startedAt"] for one in each if "running" in one["state"]]
        return sorted(map(datetime.fromisoformat, found)) if len(found) == count else []

    first, *others = wait(starts, seconds=30)
    # Of a moment the API says the second.
    assert min(others) - first >= timedelta(seconds=controllers.HEAD_START - 1)
    lab.ok("delete", "deployment", "crowd")


def test_a_crashing_container_backs_off(lab: Lab) -> None:
    lab.ok(
        "run",
        "crash",
        "--image=localhost/guestbook/message:v1",
        "--command",
        "--",
        "python",
        "-c",
        "1/0",
    )

    def waits(pause: int) -> bool:
        return f"back-off {pause}s" in lab.ok("get", "pod", "crash", "-o", "yaml")

    for pause in (1, 2, 4):
        wait(partial(waits, pause), f"a pause of {pause} s", 30)
    assert "CrashLoopBackOff" in lab.ok("get", "pod", "crash")
    assert "ZeroDivisionError" in lab.ok("logs", "crash", "-c", "crash")
    lab.ok("delete", "pod", "crash")


def test_a_pod_that_runs_once(lab: Lab) -> None:
    lab.ok("run", "once", "--image=curlimages/curl", "--restart=Never", "--command", "--", "true")
    wait(lambda: lab.json("pod", "once")["status"]["phase"] == "Succeeded", seconds=30)
    assert "Completed" in lab.ok("get", "pod", "once")
    lab.ok("delete", "pod", "once")


def test_configuration_reaches_the_container(lab: Lab) -> None:
    lab.apply(
        """
apiVersion: v1
kind: Pod
metadata: {name: configured, labels: {tier: one}}
spec:
  terminationGracePeriodSeconds: 1
  volumes:
  - {name: files, configMap: {name: settings}}
  containers:
  - name: c
    image: curlimages/curl
    command: [sh, -c, "cat /etc/settings/motd; sleep infinity"]
    volumeMounts: [{name: files, mountPath: /etc/settings}]
    envFrom: [{configMapRef: {name: settings}, prefix: CONF_}]
    env:
    - {name: WHO, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: TIER, valueFrom: {fieldRef: {fieldPath: "metadata.labels['tier']"}}}
    - {name: PASSWORD, valueFrom: {secretKeyRef: {name: hidden, key: password}}}
    - {name: GREETING, value: "$(WHO) of $(TIER), $(UNKNOWN) $$(WHO)"}
"""
    )
    wait(lambda: "CreateContainerConfigError" in lab.ok("get", "pod", "configured"), seconds=30)
    lab.apply(
        """
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {motd: "good morning\\n"}
---
apiVersion: v1
kind: Secret
metadata: {name: hidden}
data: {password: c2VjcmV0}
"""
    )
    lab.ok("wait", "--for=condition=Ready", "pod/configured")
    env = lab.ok("exec", "configured", "-c", "c", "--", "env").splitlines()
    for line in (
        "CONF_motd=good morning",
        "WHO=configured",
        "TIER=one",
        "PASSWORD=secret",
        "GREETING=configured of one, $(UNKNOWN) $(WHO)",
        "HOSTNAME=configured",
    ):
        assert line in env
    assert lab.ok("logs", "configured", "-c", "c") == "good morning\n"
    lab.ok("delete", "pod/configured", "cm/settings", "secret/hidden")


def test_a_mount_above_the_machines_python_does_not_hide_it(lab: Lab) -> None:
    above = "/" + Path(sys.executable).parts[1]
    lab.apply(
        f"""
apiVersion: v1
kind: Pod
metadata: {{name: covered}}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{{name: scratch, emptyDir: {{}}}}]
  containers:
  - name: c
    image: localhost/guestbook/message:v1
    volumeMounts: [{{name: scratch, mountPath: {above}}}]
"""
    )
    lab.ok("wait", "--for=condition=Ready", "pod/covered")
    lab.ok("delete", "pod/covered")


def test_a_stateful_set_keeps_its_volumes_and_its_names(lab: Lab) -> None:
    lab.apply(
        """
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 2
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: db
        image: curlimages/curl
        command: [sleep, infinity]
        volumeMounts: [{name: data, mountPath: /var/lib/db}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
"""
    )
    assert [pod["metadata"]["name"] for pod in lab.ready("app=db", 2)] == ["db-0", "db-1"]
    lab.ok("exec", "db-0", "-c", "db", "--", "sh", "-c", "echo kept > var")
    lab.ok("exec", "db-0", "-c", "db", "--", "cp", "var", "/var/lib/db/file")
    lab.ok("delete", "pod", "db-0")
    lab.ready("app=db", 2)
    assert lab.ok("exec", "db-0", "-c", "db", "--", "cat", "/var/lib/db/file") == "kept\n"
    assert lab.run("exec", "db-1", "-c", "db", "--", "cat", "/var/lib/db/file").status == 1
    lab.ok("scale", "statefulset/db", "--replicas=1")
    wait(lambda: [p["metadata"]["name"] for p in lab.pods("app=db")] == ["db-0"], seconds=30)
    lab.ok("delete", "statefulset", "db")


def test_injection_is_decided_when_a_pod_is_created(lab: Lab) -> None:
    lab.ok("create", "namespace", "playground")
    pod = """
apiVersion: v1
kind: Pod
metadata: {name: NAME, namespace: playground LABELS}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: curlimages/curl, command: [sleep, infinity]}]
"""
    lab.apply(pod.replace("NAME", "before").replace("LABELS", ""))
    lab.ok("label", "namespace", "playground", "istio-injection=enabled")
    lab.apply(pod.replace("NAME", "after").replace("LABELS", ""))
    opted = ', labels: {sidecar.istio.io/inject: "false"}'
    lab.apply(pod.replace("NAME", "without").replace("LABELS", opted))
    lab.ok("wait", "--for=condition=Ready", "pod", "--all", "-n", "playground")
    table = lab.ok("get", "pods", "-n", "playground").splitlines()
    ready = {line.split()[0]: line.split()[1] for line in table[1:]}
    assert ready == {"before": "1/1", "after": "2/2", "without": "1/1"}
    lab.ok("delete", "namespace", "playground")
    assert lab.run("get", "namespace", "playground").status == 1
    assert lab.json("pods", "-n", "playground")["items"] == []


def test_what_a_container_started_ends_with_it(lab: Lab) -> None:
    script = "sleep 1000 & echo $!; wait"
    lab.ok("run", "family", "--image=curlimages/curl", "--command", "--", "sh", "-c", script)
    child = int(wait(lambda: lab.run("logs", "family", "-c", "family").out, seconds=30))
    assert alive(child)
    lab.ok("delete", "pod", "family", "--grace-period=1")
    assert not alive(child)


def test_port_forward_reaches_the_pod(lab: Lab) -> None:
    command = [sys.executable, "-m", "lab.cli", "--state", str(lab.folder), "port-forward"]
    with subprocess.Popen(
        [*command, "svc/message-service", ":80"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("Forwarding from 127.0.0.1:")
        port = line.split()[2].rpartition(":")[2]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/hello/you", timeout=10) as answer:
                assert json.load(answer)["version"]
        finally:
            process.terminate()
        process.wait(10)


def test_a_policy_about_the_port_of_the_gateway_holds_on_localhost(lab: Lab) -> None:
    """The container's port is 8080, whatever port of localhost the lab publishes it on."""
    lab.apply(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: open}\nspec:\n"
        "  selector: {istio: ingressgateway}\n"
        '  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]\n'
        "---\n"
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
        "metadata: {name: no-admin, namespace: istio-system}\nspec:\n"
        "  selector: {matchLabels: {istio: ingressgateway}}\n  action: DENY\n"
        '  rules: [{to: [{operation: {ports: ["8080"], paths: ["/admin*"]}}]}]\n'
    )
    try:
        wait(lambda: status_of(f"{lab.url()}/admin") == 403, "the gateway refuses /admin", 30)
        assert status_of(f"{lab.url()}/other") == 404
    finally:
        lab.ok("delete", "authorizationpolicy", "no-admin", "-n", "istio-system")
        lab.ok("delete", "gateway.networking.istio.io", "open")


def status_of(url: str) -> int:
    """Returns the status of an answer; 0 while nobody answers."""
    try:
        return httpx.get(url, timeout=5).status_code
    except httpx.TransportError:
        return 0
