"""`guestbook analyze`: each fault of `faults/` is found on its line, and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from lab.cli import main
from lab.explain.analyze.analyze import analyze
from lab.explain.analyze.finding import CODES
from lab.model import Pod, Snapshot
from lab.resources.resource import Resource, Source
from tests.support import sample
from tests.support.lab import Lab
from tests.support.repository import MESH

FAULTS = sorted((Path(__file__).parent / "faults").glob("*.yaml"))
MARK = re.compile(r"\b(IST\d{4}|lab) (.*?)(?= IST\d{4} | lab |$)")


def marked(path: Path) -> Iterator[tuple[str, str, str]]:
    """The code, the place and a part of the text of each fault."""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        for code, text in MARK.findall(line.partition("  # ")[2]):
            yield code, f"{path}:{number}", text


@pytest.mark.parametrize("path", FAULTS, ids=lambda path: path.stem)
def test_a_fault_is_found_on_its_line(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [word for file in (*MESH, path) for word in ("-f", str(file))]
    expected = sorted(marked(path))
    assert main(["analyze", *files, "-o", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    shown = sorted((one["code"], one["reference"], one["message"]) for one in found)
    assert [one[:2] for one in shown] == [one[:2] for one in expected]
    for (_, _, message), (_, _, text) in zip(shown, expected, strict=True):
        assert text in message


def test_every_code_has_its_case() -> None:
    assert {code for path in FAULTS for code, _, _ in marked(path)} == set(CODES) - {"IST0103"}


def test_a_pod_that_was_there_before_the_label() -> None:
    labels = {"istio-injection": "enabled"}
    namespace = Resource("v1", "Namespace", "", "shop", None, Source("", 1), labels)
    pods = tuple(
        Pod("shop", name, wish, {}, "default", "127.77.0.1", "127.78.0.1", {}, True, "none")
        for name, wish in (("old", {}), ("without", {"sidecar.istio.io/inject": "false"}))
    )
    (found,) = analyze(Snapshot((), pods, {"Namespace": (namespace,)}))
    assert found.line() == (
        "Warning [IST0103] (Pod shop/old) The pod shop/old is missing the Istio proxy. "
        "This can often be resolved by restarting or redeploying the workload."
    )


def test_the_mesh_of_the_repository_has_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyze", "--use-kube=false", *map(str, MESH)]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("✔ No validation issues found when analyzing ")


MISSPELT = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: misspelt}
spec:
  hosts: [message-service]
  http:
  - route:
    - destination:
        host: mesage-service
"""
NOT_FOUND = 'Referenced host not found: "mesage-service" (there is message-service)'


def test_a_running_lab(lab: Lab, tmp_path: Path) -> None:
    """`apply` warns of it; `analyze` finds it, before it is applied and afterwards."""
    clean = "✔ No validation issues found when analyzing namespace: default.\n"
    assert lab.run("analyze").err == clean
    assert "all namespaces" in lab.run("analyze", "-A").err
    file = tmp_path / "misspelt.yaml"
    file.write_text(MISSPELT)
    line = f"Error [IST0101] (VirtualService default/misspelt {file}:10) {NOT_FOUND}\n"
    before = lab.run("analyze", str(file))
    assert (before.status, before.out) == (79, line)
    applied = lab.run("apply", "-f", str(file))
    try:
        assert applied.status == 0
        assert (
            applied.err == f"Warning: {file}:10: VirtualService misspelt: {NOT_FOUND} [IST0101]\n"
        )
        after = lab.run("analyze")
        assert (after.status, after.out) == (79, line)
        assert after.err == (
            "Error: Analyzers found issues when analyzing namespace: default.\n"
            "See https://istio.io/v1.31/docs/reference/config/analysis for more information about "
            "causes and resolutions.\n"
        )
        assert lab.run("analyze", "-n", "istio-system").err.startswith("✔")
        assert lab.run("analyze", "-n", "nowhere").err == 'namespace "nowhere" not found\n'
    finally:
        lab.ok("delete", "-f", str(file))
    assert lab.run("analyze").err == clean


