"""Findings of istioctl's analyzers: `python -m tests.istiod.analyses ISTIOD` records them.

ISTIOD is the program of `scripts/istiod`. It is asked about each file of `tests/lab/explain/faults`
on the mesh of the first lessons, with the pods that the lab has for both.
"""

from __future__ import annotations

import base64
import copy
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from lab.cluster import snapshots
from lab.manifests import load
from lab.model import Pod, Snapshot
from lab.resources.resource import Resource
from tests.support.repository import MESH, ROOT

FAULTS = ROOT / "tests/lab/explain/faults"
RECORDED = Path(__file__).with_name("analyses.json")
GATEWAY = ROOT / "lab/cluster/gateway.yaml"
SKIPPED = ("Pod", "StatefulSet", "ConfigMap", "IstioOperator")
"""Kinds that no analyzer reads, and those that come from the snapshot."""

Finding = tuple[str, str, str]
"""A code, the object, the text."""


def resources(name: str) -> tuple[Resource, ...]:
    files = [*map(str, MESH), str(GATEWAY), str(FAULTS / f"{name}.yaml")]
    return load.load(files, running=False).resources


def recorded() -> dict[str, list[Finding]]:
    """Returns what istioctl finds in each file."""
    found: dict[str, list[Finding]] = json.loads(RECORDED.read_text(encoding="utf-8"))
    return {name: [(one[0], one[1], one[2]) for one in items] for name, items in found.items()}


def _cluster(found: tuple[Resource, ...], snapshot: Snapshot) -> Iterator[dict[str, Any]]:
    """Yields the objects of a cluster with these resources, as its API server has them."""
    for item in found:
        if item.kind not in SKIPPED:
            yield _defaulted(item)
    yield from map(_pod, snapshot.pods)
    named = {item.name for item in found if item.kind == "Namespace"}
    for name in sorted({item.namespace for item in found} - {"", *named}):
        labels = {} if name == "istio-system" else {"istio-injection": "enabled"}
        metadata = {"name": name, "labels": labels}
        yield {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def _defaulted(item: Resource) -> dict[str, Any]:
    document = copy.deepcopy(dict(item.raw))
    if item.namespace:
        document["metadata"]["namespace"] = item.namespace
    if item.kind == "Service":
        for port in document["spec"].get("ports", ()):
            port.update({"protocol": "TCP", "targetPort": port["port"]} | port)
    if item.kind == "Secret":
        text = document.pop("stringData", {}).items()
        data = {key: base64.b64encode(value.encode()).decode() for key, value in text}
        document["data"] = document.get("data", {}) | data
    return document


def _pod(pod: Pod) -> dict[str, Any]:
    names = ["application", *(["istio-proxy"] if pod.proxy != "none" else [])]
    metadata = {
        "name": pod.name,
        "namespace": pod.namespace,
        "labels": dict(pod.labels),
        "annotations": dict(pod.annotations),
    }
    containers = [{"name": name, "image": name} for name in names]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": containers},
    }


def ask(program: str, name: str) -> list[Finding]:
    """Returns what istioctl finds in a file."""
    found = resources(name)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "cluster.yaml"
        documents = _cluster(found, snapshots.snapshot(found))
        file.write_text(yaml.safe_dump_all(documents), encoding="utf-8")
        answer = subprocess.run(
            [program, "analyze", str(file)], capture_output=True, check=True, text=True
        )
    # The analyzers write logs there too.
    lines = [json.loads(line) for line in answer.stdout.splitlines() if line.startswith("{")]
    return sorted({(line["code"], line["origin"], line["message"]) for line in lines})


def main(program: str) -> None:
    found = {file.stem: ask(program, file.stem) for file in sorted(FAULTS.glob("*.yaml"))}
    text = json.dumps(found, indent=1, ensure_ascii=False)
    RECORDED.write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
