"""The commands on a running lab: what they print, in every form, and how they end."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from lab.cli.output import duration
from tests.support.lab import COMMAND, Lab
from tests.support.wait import wait

NOTES = """
apiVersion: v1
kind: ConfigMap
metadata: {name: notes, labels: {kept: here}}
data: {a: first}
"""


DELETED = 'configmap "notes" deleted from default namespace\n'


@pytest.fixture
def notes(lab: Lab) -> Iterator[str]:
    lab.apply(NOTES)
    yield "notes"
    lab.ok("delete", "cm", "notes", "--ignore-not-found")


def start(lab: Lab, *argv: str, stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
    command = [*COMMAND, "--state", str(lab.folder), *argv]
    # With it, what was never flushed would be read all the same.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE, text=True, env=env)


def on_a_terminal(lab: Lab, *argv: str, **env: str) -> str:
    """Returns the output of a command that runs on a terminal."""
    ours, theirs = pty.openpty()
    command = [*COMMAND, "--state", str(lab.folder), *argv]
    environ = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    environ |= {"TERM": "xterm-256color", **env}
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environ) as process:
        os.close(theirs)
        text = b""
        try:
            while chunk := os.read(ours, 65536):
                text += chunk
        except OSError:
            # The end of a terminal on Linux.
            pass
        finally:
            os.close(ours)
    assert process.returncode == 0
    return text.decode()


def test_every_form_of_output_shows_the_same_objects(lab: Lab) -> None:
    names = [pod["metadata"]["name"] for pod in lab.json("pods")["items"]]
    listed = yaml.safe_load(lab.ok("get", "pods", "-o", "yaml"))
    assert [item["metadata"]["name"] for item in listed["items"]] == names
    assert lab.ok("get", "pods", "-o", "name").split() == [f"pod/{name}" for name in names]
    path = "jsonpath={.items[*].metadata.name}"
    assert lab.ok("get", "pods", "-o", path).split() == names
    title, *rows = lab.ok("get", "pods", "-o", "wide").splitlines()
    assert title.endswith("   NOMINATED NODE   READINESS GATES")
    assert title.split()[:7] == ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE"]
    assert [row.split()[0] for row in rows] == names
    assert lab.ok("get", "pods", "--no-headers").splitlines()[0].split()[0] == names[0]
    labelled = lab.ok("get", "pods", "-l", "app=curl", "--show-labels").splitlines()
    assert labelled[0].endswith("LABELS")
    assert labelled[1].endswith("app=curl")


def test_apply_says_what_it_did(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "notes.yaml"
    file.write_text(NOTES)
    assert lab.ok("apply", "-f", str(file), "--dry-run") == "configmap/notes created (dry run)\n"
    server = lab.ok("apply", "-f", str(file), "--dry-run=server")
    assert server == "configmap/notes created (server dry run)\n"
    assert lab.run("get", "cm", "notes").status == 1
    assert lab.ok("apply", "-f", str(file)) == "configmap/notes created\n"
    assert lab.ok("apply", "-f", str(tmp_path)) == "configmap/notes unchanged\n"
    file.write_text(NOTES.replace("first", "second"))
    assert lab.ok("apply", "-f", str(file)) == "configmap/notes configured\n"
    assert lab.json("cm", "notes")["data"] == {"a": "second"}
    assert lab.ok("delete", "-f", str(file)) == DELETED
    again = lab.run("delete", "-f", str(file))
    assert (again.status, again.err) == (
        1,
        'Error from server (NotFound): configmaps "notes" not found\n',
    )
    assert lab.ok("delete", "-f", str(file), "--ignore-not-found") == ""


def test_a_namespace_and_what_is_in_it_are_deleted_by_one_file(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "room.yaml"
    notes = NOTES.replace("name: notes", "name: notes, namespace: room")
    file.write_text(f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: room}}\n---\n{notes}")
    lab.ok("apply", "-f", str(file))
    deleted = lab.ok("delete", "-f", str(file))
    assert deleted == 'configmap "notes" deleted from room namespace\nnamespace "room" deleted\n'


def test_one_problem_and_nothing_is_applied(lab: Lab) -> None:
    bad = NOTES + "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: other}\ndatum: {}\n"
    answer = lab.run("apply", "-f", "-", stdin=bad)
    assert answer.status == 1
    assert '-:10: ConfigMap other: strict decoding error: unknown field "datum"' in answer.err
    assert lab.run("get", "cm", "notes").status == 1
    nothing = lab.run("apply", "-f", "-", stdin="")
    assert (nothing.status, nothing.err) == (1, "Error: no objects passed to apply\n")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("get pod nope", 'Error from server (NotFound): pods "nope" not found'),
        ("get foo", 'Error: the server doesn\'t have a resource type "foo"'),
        ("get pods -o nope", "Error: unable to match a printer"),
        ("describe pod nope", 'pods "nope" not found'),
        ("logs nope", 'pods "nope" not found'),
        ("logs curl -c nope", "container nope is not valid for pod curl; it has: curl"),
        ("exec curl -c nope -- true", "container nope is not valid"),
        ("exec nope -- true", 'pods "nope" not found'),
        ("scale svc/message-service --replicas=1", "services have no replicas"),
        ("scale deploy/message-service --replicas=-1", "must not be negative"),
        ("scale deploy/nope --replicas=1", 'deployments.apps "nope" not found'),
        ("rollout restart deploy/nope", 'deployments.apps "nope" not found'),
        (
            "run curl --image=curlimages/curl",
            '(AlreadyExists): pods "curl" already exists',
        ),
        ("run other --image=nginx", 'the lab has no program for the image "nginx"'),
        ("create namespace default", '(AlreadyExists): namespaces "default" already exists'),
        ("create namespace Not_A_Name", "is not a valid Namespace name"),
        ("delete namespace default", 'namespace "default" may not be deleted'),
        ("label pod curl app=other", "--overwrite is false"),
        ("label pod curl a=!", "is not a valid label value"),
        ("wait pod/curl --for=nonsense", "unrecognized condition: 'nonsense'"),
        ("wait pod/curl --for=delete --timeout=0s", "timed out waiting for the condition"),
        ("rollout status pod/curl", "no status viewer has been implemented for Pod"),
        ("rollout status svc/message-service", "no status viewer has been implemented for Service"),
        ("rollout status ns/default", "no status viewer has been implemented for Namespace"),
        ("rollout restart deploy/x -l a=b", "name cannot be provided when a selector is specified"),
        ("rollout restart pod/curl", "pods have no replicas"),
        ("logs ns/default", "namespace/default has no pods"),
        ("exec sa/message-sa -- true", "serviceaccount/message-sa has no pods"),
        ("scale deploy --replicas=1", "resource(s) were provided, but no name was specified"),
        ("delete sa default", 'serviceaccounts "default" can\'t be deleted'),
        ("delete node lab", "nodes are made by the lab itself"),
        ("label rs --all a=b", "replicasets are made by the lab itself"),
        ("apply --dry-run=maybe -f -", "Invalid dry-run value (maybe)"),
        ("get pods -o jsonpath={.items[*", "unclosed action"),
        ("get pods -o custom-columns=NAME", "custom-columns format must be"),
        ("run x --image=redis --rm", "--rm should only be used for attached containers"),
        ("port-forward svc/nope 80", 'services "nope" not found'),
        ("port-forward svc/message-service 81", "does not have a service port 81"),
    ],
)
def test_what_the_lab_refuses_is_one_line(lab: Lab, words: str, reason: str) -> None:
    answer = lab.run(*words.split())
    assert answer.status == 1
    (line,) = answer.err.splitlines()
    assert line.startswith("Error")
    assert reason in line


def test_labels_and_annotations(lab: Lab, notes: str) -> None:
    assert lab.ok("label", "cm", notes, "a=b", "kept-") == "configmap/notes unlabeled\n"
    assert lab.json("cm", notes)["metadata"]["labels"] == {"a": "b"}
    assert lab.ok("label", "cm", notes, "a=c", "--overwrite") == "configmap/notes labeled\n"
    assert lab.ok("get", "cm", "-l", "a=c", "-o", "name") == "configmap/notes\n"
    assert lab.ok("annotate", "cm/notes", "x.io/y=z") == "configmap/notes annotated\n"
    assert "x.io/y: z" in lab.ok("describe", "cm", notes)


def test_exec_passes_status_output_and_input(lab: Lab) -> None:
    inside = ("exec", "curl", "-c", "curl")
    done = lab.run(*inside, "--", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (done.status, done.out) == (3, "out\n")
    assert done.err == "err\ncommand terminated with exit code 3\n"
    assert lab.run(*inside, "-i", "--", "cat", stdin="typed").out == "typed"
    assert lab.run(*inside, "--", "no-such-program").status == 127


def test_exec_names_what_the_machine_lacks(lab: Lab) -> None:
    lab.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: bare}, spec: {containers: [{name: c, "
        "image: curlimages/curl, command: [/bin/sleep, infinity], "
        "env: [{name: PATH, value: /nowhere}]}]}}"
    )
    lab.ok("wait", "--for=condition=Ready", "pod/bare", "--timeout=30s")
    done = lab.run("exec", "bare", "-c", "c", "--", "curl", "http://ui/")
    assert done.status == 127
    assert 'exec: "curl": executable file not found in $PATH' in done.err
    assert "apt-get install curl" in done.err


def test_logs_follow_and_end_with_ctrl_c(lab: Lab) -> None:
    script = "for n in 1 2 3; do echo line $n; done; read x < go; echo more; sleep infinity"
    words = ("--image=curlimages/curl", "--command", "--", "sh", "-c", f"mkfifo go; {script}")
    lab.ok("run", "talker", *words)
    wait(lambda: "line 3" in lab.run("logs", "talker", "-c", "talker").out, seconds=30)
    assert lab.ok("logs", "talker", "-c", "talker", "--tail=1") == "line 3\n"
    assert lab.ok("logs", "-l", "run=talker", "-c", "talker", "--prefix", "--tail=1") == (
        "[pod/talker/talker] line 3\n"
    )
    with start(lab, "logs", "-f", "talker", "-c", "talker") as following:
        assert following.stdout is not None
        assert [following.stdout.readline() for _ in range(3)] == [
            "line 1\n",
            "line 2\n",
            "line 3\n",
        ]
        lab.ok("exec", "talker", "-c", "talker", "--", "sh", "-c", "echo > go")
        assert following.stdout.readline() == "more\n"
        following.send_signal(signal.SIGINT)
        assert following.wait(10) == 130
        assert following.stderr is not None
        assert following.stderr.read() == ""
    lab.ok("delete", "pod", "talker", "--grace-period=1")


def test_watch_prints_what_changes(lab: Lab, notes: str) -> None:
    with start(lab, "get", "cm", notes, "--watch") as watching:
        assert watching.stdout is not None
        assert watching.stdout.readline().split() == ["NAME", "DATA", "AGE"]
        assert watching.stdout.readline().split()[:2] == ["notes", "1"]
        lab.apply(NOTES.replace("a: first", "a: first, b: second"))
        assert watching.stdout.readline().split()[:2] == ["notes", "2"]
        watching.send_signal(signal.SIGINT)
        assert watching.wait(10) == 130
        assert watching.stderr is not None
        assert watching.stderr.read() == ""


@pytest.mark.parametrize("words", [("get", "events", "-w"), ("events", "--watch")])
def test_a_watch_of_events_prints_those_that_come(lab: Lab, words: tuple[str, ...]) -> None:
    with start(lab, *words) as watching:
        assert watching.stdout is not None
        assert watching.stdout.readline().split()[:2] == ["LAST", "SEEN"]
        lab.apply(SEEN)
        try:
            assert any("pod/seen" in line.lower() for line in watching.stdout)
        finally:
            lab.ok("delete", "pod", "seen", "--grace-period=1")
        watching.send_signal(signal.SIGINT)
        assert watching.wait(10) == 130


SEEN = """
apiVersion: v1
kind: Pod
metadata: {name: seen, labels: {sidecar.istio.io/inject: "false"}}
spec: {containers: [{name: curl, image: "curlimages/curl:8.16.0", command: [sleep, infinity]}]}
"""


def test_a_reader_that_has_seen_enough_is_told_nothing(lab: Lab) -> None:
    read, write = os.pipe()
    os.close(read)
    with start(lab, "api-resources", stdout=write) as printing:
        os.close(write)
        assert printing.stderr is not None
        assert printing.stderr.read() == ""
    assert printing.returncode == 1


def test_colours_are_for_terminals(lab: Lab) -> None:
    shown = on_a_terminal(lab, "get", "pod", "curl")
    assert "\x1b[32mRunning" in shown
    assert "\x1b[" not in on_a_terminal(lab, "get", "pod", "curl", TERM="dumb")
    for words in (("get", "pods"), ("status",), ("--help",), ("api-resources",)):
        assert "\x1b[" not in lab.ok(*words)


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("po", ["port-forward"]),
        ("get depl", ["deployments"]),
        ("get pods cu", ["curl"]),
        ("describe deploy/mess", ["deploy/message-service"]),
        ("logs cu", ["curl"]),
        ("exec dep", ["deployment/"]),
        ("scale deployment mess", ["message-service"]),
        ("patch deploy mess", ["message-service"]),
        ("set image deploy/mess", ["deploy/message-service"]),
        ("get pods -n istio-s", ["istio-system"]),
    ],
)
def test_the_shell_completes_verbs_kinds_and_names(
    lab: Lab, typed: str, offered: list[str]
) -> None:
    words = f"guestbook --state {lab.folder} {typed}"
    done = subprocess.run(
        COMMAND,
        env=os.environ
        | {
            "_GUESTBOOK_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == offered


def test_an_injected_manifest_is_applied_with_its_sidecar(lab: Lab, tmp_path: Path) -> None:
    lab.ok("create", "namespace", "by-hand")
    manifest = tmp_path / "pod.yaml"
    manifest.write_text(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: bare, namespace: by-hand}\n"
        "spec:\n  terminationGracePeriodSeconds: 1\n"
        "  containers: [{name: c, image: curlimages/curl, command: [sleep, infinity]}]\n"
    )
    lab.apply(lab.ok("kube-inject", "-f", str(manifest)))
    lab.ok("wait", "--for=condition=Ready", "pod/bare", "-n", "by-hand", "--timeout=60s")
    assert "2/2" in lab.ok("get", "pod", "bare", "-n", "by-hand")
    lab.ok("delete", "namespace", "by-hand")


def test_status_and_events(lab: Lab) -> None:
    found = json.loads(lab.ok("status", "-o", "json"))
    assert found["ready"] == found["wanted"]
    told = lab.ok("status")
    assert found["ingress"] in told
    assert found["ingressHttps"] in told
    assert "Scheduled" in lab.ok("get", "events")
    described = lab.ok("describe", "pod", "curl")
    assert "Started container istio-proxy" in described


def test_keys_that_can_not_be_fetched_are_a_warning(lab: Lab) -> None:
    policy = (
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: keyless}\n"
        "spec:\n  selector: {matchLabels: {app: curl}}\n"
        "  jwtRules: [{issuer: a@b, jwksUri: 'https://127.0.0.1:9/keys'}]\n"
    )
    applied = lab.run("apply", "-f", "-", stdin=policy)
    reason = "spec.jwtRules[0].jwksUri: keys not fetched: https://127.0.0.1:9/keys: "
    assert applied.status == 0
    assert applied.err.startswith(f"Warning: -:6: RequestAuthentication keyless: {reason}")
    assert reason in lab.ok("status").partition("Warning     ")[2]
    lab.ok("delete", "requestauthentication", "keyless")
    assert "Warning" not in lab.ok("status")


def rows(text: str) -> list[list[str]]:
    return [re.split(r"  +", line) for line in text.splitlines()]


def test_kinds_print_kubectls_columns(lab: Lab) -> None:
    lab.apply(
        """
{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: columns},
 spec: {hosts: [message-service, other.example], gateways: [mesh],
        http: [{route: [{destination: {host: message-service}}]}]}}
