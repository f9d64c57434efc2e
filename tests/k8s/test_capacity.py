"""The autoscalers' maxima fit the nodes of docs/gke.md and the connections of MySQL."""

from __future__ import annotations

import re

from services.guestbook.database import MAINTENANCE_CONNECTIONS, POOL_SIZE
from tests.k8s.manifests import K8S, Manifest, kustomize, pods
from tests.support.repository import ROOT

ALLOCATABLE = {"e2-standard-2": 1930}
"""Millicores of a node that GKE leaves to pods: of the first core 94 %, of the second 99 %."""
SYSTEM = 500
"""Millicores of a node for the pods of kube-system (docs/scaling.md)."""
SIDECAR = 10
"""Millicores that a sidecar of the profile demo asks for."""
ADD_ONS = 100
"""Millicores for Istio itself and for the add-ons that ask for any."""


def millicores(quantity: str | int) -> int:
    text = str(quantity)
    return int(text.removesuffix("m")) if text.endswith("m") else int(float(text) * 1000)


def gke() -> list[Manifest]:
    return kustomize(K8S / "overlays/gke")


def maxima() -> dict[str, int]:
    found = [m for m in gke() if m["kind"] == "HorizontalPodAutoscaler"]
    return {m["spec"]["scaleTargetRef"]["name"]: m["spec"]["maxReplicas"] for m in found}


def most_pods(name: str) -> int:
    """Returns how many pods there are at most, in the middle of a rollout."""
    (deployment,) = (
        m for m in gke() if m["kind"] == "Deployment" and m["metadata"]["name"] == name
    )
    return maxima()[name] + int(deployment["spec"]["strategy"]["rollingUpdate"]["maxSurge"])


def max_connections() -> int:
    (container,) = dict(pods(gke()))["mysql"]["spec"]["containers"]
    (limit,) = (a.partition("=")[2] for a in container["args"] if "--max-connections" in a)
    return int(limit)


def test_every_guestbook_pod_gets_its_connections() -> None:
    each = POOL_SIZE + MAINTENANCE_CONNECTIONS
    assert most_pods("guestbook-service") * each <= max_connections()


def test_scaling_says_how_many_pods_mysql_has_connections_for() -> None:
    each = POOL_SIZE + MAINTENANCE_CONNECTIONS
    said = " ".join((ROOT / "docs/scaling.md").read_text().split())
    assert (
        f"{max_connections()} connections are enough for {max_connections() // each} pods" in said
    )


def test_all_pods_fit_the_documented_nodes() -> None:
    page = (ROOT / "docs/gke.md").read_text()
    (found,) = re.findall(r"--num-nodes (\d+) --machine-type (\S+)", page)
    room = int(found[0]) * (ALLOCATABLE[found[1]] - SYSTEM) - ADD_ONS
    asked = 0
    for name, pod in pods(gke()):
        each = SIDECAR + sum(
            millicores(c["resources"]["requests"]["cpu"]) for c in pod["spec"]["containers"]
        )
        asked += each * maxima().get(name, 1)
    # A rollout at the same time, of one Deployment.
    asked += 300 + SIDECAR
    assert asked <= room
