"""Steps of a destination: what its DestinationRule says, with the places."""

from __future__ import annotations

import pytest

from lab.explain import request
from tests.support import sample

RULE = """apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: server}
spec:
  host: server
  trafficPolicy:
    %s
"""


@pytest.mark.parametrize(
    ("policy", "step"),
    [
        ("proxyProtocol: {}", ("PROXY protocol", "version V1")),
        (
            "tunnel: {targetHost: a.example, targetPort: 443}",
            ("tunnel", "CONNECT a.example:443, for connections without HTTP"),
        ),
    ],
)
def test_a_policy_is_told_with_its_value_and_line(policy: str, step: tuple[str, str]) -> None:
    mesh = sample.with_manifests(RULE % policy)
    client = next(pod for pod in mesh.pods if pod.name == "client-1")
    (target,) = request.explain(mesh, client, "GET", "http://server/").targets
    lines = (sample.SECRET + RULE).splitlines()
    line = 1 + lines.index("    %s")
    assert [(one.what, one.says, one.place) for one in target.steps[:1]] == [
        (*step, f"test.yaml:{line}")
    ]
