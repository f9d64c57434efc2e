"""`make kind`: what it asks for, in which order, and what it says when a tool is missing.

A cluster needs images that can't be had everywhere, so the tools are stand-ins that write down how
they were called; the workflow .github/workflows/ci.yml runs the script against a real one.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.ports import free_port
from tests.support.repository import ROOT

SCRIPT = ROOT / "scripts/kind.sh"
TOOLS = ("docker", "kind", "kubectl", "istioctl", "curl")
STAND_IN = """#!/bin/bash
echo "$(basename "$0") $*" >> "$CALLS"
case "$(basename "$0") $*" in
"kind get clusters") cat "$CLUSTERS" ;;
"kind version --quiet") echo "${KIND_IS:-0.32.0}" ;;
"istioctl version "*) echo "client version: ${ISTIOCTL_VERSION:-1.31.4}" ;;
"docker port "*" 30080/tcp") [ -z "${PUBLISHED:-}" ] || echo "127.0.0.1:$PUBLISHED" ;;
"kind create cluster "*) cat > "$CONFIG" ;;
"docker image inspect "*) echo "sha256:${IMAGE:-1}" ;;
"kubectl --context kind-guestbook get --raw /readyz") [ -z "${BROKEN:-}" ] ;;
"kubectl --context kind-guestbook get deployment "*) printf '%s' "${RUNS:-}" ;;
"kubectl --context kind-guestbook get secret "*) [ -n "${HAS_SECRET:-}" ] ;;
"kubectl --context kind-guestbook create -f -") cat > "$SECRET" ;;
"kubectl --context kind-guestbook rollout status deployment/ui"*) [ -z "${NEVER_READY:-}" ] ;;
esac
"""


@pytest.fixture
def machine(tmp_path: Path) -> dict[str, str]:
    """Environment of a machine with the stand-ins alone (and the system's small tools)."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in TOOLS:
        (tools / tool).write_text(STAND_IN)
        (tools / tool).chmod(0o755)
    small = (
        "awk",
        "basename",
        "bash",
        "cat",
        "dirname",
        "env",
        "git",
        "grep",
        "od",
        "sed",
        "sort",
        "tr",
        "uname",
    )
    for tool in small:
        (tools / tool).symlink_to(str(shutil.which(tool)))
    (tmp_path / "clusters").write_text("other\n")
    return {
        "PATH": str(tools),
        "HOME": str(tmp_path),
        "CALLS": str(tmp_path / "calls"),
        "CLUSTERS": str(tmp_path / "clusters"),
        "SECRET": str(tmp_path / "secret"),
        "CONFIG": str(tmp_path / "config"),
    }


def run(machine: dict[str, str], verb: str = "up") -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCRIPT, verb], env=machine, capture_output=True, text=True, timeout=60)


def calls(machine: dict[str, str]) -> list[str]:
    return Path(machine["CALLS"]).read_text().splitlines()


def have_cluster(machine: dict[str, str]) -> None:
    """As after a first `up`; also keeps the test off this machine's port 8080."""
    Path(machine["CLUSTERS"]).write_text("other\nguestbook\n")


def test_up_installs_deploys_and_waits_in_order(machine: dict[str, str]) -> None:
    have_cluster(machine)
    result = run(machine)
    assert result.returncode == 0, result.stderr
    assert "The guestbook: http://localhost:8080" in result.stdout
    order = [
        "docker buildx bake",
        "kind load docker-image",
        "istioctl install",
        "label namespace default istio-injection=enabled",
        "create -f -",
        "apply -k k8s/overlays/kind",
        "rollout status statefulset/mysql",
        "rollout status deployment/ui",
        "curl",
    ]
    found = calls(machine)
    positions = [next(i for i, call in enumerate(found) if part in call) for part in order]
    assert positions == sorted(positions)
    assert not any(call.startswith("kind create") for call in found)