@pytest.mark.parametrize(
    ("hosts", "gateways", "hint"),
    [
        ("[message-service, mesage-service]", "[mesh]", " (there is message-service)"),
        (
            "[message-service.defualt.svc.cluster.local]",
            "[mesh]",
            " (there is message-service.default.svc.cluster.local)",
        ),
        ("[mesage-service]", "[guestbook-ui-gateway]", ""),
        ("[example.org]", "[mesh]", ""),
        ("[Message-Service]", "[mesh]", ""),
        ("[message-service.default, '*.default.svc.cluster.local']", "[mesh]", ""),
    ],
)
def test_a_host_that_nobody_has_is_said_where_another_is_called_nearly_so(
    lab: Lab, hosts: str, gateways: str, hint: str
) -> None:
    rule = MISSPELT.replace("mesage-service", "message-service")
    rule = re.sub(r"hosts: .*", f"hosts: {hosts}\n  gateways: {gateways}", rule)
    answer = lab.run("apply", "-f", "-", stdin=rule)
    lab.ok("delete", "virtualservice", "misspelt")
    told = [line for line in answer.err.splitlines() if "no Service or ServiceEntry has" in line]
    assert len(told) == bool(hint)
    assert all(f"{hint}: no request meets the rules" in line for line in told)


def test_apply_tells_a_conflict_of_mutual_tls_whichever_side_comes_last(lab: Lab) -> None:
    strict, plain, *_ = FAULT.read_text().split("---\n")
    try:
        for first, last in ((strict, plain), (plain, strict)):
            assert lab.run("apply", "-f", "-", stdin=first).err == ""
            told = lab.run("apply", "-f", "-", stdin=last).err
            place = "-:" if last == plain else "destinationrule/plain.default:spec.trafficPolicy"
            assert told.startswith(f"Warning: {place}")
            assert "default/plain sends plain text, but PeerAuthentication default/strict" in told
            lab.ok("delete", "-f", "-", stdin=first)
            lab.ok("delete", "-f", "-", stdin=last)
    finally:
        lab.run("delete", "-f", "-", stdin=f"{strict}---\n{plain}")


FAULT = Path(__file__).parent / "faults/mutual-tls.yaml"


SUBSETS = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: subsets}
spec: {host: message-service, subsets: [%s]}
"""


@pytest.mark.parametrize(
    ("subsets", "warned"),
    [
        ("{name: v1, labels: {version: v1}}", ["v1"]),
        ("{name: v1, labels: {vesion: '1.0'}}, {name: v2, labels: {version: '1.0'}}", ["v1"]),
        # A subset comes before its pods.
        ("{name: v1, labels: {version: '1.0'}}, {name: v2, labels: {version: '2.0'}}", []),
    ],
)
def test_a_subset_is_said_at_apply_to_select_no_pod_where_that_is_certain(
    lab: Lab, subsets: str, warned: list[str]
) -> None:
    answer = lab.run("apply", "-f", "-", stdin=SUBSETS % subsets)
    lab.ok("delete", "destinationrule", "subsets")
    assert re.findall(r"The Subset (\w+) .*select any pods.*\[IST0173\]", answer.err) == warned


ENTRY = """
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: outside}
spec: {address: 192.0.2.1, labels: {app: server, version: "3.0"}}
---
"""
RULE = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: server}
spec: {host: server, subsets: [{name: one, labels: {%s}}]}
"""


@pytest.mark.parametrize("labels", ["topology.kubernetes.io/region: us", 'version: "3.0"'])
def test_a_subset_of_endpoints_is_no_certain_fault(labels: str) -> None:
    mesh = sample.with_manifests(ENTRY + RULE % labels)
    pods = (replace(one, labels={**one.labels, "istio-locality": "us.a"}) for one in mesh.pods)
    (found,) = analyze(replace(mesh, pods=tuple(pods)))
    assert (found.code, found.certain) == ("IST0173", False)
    assert found.text.endswith("(endpoints of server have the labels, but no pod's own)")