---
{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: columns},
 spec: {minAvailable: 1, selector: {matchLabels: {app: message-service}}}}
"""
    )
    title, row = rows(lab.ok("get", "vs", "columns"))
    assert title == ["NAME", "GATEWAYS", "HOSTS", "AGE"]
    assert row[:3] == ["columns", '["mesh"]', '["message-service", "other.example"]']
    title, row = rows(lab.ok("get", "pdb"))
    assert title == ["NAME", "MIN AVAILABLE", "MAX UNAVAILABLE", "ALLOWED DISRUPTIONS", "AGE"]
    assert row[:4] == ["columns", "1", "N/A", "1"]
    deleted = lab.ok("delete", "vs/columns", "pdb/columns")
    assert deleted.splitlines() == [
        'virtualservice.networking.istio.io "columns" deleted from default namespace',
        'poddisruptionbudget.policy "columns" deleted from default namespace',
    ]
    accounts = rows(lab.ok("get", "sa"))
    assert [row[:2] for row in accounts] == [
        ["NAME", "SECRETS"],
        ["default", "0"],
        ["message-sa", "0"],
    ]


def test_what_a_cluster_makes_by_itself_is_shown(lab: Lab) -> None:
    pods = lab.ready("app=message-service", 2)
    addresses = [f"{pod['status']['podIP']}:8080" for pod in pods]
    _, replicas = rows(lab.ok("get", "rs"))
    assert pods[0]["metadata"]["ownerReferences"][0]["name"] == replicas[0]
    assert replicas[1:4] == ["2", "2", "2"]
    _, endpoints = rows(lab.ok("get", "endpoints", "message-service"))
    assert endpoints[1] == ",".join(addresses)
    _, slices = rows(lab.ok("get", "endpointslices", "-l", "kubernetes.io/service-name"))
    assert slices[1:3] == ["IPv4", "8080"]
    assert rows(lab.ok("get", "nodes"))[1][:2] == ["lab", "Ready"]
    described = lab.ok("describe", "svc", "message-service")
    (shown,) = re.findall(r"^Endpoints: +(.*)", described, re.MULTILINE)
    assert sorted(shown.split(",")) == sorted(addresses)


def test_describe_finds_by_the_beginning_of_a_name(lab: Lab) -> None:
    names = [pod["metadata"]["name"] for pod in lab.pods("app=message-service")]
    found = re.findall(r"^Name: +(.*)", lab.ok("describe", "pod", "message"), re.MULTILINE)
    assert sorted(found) == sorted(names)


def test_lists_are_by_name_or_as_asked(lab: Lab) -> None:
    names = lab.ok("get", "pods", "-o", "name").split()
    assert names == sorted(names)
    by_app = lab.ok(
        "get", "pods", "-l", "app", "--sort-by=.metadata.labels.app", "-L", "app,version"
    )
    title, *found = rows(by_app)
    assert title[-2:] == ["APP", "VERSION"]
    assert [row[5] for row in found] == ["curl", "message-service", "message-service"]
    columns = "custom-columns=POD:.metadata.name,OWNER:.metadata.ownerReferences[0].kind"
    assert rows(lab.ok("get", "pod", "curl", "-o", columns)) == [
        ["POD", "OWNER"],
        ["curl", "<none>"],
    ]


def test_logs_of_several_pods_say_which(lab: Lab) -> None:
    answer = lab.run("logs", "deploy/message-service", "--tail=1")
    assert re.fullmatch(r"Found 2 pods, using pod/message-service-\S+\n", answer.err)


def test_a_pod_for_one_command(lab: Lab) -> None:
    words = ("--image=curlimages/curl", "--restart=Never", "--command", "--")
    manifest = lab.ok("run", "once", "--dry-run=client", "-o", "yaml", *words, "true")
    assert yaml.safe_load(manifest)["metadata"]["name"] == "once"
    assert lab.run("get", "pod", "once").status == 1
    done = lab.run("run", "once", "-it", "--rm", *words, "sh", "-c", "echo hello; exit 3")
    assert (done.status, done.err) == (3, "")
    assert done.out == 'hello\npod "once" deleted from default namespace\n'
    assert lab.run("get", "pod", "once").status == 1


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (119, "119s"),
        (120, "2m"),
        (278, "4m38s"),
        (600, "10m"),
        (10799, "179m"),
        (3 * 3600 + 60, "3h1m"),
        (9 * 3600 + 60, "9h"),
        (49 * 3600, "2d1h"),
        (9 * 86400, "9d"),
    ],
)
def test_ages_are_rounded_as_kubectl_does(seconds: int, shown: str) -> None:
    assert duration(seconds) == shown