def test_every_command_names_the_cluster(machine: dict[str, str]) -> None:
    """The user's current context may be another cluster, which must not be touched."""
    have_cluster(machine)
    run(machine)
    kubectl = [call for call in calls(machine) if call.startswith("kubectl")]
    istioctl = [call for call in calls(machine) if call.startswith("istioctl install")]
    assert kubectl
    assert istioctl
    assert all(call.startswith("kubectl --context kind-guestbook ") for call in kubectl)
    assert all("--context kind-guestbook" in call for call in istioctl)


def test_the_passwords_are_made_once_and_not_on_a_command_line(machine: dict[str, str]) -> None:
    have_cluster(machine)
    run(machine)
    secret = Path(machine["SECRET"]).read_text()
    words = secret.replace('"', " ").split()
    passwords = [word for word in words if len(word) == 32]
    assert len(set(passwords)) == 2
    assert not any(password in call for password in passwords for call in calls(machine))
    Path(machine["SECRET"]).unlink()
    assert run(machine | {"HAS_SECRET": "1"}).returncode == 0
    assert not Path(machine["SECRET"]).exists()


def test_files_that_are_named_exist(machine: dict[str, str]) -> None:
    have_cluster(machine)
    run(machine)
    named = [
        word
        for call in calls(machine)
        for before, word in zip(call.split(), call.split()[1:], strict=False)
        if before in ("-f", "-k") and word != "-"
    ]
    assert len(named) >= 5
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_missing_tools_are_all_named_with_the_commands_that_bring_them(
    machine: dict[str, str],
) -> None:
    for tool in ("kind", "kubectl", "istioctl"):
        (Path(machine["PATH"]) / tool).unlink()
    result = run(machine)
    assert result.returncode == 1
    commands = dict(line.split(maxsplit=1) for line in result.stderr.splitlines()[1:-1])
    assert commands.keys() == {"kind", "kubectl", "istioctl"}
    assert "curl -fLo kind https://kind.sigs.k8s.io/dl/v0." in commands["kind"]
    assert "curl -fLo kubectl https://dl.k8s.io/release/v1." in commands["kubectl"]
    assert "| ISTIO_VERSION=1." in commands["istioctl"]
    for command in commands.values():
        assert subprocess.run(["bash", "-nc", command]).returncode == 0
    assert "make up" in result.stderr
    assert not Path(machine["CALLS"]).exists()


@pytest.mark.parametrize("version", ["1.30.5", "1.31.4", "v1.31.0-alpha.1"])
def test_every_tested_istio_is_taken(machine: dict[str, str], version: str) -> None:
    have_cluster(machine)
    result = run(machine | {"ISTIOCTL_VERSION": version})
    assert result.returncode == 0, result.stderr
    assert "istioctl" not in result.stderr


@pytest.mark.parametrize("version", ["1.29.2", "1.32.0", "2.0", "unknown"])
def test_another_istio_is_used_with_a_warning(machine: dict[str, str], version: str) -> None:
    have_cluster(machine)
    result = run(machine | {"ISTIOCTL_VERSION": version})
    assert result.returncode == 0, result.stderr
    assert f"warning: istioctl is {version}; the exercises were run on Istio 1." in result.stderr
    assert "curl -L https://istio.io/downloadIstio | ISTIO_VERSION=1." in result.stderr
    assert any("istioctl install" in call for call in calls(machine))


def test_a_new_cluster_serves_the_port_that_was_asked_for(machine: dict[str, str]) -> None:
    port = str(free_port())
    result = run(machine | {"GUESTBOOK_PORT": port})
    assert result.returncode == 0, result.stderr
    (mapping,) = yaml.safe_load(Path(machine["CONFIG"]).read_text())["nodes"][0][
        "extraPortMappings"
    ]
    assert (mapping["containerPort"], mapping["hostPort"]) == (30080, int(port))
    assert f"The guestbook: http://localhost:{port}" in result.stdout
    assert f"export INGRESS=http://localhost:{port}\n" in result.stdout
    found = calls(machine)
    assert f"http://localhost:{port}/" in next(c for c in found if c.startswith("curl"))
    # For `guestbook exercise run`.
    (noted,) = [call for call in found if "service istio-ingressgateway" in call]
    assert noted.endswith(f" guestbook-url=http://localhost:{port}")


