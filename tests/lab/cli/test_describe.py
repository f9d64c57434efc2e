"""The forms of `describe`, beside those of kubectl's own describers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from lab.cli.describe_kinds import WITHOUT_EVENTS, described
from lab.cli.describe_lines import aligned
from tests.support.lab import Lab

FOLDER = Path(__file__).with_name("described")

OBJECTS: list[Any] = json.loads((FOLDER / "objects.json").read_text())["items"]
"""Objects of a lab, with what an API server adds to Services and owners."""

KUBECTL = dict(
    re.findall(
        r"^=== (.*)\n((?:(?!=== ).*\n)*)", (FOLDER / "kubectl.txt").read_text(), re.MULTILINE
    )
)
"""The answers of k8s.io/kubectl/pkg/describe 0.34.4 about them, with the server's defaults."""


def name_of(item: Any) -> str:
    metadata = item["metadata"]
    return f"{item['kind']} {metadata.get('namespace', '')} {metadata['name']}"


SHOWN = [item for item in OBJECTS if item["kind"] != "EndpointSlice"]


@pytest.mark.parametrize("item", SHOWN, ids=name_of)
def test_an_object_is_described_as_kubectl_does(item: Any) -> None:
    own = (item["kind"], item["metadata"]["name"])
    if item["kind"] == "Service":
        parts = [
            other
            for other in OBJECTS
            if other["metadata"].get("labels", {}).get("kubernetes.io/service-name") == own[1]
        ]
    else:
        parts = [
            other
            for other in OBJECTS
            if own in [(o["kind"], o["name"]) for o in other["metadata"].get("ownerReferences", ())]
        ]
    lines = described(item, parts)
    if item["kind"] not in (*WITHOUT_EVENTS, "Namespace"):  # Recorded without an event.
        lines.append("Events:\t<none>")
    assert aligned(lines) + "\n" == KUBECTL[name_of(item)]


def test_a_rule_of_istio_is_described_field_by_field(lab: Lab) -> None:
    lab.apply(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: told}\n"
        "spec: {hosts: [a], http: [{route: [{destination: {host: a}, weight: 7}]}]}\n"
    )
    try:
        text = lab.ok("describe", "vs", "told")
    finally:
        lab.ok("delete", "vs", "told")
    assert re.sub(r"\n  (Creation Timestamp|UID): .*", "", text) == (
        "Name:         told\nNamespace:    default\nLabels:       <none>\n"
        "Annotations:  <none>\nAPI Version:  networking.istio.io/v1\nKind:         VirtualService\n"
        "Metadata:\n  Generation:          1\n"
        "Spec:\n  Hosts:\n    a\n  Http:\n    Route:\n      Destination:\n        Host:  a\n"
        "      Weight:  7\nEvents:        <none>\n"
    )


def test_a_deployment_knows_its_replica_sets(lab: Lab) -> None:
    name = lab.json("rs", "-l", "app=message-service")["items"][0]["metadata"]["name"]
    lines = lab.ok("describe", "deploy", "message-service").splitlines()
    assert any(
        re.match(rf"NewReplicaSet: +{name} \(2/2 replicas created\)", line) for line in lines
    )
    assert lab.run("describe", "vs").err == "No resources found in default namespace.\n"
