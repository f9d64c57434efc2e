"""set image, set env and replace, against a running lab."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.lab import SMALL, Lab
from tests.support.wait import wait

TARGET = "deploy/message-service"
DONE = "deployment.apps/message-service"
POD = """
apiVersion: v1
kind: Pod
metadata: {{name: anew}}
spec:
  containers: [{{name: anew, image: {image}, command: [sleep, infinity]}}]
"""
CONFIG = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: kept}\ndata: {a: b}\n"


@pytest.fixture
def workload(lab: Lab) -> Iterator[str]:
    """A Deployment that is as it was, in the end."""
    yield TARGET
    lab.ok("apply", "-f", str(SMALL))
    lab.ok("rollout", "status", TARGET, "--timeout=60s")
    lab.ready("app=message-service", 2)


def test_variables_are_set_listed_and_removed(lab: Lab, workload: str) -> None:
    head = "# Deployment message-service, container message-service\n"
    known = "DEMO_VERSION=1.0\nSHUTDOWN_DRAIN=1\n"
    assert lab.ok("set", "env", workload, "--list") == head + known
    words = ("set", "env", workload, "DEMO_VERSION=7.0", "EXTRA=a=b")
    assert lab.ok(*words, "--dry-run=client") == f"{DONE} env updated (dry run)\n"
    assert lab.ok("set", "env", workload, "--list") == head + known
    assert lab.ok(*words) == f"{DONE} env updated\n"
    assert lab.ok(*words) == ""
    changed = known.replace("1.0", "7.0")
    assert lab.ok("set", "env", workload, "--list") == f"{head}{changed}EXTRA=a=b\n"
    asked = ("exec", "curl", "--", "curl", "-s", "http://message-service/hello/me")
    wait(lambda: '"version":"7.0"' in lab.run(*asked).out, "the new version", 60)
    lab.ok("rollout", "undo", workload)
    assert lab.ok("set", "env", "deploy", "--all", "--list") == head + known
    gone = lab.ok("set", "env", workload, "SHUTDOWN_DRAIN-", "NOBODY-", "-o", "name")
    assert gone == f"{DONE}\n"
    assert lab.ok("set", "env", workload, "--list") == f"{head}DEMO_VERSION=1.0\n"


def test_a_value_may_be_any_text(lab: Lab, workload: str) -> None:
    assert lab.ok("set", "env", workload, "SMILE=\U0001f600") == f"{DONE} env updated\n"
    assert "SMILE=\U0001f600\n" in lab.ok("set", "env", workload, "--list")
    refused = lab.run("set", "env", workload, "BYTE=\udcff")
    assert (refused.status, refused.err) == (1, "Error: 'BYTE=\\udcff' is not UTF-8\n")


def test_a_variable_from_elsewhere_says_so_and_can_be_a_value(lab: Lab, workload: str) -> None:
    source = '{"secretKeyRef": {"name": "login", "key": "password", "optional": true}}'
    variable = f'{{"name": "WORD", "valueFrom": {source}}}'
    container = f'{{"name": "message-service", "env": [{variable}]}}'
    pods = f'{{"spec": {{"template": {{"spec": {{"containers": [{container}]}}}}}}}}'
    lab.ok("patch", workload, "-p", pods)
    assert "# WORD from secret login, key password\n" in lab.ok("set", "env", workload, "--list")
    lab.ok("set", "env", workload, "WORD=said")
    spec = lab.json(workload)["spec"]["template"]["spec"]
    assert {"name": "WORD", "value": "said"} in spec["containers"][0]["env"]


def test_images_are_set(lab: Lab, workload: str) -> None:
    image = "message-service=localhost/guestbook/message:v9"
    assert lab.ok("set", "image", workload, image) == f"{DONE} image updated\n"
    assert lab.ok("set", "image", workload, image) == ""
    every = lab.ok("set", "image", "deploy", "--all", "*=guestbook/message:v10")
    assert every == f"{DONE} image updated\n"
    (container,) = lab.json(workload)["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "guestbook/message:v10"
    assert len(lab.ok("rollout", "history", workload).splitlines()) > 4


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        ("image deploy/message-service", 1, "Error: at least one image update is required\n"),
        ("image deploy/message-service a=b", 1, 'Error: unable to find container named "a"\n'),
        (
            "image deploy/message-service *=a b=c",
            1,
            "Error: all containers are already specified by *, but saw more than one "
            "container_name=container_image pairs\n",
        ),
        (
            "image deploy/message-service a=b c",
            1,
            "Error: all resources must be specified before image changes: c\n",
        ),
        (
            "image svc/message-service a=b",
            1,
            "Error: service/message-service the object is not a pod or does not have a pod "
            "template\n",
        ),
        (
            "env deploy/none A=b",
            1,
            'Error from server (NotFound): deployments.apps "none" not found\n',
        ),
        (
            "env A=b",
            1,
            "Error: one or more resources must be specified as <resource> <name> or "
            "<resource>/<name>\n",
        ),
        (
            "env deploy/message-service",
            1,
            "Error: at least one environment variable must be provided\n",
        ),
        (
            "image deploy/message-service *=guestbook/message:v3 -o short",
            1,
            "Error: unable to match a printer suitable for the output format 'short'; allowed: "
            "json, yaml, name, jsonpath=TEMPLATE\n",
        ),
        (
            "env deploy/message-service 1A=b",
            1,
            'Error: "1A" is not a valid key name: a valid environment variable name must consist '
            "of alphabetic characters, digits, '_', '-', or '.', and must not start with a digit\n",
        ),
        (
            "env deploy/message-service A=b A-",
            1,
            "Error: can not both modify and remove the same environment variable in the same "
            "command\n",
        ),
        (
            "env deploy/message-service -c x* A=b",
            0,
            'Warning: Deployment/message-service does not have any containers matching "x*"\n',
        ),
        (
            "env pod/curl A=b",
            1,
            f"Error: {SMALL} (patched):61: Pod curl: spec: a pod's spec can't be changed: delete "
            "the pod first\n",
        ),
    ],
)
def test_what_can_not_be_set(lab: Lab, words: str, status: int, says: str) -> None:
    answer = lab.run("set", *words.split())
    assert (answer.status, answer.out, answer.err) == (status, "", says)


def test_replace_keeps_nothing_that_the_file_does_not_say(lab: Lab) -> None:
    words = ("replace", "-f", "-")
    missing = lab.run(*words, stdin=CONFIG)
    assert (missing.status, missing.err) == (
        1,
        'Error from server (NotFound): error when replacing "STDIN": configmaps "kept" not found\n',
    )
    lab.apply(CONFIG)
    try:
        lab.ok("label", "configmap", "kept", "by=hand")
        assert lab.ok(*words, "--dry-run=server", stdin=CONFIG) == (
            "configmap/kept replaced (server dry run)\n"
        )
        assert lab.json("configmap", "kept")["metadata"]["labels"] == {"by": "hand"}
        assert lab.ok(*words, stdin=CONFIG) == "configmap/kept replaced\n"
        kept = lab.json("configmap", "kept")["metadata"]
        assert "labels" not in kept
        forced = lab.ok(*words, "--force", stdin=CONFIG)
        assert forced.splitlines() == [
            'configmap "kept" deleted from default namespace',
            "configmap/kept replaced",
        ]
        assert lab.json("configmap", "kept")["metadata"]["uid"] != kept["uid"]
    finally:
        lab.ok("delete", "configmap", "kept")
    assert lab.ok(*words, "--force", stdin=CONFIG) == "configmap/kept replaced\n"
    lab.ok("delete", "configmap", "kept")
    refused = lab.run(*words, "--force", "--dry-run=client", stdin=CONFIG)
    assert refused.err == "Error: --dry-run can not be used when --force is set\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (CONFIG + "---\n" + POD.format(image="none/none"), 'no program for the image "none/none"'),
        (CONFIG + "---\n" + CONFIG.replace("kept}", "kept, namespace: none}"), '"none" not found'),
    ],
)
def test_what_can_not_be_made_anew_is_not_deleted(lab: Lab, text: str, reason: str) -> None:
    lab.apply(CONFIG)
    try:
        before = lab.json("configmap", "kept")
        answer = lab.run("replace", "--force", "-f", "-", stdin=text)
        assert (answer.status, answer.out) == (1, "")
        assert reason in answer.err
        assert lab.json("configmap", "kept") == before
    finally:
        lab.ok("delete", "configmap", "kept")


def test_what_is_immutable_can_be_made_anew(lab: Lab) -> None:
    image = "curlimages/curl"
    lab.apply(POD.format(image=image))
    try:
        other = POD.format(image=image).replace("infinity", "1000s")
        assert lab.ok("replace", "--force", "-f", "-", stdin=other).endswith("pod/anew replaced\n")
    finally:
        lab.ok("delete", "pod", "anew", "--grace-period=1")


def test_files_with_a_protected_object_delete_nothing(lab: Lab) -> None:
    lab.apply(CONFIG)
    try:
        own = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: default}\n"
        answer = lab.run("delete", "-f", "-", stdin=f"{CONFIG}---\n{own}")
        assert (answer.status, answer.out) == (1, "")
        assert 'serviceaccounts "default" can\'t be deleted' in answer.err
    finally:
        assert lab.ok("delete", "configmap", "kept").startswith('configmap "kept" deleted')


def test_a_pod_of_a_workload_that_is_applied_stays_one_pod(lab: Lab) -> None:
    pods = lab.ready("app=message-service", 2)
    name = pods[0]["metadata"]["name"]
    lab.ok("label", "pod", name, "kept=yes")
    text = lab.ok("get", "pod", name, "-o", "yaml").replace("kept: 'yes'", "other: 'yes'")
    assert "other" in text
    assert lab.ok("apply", "-f", "-", stdin=text) == f"pod/{name} configured\n"
    assert lab.ok("apply", "-f", "-", stdin=text) == f"pod/{name} unchanged\n"
    (pod,) = lab.ready("kept=yes,other=yes", 1)
    assert pod["metadata"]["ownerReferences"]
    lab.ok("delete", "pod", name)
    assert name not in [one["metadata"]["name"] for one in lab.ready("app=message-service", 2)]


def test_an_object_is_created_once(lab: Lab) -> None:
    answer = lab.run("create", "-f", "-", stdin=f"{CONFIG}---\n{CONFIG}")
    lab.ok("delete", "configmap", "kept")
    assert answer.out == "configmap/kept created\n"
    assert answer.err == (
        'Error from server (AlreadyExists): error when creating "STDIN": configmaps "kept" already '
        "exists\n"
    )


def test_apply_after_a_change_by_hand(lab: Lab, workload: str) -> None:
    """As docs/differences.md says: labels stay, another field is the manifest's."""
    lab.ok("set", "env", workload, "EXTRA=1")
    lab.ok("label", workload, "by=hand")
    lab.ok("apply", "-f", str(SMALL))
    assert "EXTRA" not in lab.ok("set", "env", workload, "--list")
    assert lab.json(workload)["metadata"]["labels"]["by"] == "hand"
    lab.ok("label", workload, "by-")


def test_what_get_prints_can_be_replaced(lab: Lab, workload: str) -> None:
    for name in ("pod/curl", "svc/message-service", workload):
        text = lab.ok("get", name, "-o", "yaml")
        assert lab.ok("replace", "-f", "-", stdin=text).endswith(" replaced\n")
    ready = [pod["metadata"]["name"] for pod in lab.ready("app=message-service", 2)]
    text = lab.ok("get", workload, "-o", "yaml").replace("replicas: 2", "replicas: 1", 1)
    lab.ok("replace", "-f", "-", stdin=text)
    (left,) = lab.ready("app=message-service", 1)
    assert left["metadata"]["name"] in ready
