"""Habits of those who know kubectl and istioctl."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.cli import main
from tests.support.certificate import certificate
from tests.support.lab import Lab


@pytest.mark.parametrize(
    ("words", "usage"),
    [
        ("help", "guestbook [OPTIONS] COMMAND"),
        ("help get", "guestbook get "),
        ("help create namespace", "guestbook create namespace "),
        ("help x describe", "guestbook x describe "),
        ("help rollout", "guestbook rollout "),
    ],
)
def test_help_is_a_verb(words: str, usage: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--state", "none", *words.split()]) == 0
    assert f"Usage: {usage}" in capsys.readouterr().out


def test_a_program_without_a_verb_prints_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    """`kubectl` of the lab gives the state folder, so that there are words."""
    assert main(["--state", "none"]) == 1
    printed = capsys.readouterr()
    assert "Commands" in printed.out
    assert printed.err == ""


@pytest.mark.parametrize("alias", ["dash", "d"])
def test_a_dashboard_by_its_short_names(alias: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([alias, "kiali"]) == 1
    assert "instead: guestbook graph" in capsys.readouterr().err


def test_nothing_found_anywhere_is_said_as_kubectl_says_it(lab: Lab) -> None:
    assert lab.run("get", "sidecars", "-A").err == "No resources found\n"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("vritualservice", ' (did you mean "virtualservice"?)'),
        ("virtual-service", ' (did you mean "virtualservice"?)'),
        ("Deploymnets", ' (did you mean "deployments"?)'),
        ("replicset", ' (did you mean "replicaset"?)'),
        ("persistentvolumes", ""),
        ("daemonsets", ""),
    ],
)
def test_a_misspelt_kind(lab: Lab, name: str, meant: str) -> None:
    said = f'the server doesn\'t have a resource type "{name}"{meant}\n'
    assert lab.run("get", name).err == f"Error: {said}"


def test_rollouts_of_all_of_a_kind(lab: Lab) -> None:
    one = "deployment.apps/message-service"
    assert lab.ok("rollout", "restart", "deployment") == f"{one} restarted\n"
    done = lab.ok("rollout", "status", "deploy", "-l", "!none")
    assert done.endswith('deployment "message-service" successfully rolled out\n')
    assert lab.ok("rollout", "history", "deploy").startswith(one)
    nothing = lab.run("rollout", "restart", "deploy", "-l", "app=none")
    assert (nothing.status, nothing.out) == (0, "")
    assert nothing.err == "No resources found in default namespace.\n"


def config(name: str, label: str, namespace: str = "default") -> str:
    metadata = f"{{name: {name}, namespace: {namespace}, labels: {{part: {label}}}}}"
    return f"---\n{{apiVersion: v1, kind: ConfigMap, metadata: {metadata}}}\n"


def test_files_of_which_labels_choose_some(lab: Lab) -> None:
    files = config("one", "a") + config("two", "b")
    try:
        some = ("-l", "part in (a)", "-f", "-")
        assert lab.ok("apply", *some, stdin=files) == "configmap/one created\n"
        lab.ok("apply", "-f", "-", stdin=files)
        assert lab.ok("delete", *some, stdin=files) == (
            'configmap "one" deleted from default namespace\n'
        )
        assert lab.ok("get", "cm", "-l", "part", "-o", "name") == "configmap/two\n"
        none = lab.run("apply", "-f", "-", "-l", "part=c", stdin=files)
        assert none.err == "Error: no objects passed to apply\n"
        bad = lab.run("apply", "-f", "-", "-l", "a b", stdin=files)
        assert (bad.status, bad.err.count("\n")) == (1, 1)
    finally:
        lab.ok("delete", "cm", "-l", "part")


def test_folders_below_a_folder(lab: Lab, tmp_path: Path) -> None:
    below = tmp_path / "further" / "down"
    below.mkdir(parents=True)
    (tmp_path / "first.yaml").write_text(config("first", "a"))
    (below / "second.yaml").write_text(config("second", "a"))
    try:
        assert lab.ok("apply", "-f", str(tmp_path)) == "configmap/first created\n"
        assert lab.ok("apply", "-R", "-f", str(tmp_path)) == (
            "configmap/first unchanged\nconfigmap/second created\n"
        )
    finally:
        assert lab.ok("delete", "-Rf", str(tmp_path)).count("deleted") == 2


def test_all_of_a_kind_in_all_namespaces_are_deleted(lab: Lab) -> None:
    other = "istio-system"
    lab.apply(config("here", "a") + config("there", "a", other))
    chosen = ("delete", "cm", "-A", "-l", "part=a")
    words = 'configmap "{}" deleted from {} namespace{}\n'
    dry = words.format("here", "default", " (dry run)") + words.format("there", other, " (dry run)")
    assert lab.ok(*chosen, "--dry-run=client") == dry
    assert lab.ok(*chosen, "--dry-run=server") == dry.replace("dry", "server dry")
    assert lab.ok(*chosen) == dry.replace(" (dry run)", "")
    assert lab.run("get", "cm", "-A", "-l", "part=a").err == "No resources found\n"
    refused = lab.run("delete", "pod", "curl", "-A")
    assert "a resource cannot be retrieved by name across all namespaces" in refused.err


def test_logs_after_a_time(lab: Lab) -> None:
    log = ("logs", "deploy/message-service")
    lines = lab.ok(*log, "--timestamps").splitlines()
    time, _, text = lines[-1].partition(" ")
    assert lab.ok(*log, f"--since-time={time}").splitlines()[-1:] == [text]
    assert (
        lab.ok(*log, "--since-time=2000-01-01T00:00:00+01:00", "--timestamps").splitlines()[
            : len(lines)
        ]
        == lines
    )
    early = lab.ok(*log, "--since-time=0001-01-01T00:00:00+14:00", "--timestamps")
    assert early.splitlines()[: len(lines)] == lines
    assert lab.ok(*log, "--since-time=2999-01-01T00:00:00Z") == ""
    for words, reason in (
        (("--since-time=yesterday",), "invalid time 'yesterday'"),
        (("--since-time=2026-08-30T06:00:00",), "invalid time"),
        (("--since=99999999999999h",), "invalid duration"),
        (("--since=1s", "--since-time=2026-08-30T06:00:00Z"), "at most one of"),
    ):
        assert reason in lab.run(*log, *words).err


GATEWAY = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: serial}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 443, name: https, protocol: HTTPS}
    tls: {mode: SIMPLE, credentialName: serial}
    hosts: [serial.example]
"""


def test_a_certificate_with_serial_number_0_is_one(lab: Lab, tmp_path: Path) -> None:
    """Istio's page on secure gateways makes one; a library of the lab's warns of it."""
    chain, key = certificate(tmp_path, "serial", "serial.example", "-set_serial", "0")
    lab.apply(GATEWAY)
    try:
        pair = (f"--cert={chain}", f"--key={key}", "-n=istio-system")
        lab.ok("create", "secret", "tls", "serial", *pair)
        listeners = lab.ok("pc", "listeners", "deploy/istio-ingressgateway", "-n=istio-system")
        assert "SNI: serial.example" in listeners
    finally:
        lab.ok("delete", "gateway", "serial")
        lab.run("delete", "secret", "serial", "-n=istio-system")
    assert "serial number" not in lab.log.read_text()


@pytest.mark.parametrize("words", ["x", "help x", "experimental", "x precheck"])
def test_experiments_are_named(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) == 1
    assert "is not in the lab: it has x describe, proxy-status" in capsys.readouterr().err
