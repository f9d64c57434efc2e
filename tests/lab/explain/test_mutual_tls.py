"""Conflicts of mutual TLS between the clients and the servers of a mesh."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from lab.explain.analyze.mutual_tls import conflicts
from lab.model import Snapshot
from tests.support import sample

RULE = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: s%(number)d}
spec:
  host: s%(number)d
  trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}
  subsets: [{name: v1, labels: {version: "1.0"}}]
"""


def test_many_workloads_are_looked_through_at_once() -> None:
    apps = [f"s{number}" for number in range(100)]
    mesh = sample.with_manifests("---".join(RULE % {"number": i} for i in range(len(apps))))
    pods = tuple(sample.pod(number, app, "1.0") for number, app in enumerate(apps))
    services = tuple(sample.service(number, app) for number, app in enumerate(apps))
    begun = time.process_time()
    assert list(conflicts(replace(mesh, pods=pods, services=services))) == []
    assert time.process_time() - begun < 2


STRICT = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict}
spec: {mtls: {mode: STRICT}}
---
"""
EXTERNAL = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: external}
spec:
  hosts: [a.example]
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}]
  resolution: STATIC
  workloadSelector: {labels: {app: server}}
"""
PASSES = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: server}
spec: {host: server, trafficPolicy: {loadBalancer: {simple: PASSTHROUGH}}}
"""


def mixed(text: str) -> Snapshot:
    """A mesh in which one of the two pods of `server` has no sidecar."""
    mesh = sample.with_manifests(text)
    pods = (replace(one, proxy="none") if one.name == "server-3" else one for one in mesh.pods)
    return replace(mesh, pods=tuple(pods))


def headless(mesh: Snapshot) -> Snapshot:
    return replace(
        mesh,
        services=tuple(
            replace(one, cluster_ip=None) if one.name == "server" else one for one in mesh.services
        ),
    )


SERVER = "server.default.svc.cluster.local"


@pytest.mark.parametrize(
    ("mesh", "cause"),
    [
        (sample.with_manifests(STRICT + EXTERNAL), "a.example is MESH_EXTERNAL"),
        (
            headless(mixed(STRICT)),
            f"{SERVER} is headless and not all its endpoints have a sidecar",
        ),
        (
            mixed(STRICT + PASSES),
            f"{SERVER} is reached by the address that a client asks for and not all its "
            "endpoints have a sidecar",
        ),
    ],
    ids=["external", "headless", "passthrough"],
)
def test_the_cause_of_plain_text_without_a_rule_is_told(mesh: Snapshot, cause: str) -> None:
    (told,) = {one.text for one in conflicts(mesh)}
    assert f"{cause}, so that a client without tls in a rule sends plain text, but" in told
    assert "strict is DISABLE" not in told


PLAIN = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: server}
spec:
  host: server
  subsets: [{name: v2, labels: {version: "2.0"}, trafficPolicy: {tls: {mode: DISABLE}}}]
"""
MUTUAL = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: server}
spec: {host: server, trafficPolicy: {tls: {mode: %s}}}
"""


@pytest.mark.parametrize(
    ("mesh", "requests"),
    [
        (sample.with_manifests(STRICT + MUTUAL % "DISABLE"), f"Requests to {SERVER} fail: "),
        (sample.with_manifests(STRICT + PLAIN), f"Requests to subset v2 of {SERVER} fail: "),
        (mixed(MUTUAL % "ISTIO_MUTUAL"), f"Some requests to {SERVER} fail: "),
    ],
    ids=["all", "subset", "some"],
)
def test_the_requests_that_fail_are_told(mesh: Snapshot, requests: str) -> None:
    (told,) = conflicts(mesh)
    assert told.text.startswith(requests)
