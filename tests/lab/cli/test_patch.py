"""patch, against a running lab."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.lab import SMALL, Lab

RULE = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: told}
spec:
  hosts: [message-service]
  http:
  - name: all
    route: [{destination: {host: message-service}}]
    timeout: 3s
"""
TOLD = "virtualservice.networking.istio.io/told"


@pytest.fixture
def rule(lab: Lab, tmp_path: Path) -> Iterator[Path]:
    """The file of a VirtualService that is applied."""
    file = tmp_path / "rule.yaml"
    file.write_text(RULE)
    lab.ok("apply", "-f", str(file))
    yield file
    lab.ok("delete", "vs", "told", "--ignore-not-found")


def test_a_patched_rule_is_in_force_and_keeps_its_lines(lab: Lab, rule: Path) -> None:
    change = json.dumps([{"op": "replace", "path": "/spec/http/0/timeout", "value": "6s"}])
    words = ("patch", "vs/told", "--type=json", "-p", change)
    assert lab.ok(*words, "--dry-run=server") == f"{TOLD} patched (server dry run)\n"
    assert lab.json("vs", "told")["spec"]["http"][0]["timeout"] == "3s"
    assert lab.ok(*words) == f"{TOLD} patched\n"
    assert lab.ok(*words) == f"{TOLD} patched (no change)\n"
    told = lab.ok("route", "--from", "curl", "http://message-service/hello/x")
    assert f"timeout          6s for all tries together  {rule} (patched):10\n" in told
    assert lab.ok("apply", "-f", str(rule)) == f"{TOLD} configured\n"


def test_a_merge_patch_of_a_file_in_yaml(lab: Lab, rule: Path, tmp_path: Path) -> None:
    file = tmp_path / "patch.yaml"
    file.write_text("metadata: {labels: {team: red}}\nspec: {hosts: [message-service, other]}\n")
    words = ("patch", "vs", "told", "--type", "merge", f"--patch-file={file}")
    shown = lab.ok(*words, "-o", "jsonpath={.spec.hosts}{.metadata.labels.team}")
    assert shown == '["message-service","other"]red\n'
    gone = '{"metadata": {"labels": {"team": null}}}'
    lab.ok("patch", "vs", "told", "--type", "merge", "-p", gone)
    assert "labels" not in lab.json("vs", "told")["metadata"]


def test_json_has_two_surrogates_for_an_emoji(lab: Lab, rule: Path) -> None:
    change = r'{"metadata": {"annotations": {"a": "\ud83d\ude00 \\ud83d\\ude00"}}}'
    lab.ok("patch", "vs", "told", "--type=merge", "-p", change)
    notes = lab.json("vs", "told")["metadata"]["annotations"]
    assert notes["a"] == "\U0001f600 \\ud83d\\ude00"
    for verb in ("label", "annotate"):
        assert lab.run(verb, "vs", "told", "a=\udcff").err == "Error: 'a=\\udcff' is not UTF-8\n"
    missing = lab.run("get", "vs", "a\udcff").err
    assert missing.startswith("Error from server (NotFound): ")


def test_a_strategic_patch_rolls_a_deployment(lab: Lab) -> None:
    container = '{"name": "message-service", "env": [{"name": "EXTRA", "value": "1"}]}'
    spec = f'{{"spec": {{"template": {{"spec": {{"containers": [{container}]}}}}}}}}'
    try:
        patched = lab.ok("patch", "deploy", "message-service", "-p", spec)
        assert patched == "deployment.apps/message-service patched\n"
        lab.ok("rollout", "status", "deploy/message-service", "--timeout=60s")
        pod = lab.ready("app=message-service", 2)[0]
        (one,) = pod["spec"]["containers"]
        assert [item["name"] for item in one["env"]][-2:] == ["DEMO_VERSION", "SHUTDOWN_DRAIN"]
        assert {"name": "EXTRA", "value": "1"} in one["env"]
        assert one["ports"]
        lab.ok("rollout", "undo", "deploy/message-service")
    finally:
        lab.ok("apply", "-f", str(SMALL))
        lab.ok("rollout", "status", "deploy/message-service", "--timeout=60s")
        lab.ready("app=message-service", 2)