def test_a_port_that_is_taken_is_named_with_the_way_to_another(machine: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = run(machine | {"GUESTBOOK_PORT": port})
    assert result.returncode == 1
    assert f"port {port} of this machine is taken" in result.stderr
    assert "GUESTBOOK_PORT=8081 make kind" in result.stderr


def test_a_cluster_keeps_its_port(machine: dict[str, str]) -> None:
    have_cluster(machine)
    assert "http://localhost:8099" in run(machine | {"PUBLISHED": "8099"}).stdout
    result = run(machine | {"PUBLISHED": "8099", "GUESTBOOK_PORT": "8100"})
    assert result.returncode == 1
    assert "was created with port 8099" in result.stderr
    assert "make kind-down" in result.stderr


def test_images_that_are_there_need_no_build(machine: dict[str, str]) -> None:
    have_cluster(machine)
    assert run(machine | {"PREBUILT": "1"}).returncode == 0
    assert not any("bake" in call for call in calls(machine))
    assert any(call.startswith("kind load docker-image") for call in calls(machine))


@pytest.mark.parametrize(
    ("version", "good"), [("0.32.1", True), ("1.0.0", True), ("0.31.9", False)]
)
def test_an_older_kind_is_refused(machine: dict[str, str], version: str, good: bool) -> None:
    have_cluster(machine)
    result = run(machine | {"KIND_IS": version})
    assert (result.returncode == 0) == good
    assert (f"kind is {version}" in result.stderr) != good
    assert ("https://kind.sigs.k8s.io/dl/v" in result.stderr) != good


def test_a_cluster_whose_creation_was_interrupted_is_not_used(machine: dict[str, str]) -> None:
    have_cluster(machine)
    result = run(machine | {"BROKEN": "1"})
    assert result.returncode == 1
    assert "make kind-down, then make kind" in result.stderr
    assert "kind export kubeconfig --name guestbook --quiet" in calls(machine)
    assert not any("install" in call for call in calls(machine))


@pytest.mark.parametrize(("runs", "restarts"), [("sha256:1", 0), ("sha256:0", 3), ("", 0)])
def test_a_second_up_brings_new_images_into_the_pods(
    machine: dict[str, str], runs: str, restarts: int
) -> None:
    """Their tag is the same, so applying the manifests alone would leave the old ones running."""
    have_cluster(machine)
    assert run(machine | {"RUNS": runs}).returncode == 0
    found = calls(machine)
    assert sum("rollout restart deployment/" in call for call in found) == restarts
    annotated = [call for call in found if "guestbook-image=sha256:1" in call]
    assert len(annotated) == 3


def test_a_pod_that_never_gets_ready_is_named(machine: dict[str, str]) -> None:
    have_cluster(machine)
    result = run(machine | {"NEVER_READY": "1"})
    assert result.returncode == 1
    assert "deployment/ui did not become ready" in result.stderr
    assert "get pods" in calls(machine)[-1]


def test_down_deletes_this_cluster_alone(machine: dict[str, str]) -> None:
    assert "no cluster" in run(machine, "down").stdout
    have_cluster(machine)
    assert run(machine, "down").returncode == 0
    assert [call for call in calls(machine) if "delete" in call] == [
        "kind delete cluster --name guestbook"
    ]


def test_usage(machine: dict[str, str]) -> None:
    assert run(machine, "sideways").returncode == 2
    assert "up|down" in run(machine, "sideways").stderr
    assert os.access(SCRIPT, os.X_OK)
