"""Placements change where a proxy is, and keep what it needs."""

from __future__ import annotations

import pytest

from lab.envoy import secrets, translate
from lab.istiod.placement import LOOPBACK, PODS, Placement
from tests.istiod.scenarios import all_scenarios


def test_a_gateway_in_a_pod_of_its_own_keeps_its_certificates() -> None:
    snapshot = all_scenarios()["gateway-tls"].snapshot()
    gateway = next(pod for pod in snapshot.pods if pod.proxy == "gateway")
    config = translate.proxy_config(snapshot, gateway)
    assert config.secrets
    placed = PODS.config(config, gateway)
    assert secrets.listeners(placed) == secrets.listeners(config)


@pytest.mark.parametrize(("placement", "warned"), [(LOOPBACK, 2), (PODS, 0)])
def test_a_listener_with_its_own_socket_is_elsewhere_on_the_loopback(
    placement: Placement, warned: int
) -> None:
    snapshot = all_scenarios()["sidecar-ingress-endpoints"].snapshot()
    (sidecar,) = snapshot.of("Sidecar")
    assert len(list(placement.limits(sidecar, snapshot))) == warned