def test_labels_of_pods_can_be_patched_and_their_specs_not(lab: Lab) -> None:
    owned = lab.ok("get", "pods", "-l", "app=message-service", "-o", "name").split()[0]
    for pod in ("pod/curl", owned):
        labels = '{"metadata": {"labels": {"patched": "yes"}}}'
        assert lab.ok("patch", pod, "-p", labels) == f"{pod} patched\n"
        assert lab.ok("get", "pod", "-l", "patched=yes", "-o", "name") == f"{pod}\n"
        lab.ok("patch", pod, "-p", labels.replace('"yes"', "null"))
        refused = lab.run("patch", pod, "-p", '{"spec": {"hostname": "other"}}')
        assert "a pod's spec can't be changed: delete the pod first" in refused.err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (
            ["-p", "{}"],
            "Error: application/strategic-merge-patch+json is not supported by "
            "networking.istio.io/v1, Kind=VirtualService: the body of the request was in an "
            "unknown format - accepted media types include: application/json-patch+json, "
            "application/merge-patch+json; try --type merge",
        ),
        ([], "Error: must specify --patch or --patch-file containing the contents of the patch"),
        (
            ["-p", "{}", "--patch-file=x"],
            "Error: cannot specify --patch and --patch-file together",
        ),
        (["-p", "{}", "--type=x"], 'Error: --type must be one of [json merge strategic], not "x"'),
        (
            ["--patch-file=none"],
            "Error: unable to read patch file: open none: no such file or directory",
        ),
        (["--type=merge", "-p", "{a"], 'Error: unable to parse "{a"'),
        (
            ["--type=merge", "-p", "# x"],
            'Error: unable to parse "# x": it has 0 documents, not one',
        ),
        (["--type=merge", "-p", "a: 1\n---\nb: 2"], 'Error: unable to parse "a: 1'),
        (
            ["--type=merge", "-p", '{"metadata": {"labels": {"a": "\udcff"}}}'],
            "Error: unable to parse the patch: it is not UTF-8",
        ),
        (
            ["--type=merge", "-p", '{"metadata": {"annotations": {"a": "b"}}}', "-o", "wide"],
            "Error: unable to match a printer suitable for the output format 'wide'",
        ),
        (
            ["--type=merge", "-p", '{"metadata": {"annotations": {"a": "b"}}}', "-o", "jsonpath={"],
            "Error: error parsing jsonpath {, unclosed action",
        ),
        (
            ["--type=merge", "-p", '{"spec": {"hostz": []}}'],
            "Error: (patch):1: VirtualService told: strict decoding error: unknown field "
            '"spec.hostz" (did you mean "hosts"?)',
        ),
        (
            ["--type=merge", "-p", '{"metadata": {"name": "other"}}'],
            "Error: a patch can't change the kind, the name or the namespace of an object",
        ),
        (
            ["--type=json", "-p", '[{"op": "remove", "path": "/spec/none"}]'],
            "Error: The request is invalid: error in remove for path: '/spec/none': Unable to "
            "remove nonexistent key: none",
        ),
    ],
)
def test_a_patch_that_is_refused(lab: Lab, rule: Path, words: list[str], reason: str) -> None:
    before = lab.json("vs", "told")
    answer = lab.run("patch", "vs", "told", *words)
    assert (answer.status, answer.out) == (1, "")
    assert answer.err.startswith(reason)
    assert lab.json("vs", "told") == before
    missing = lab.run("patch", "vs", "none", "--type=merge", "-p", "{}")
    assert missing.err == (
        'Error from server (NotFound): virtualservices.networking.istio.io "none" not found\n'
    )
