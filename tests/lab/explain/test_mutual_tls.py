"""Conflicts of mutual TLS between the clients and the servers of a mesh."""

from __future__ import annotations

import time
from dataclasses import replace

from lab.explain.analyze.mutual_tls import conflicts
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
