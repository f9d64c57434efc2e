"""reset: the objects of a new lab, with the messages of this one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from lab.cli.client import Client
from lab.cli.context import client
from lab.cli.manifests import errors
from lab.cli.output import write
from lab.cli.up import BASELINE, MESH_BASELINE

if TYPE_CHECKING:
    from lab.cli.manifests import Texts
    from lab.cli.output import Json

KEPT = ("mysql-credentials",)
"""Secrets that the lab made itself."""


def reset(context: typer.Context) -> None:
    """Bring back the objects of a new lab, and pods that behave; the messages stay.

    Everything else is deleted: rules, policies, pods, namespaces of your own.

    Example:
      guestbook reset
    """
    lab = client(context)
    files = _baseline(lab)
    for item in _others(lab, files):
        metadata = item["metadata"]
        where = metadata.get("namespace", "")
        # The change of all is waited for once, by `apply`; only a namespace takes its time.
        wait = item["kind"] == "Namespace"
        query = {"kind": _kind(item), "namespace": where, "names": [metadata["name"]]}
        for line in lab.call("delete", **query, wait=wait):
            write(line)
    answer = lab.call("apply", files=files)
    for name, verb in answer["results"]:
        if verb != "unchanged":
            write(f"{name} {verb}")
    _drop_labels(lab)
    lab.call("delete", kind="pods", namespace="default", selector="app=message-service", wait=False)
    write("The lab is as it was when it was new; pods that are not ready yet are on their way")


def _kind(item: Json) -> str:
    group = item["apiVersion"].rpartition("/")[0]
    return f"{item['kind'].lower()}.{group}".rstrip(".")


def _baseline(lab: Client) -> Texts:
    """Returns the manifests that the lab applied when it was new."""
    from lab import versions
    from lab.cluster import supervisor
    from lab.cluster.state import repository
    from lab.manifests.read import read

    builtin = Path(supervisor.__file__).parent
    texts: Texts = []
    for note, own, usual in (
        ("filled", "builtin.yaml", BASELINE),
        ("meshed", "gateway.yaml", MESH_BASELINE),
    ):
        if not (lab.folder / note).exists():
            continue
        text = (builtin / own).read_text().replace("$ISTIO_VERSION", versions.istio())
        texts.append((f"(built in) {own}", text))
        noted = (lab.folder / note).read_text(encoding="utf-8")
        # A lab of an earlier version has noted nothing.
        names = (
            noted.strip().splitlines() if noted else [str(repository() / name) for name in usual]
        )
        with errors():
            texts += [text for name in names for text in read(name)]
    return texts


def _others(lab: Client, files: Texts) -> list[Json]:
    """Returns the objects that are not of the baseline: Istio's first, namespaces last."""
    from lab.kinds.kubernetes.endpoints import MANAGED_BY
    from lab.manifests import registry
    from lab.manifests.load import parse

    with errors():
        resources = parse(files).resources
    wanted = {(item.kind, item.namespace, item.name) for item in resources}
    found: list[Json] = lab.call(
        "objects", kinds=[kind.plural for kind in registry.KINDS], namespace=None
    )["items"]
    return sorted(
        (
            item
            for item in found
            if "ownerReferences" not in item["metadata"]
            and MANAGED_BY.get(item["kind"]) not in item["metadata"].get("labels", {})
            and (item["kind"], item["metadata"].get("namespace", ""), item["metadata"]["name"])
            not in wanted
            and not (item["kind"] == "Secret" and item["metadata"]["name"] in KEPT)
            and not (item["kind"] == "ServiceAccount" and item["metadata"]["name"] == "default")
        ),
        key=lambda item: (item["kind"] == "Namespace", ".istio.io/" not in item["apiVersion"]),
    )


def _drop_labels(lab: Client) -> None:
    """Takes the labels of the namespace `default` back to those of a new lab."""
    (found,) = lab.call("objects", kinds=["ns"], namespace=None, names=["default"])["items"]
    meshed = (lab.folder / "meshed").exists()
    wanted = {"istio-injection": "enabled"} if meshed else {}
    others = dict.fromkeys(set(found["metadata"].get("labels") or {}) - set(wanted))
    lab.call(
        "change",
        field="labels",
        kind="ns",
        namespace="",
        names=["default"],
        values=others | wanted,
        overwrite=True,
    )