def test_pods_that_come_with_their_policy_are_no_fault(lab: Lab) -> None:
    both = """
apiVersion: v1
kind: Pod
metadata: {name: newcomer, labels: {app: newcomer}}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: curl, image: "curlimages/curl:8.16.0", command: [sleep, infinity]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: newcomer}
spec: {selector: {matchLabels: {app: newcomer}}}
"""
    answer = lab.run("apply", "-f", "-", stdin=both)
    try:
        assert (answer.status, answer.err) == (0, "")
    finally:
        lab.ok("delete", "-f", "-", stdin=both)


def test_files_of_both_kinds_are_refused_with_the_two_forms(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["analyze", "a.yaml", "-f", "b.yaml"]) == 1
    said = capsys.readouterr().err
    assert "guestbook analyze FILE..." in said
    assert "guestbook analyze -f FILE" in said


WARNED = """
apiVersion: v1
kind: Namespace
metadata: {name: unlabelled}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: unknown%s}
spec: {host: unknown}
"""


@pytest.mark.parametrize(
    ("options", "annotation", "codes", "status"),
    [
        ([], "", ["IST0174", "IST0102"], 0),
        (["--failure-threshold=Warning"], "", ["IST0174", "IST0102"], 79),
        (["--output-threshold=warning"], "", ["IST0174"], 0),
        (["--output-threshold", "error", "--failure-threshold", "info"], "", [], 79),
        (["-n", "shop"], "", ["IST0174"], 0),
        (["-n", "unlabelled"], "", ["IST0174", "IST0102"], 0),
        (["-A", "-n", "shop"], "", ["IST0174", "IST0102"], 0),
        (["-S", "IST0102=Namespace unl*"], "", ["IST0174"], 0),
        (["-S", "IST0174=DestinationRule default/unknown"], "", ["IST0102"], 0),
        (["-S", "IST0174=DestinationRule *.default"], "", ["IST0102"], 0),
        (["-S", "IST0174=DestinationRule *.shop"], "", ["IST0174", "IST0102"], 0),
        ([], "IST0101,IST0174", ["IST0102"], 0),
        ([], "*", ["IST0102"], 0),
        ([], "IST0102", ["IST0174", "IST0102"], 0),
    ],
)
def test_findings_are_left_out_and_counted_as_by_istioctl(
    options: list[str],
    annotation: str,
    codes: list[str],
    status: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    note = f', annotations: {{galley.istio.io/analyze-suppress: "{annotation}"}}'
    folder = tmp_path / "below"
    folder.mkdir()
    (folder / "values.yaml").write_text("replicas: 2")
    (folder / "manifest.yaml").write_text(WARNED % (note if annotation else ""))
    assert main(["analyze", "--use-kube=false", *options, str(tmp_path)]) == status
    assert re.findall(r"IST\d+", capsys.readouterr().out) == codes


def test_findings_as_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "manifest.yaml"
    file.write_text(WARNED % "")
    main(["analyze", "-f", str(file), "-o", "json", "--failure-threshold=info"])
    found = json.loads(capsys.readouterr().out)
    assert found[1] == {
        "code": "IST0102",
        "documentationUrl": "https://istio.io/v1.31/docs/reference/config/analysis/ist0102/"
        "?ref=istioctl-analyze",
        "level": "Info",
        "message": found[1]["message"],
        "origin": "Namespace unlabelled",
        "reference": f"{file}:4",
    }
    main(["analyze", "-f", str(file), "-o", "yaml"])
    assert yaml.safe_load(capsys.readouterr().out) == found
    main(["analyze", "-f", str(file), "--color"])
    assert capsys.readouterr().out.startswith("\033[33mWarning\033[0m [IST0174] (DestinationRule ")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["-o", "xml"], "xml not a valid option for format"),
        (["-S", "IST0102"], "IST0102 is not a valid suppression value"),
        (["-S", "IST9=Pod a"], "Supplied message code 'IST9' is an unknown message code"),
        (["--failure-threshold", "fatal"], "invalid level option fatal"),
        (["-L"], "--list-analyzers is not in the lab"),
        (["-R"], "--recursive is not in the lab"),
        (["--analyzer", "a"], "--analyzer is not in the lab"),
        (["--meshConfigFile", "a"], "--meshConfigFile is not in the lab"),
    ],
)
def test_options_that_are_not_taken(
    options: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["analyze", "-f", str(MESH[0]), *options])
    assert reason in capsys.readouterr().err
