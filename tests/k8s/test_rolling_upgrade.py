"""A rollout of a new ui under load loses no request.

What Kubernetes does to a pod is done here to processes behind a real Envoy: the new one is started
and waited for, the old one leaves the endpoints, keeps serving until nobody chooses it (preStop),
gets SIGTERM, and ends by itself. See docs/upgrades.md for the same with Kubernetes' own times.
"""

from __future__ import annotations

import signal
from pathlib import Path

import httpx
import pytest

from tests.k8s.balancer import Balancer, balancer
from tests.support.guestbook import Guestbook
from tests.support.service import Service
from tests.support.visitors import Visitors
from tests.support.wait import wait


def _more_pages(visitors: Visitors, version: str, count: int = 20) -> None:
    before = visitors.versions[version]
    wait(lambda: visitors.versions[version] >= before + count, f"pages of {version}", 60)


def _roll_out(guestbook: Guestbook, front: Balancer, pods: list[Service]) -> None:
    """`kubectl set image deployment/ui …` with maxSurge 1 and maxUnavailable 0."""
    for old in list(pods):
        new = guestbook.start_ui(DEMO_VERSION="2.0")
        assert httpx.get(f"{new.management}/actuator/health/readiness").status_code == 200
        pods.append(new)
        front.route_to(pod.url for pod in pods)
        pods.remove(old)
        front.route_to(pod.url for pod in pods)
        old.signal(signal.SIGTERM)
        assert old.wait() == 0


def test_a_rollout_loses_no_request(tmp_path: Path) -> None:
    with Guestbook(tmp_path) as guestbook, balancer(tmp_path) as front:
        pods = [guestbook.start_ui(DEMO_VERSION="1.0") for _ in range(2)]
        front.route_to(pod.url for pod in pods)
        # Slow enough that every pod is always in the middle of some pages.
        httpx.get(f"{guestbook.message.url}/misbehave", params={"status": "200", "delay": "0.2"})
        with Visitors(front.url, count=4) as visitors:
            _more_pages(visitors, "1.0")
            _roll_out(guestbook, front, pods)
            _more_pages(visitors, "2.0")
        assert visitors.failures == 0
        assert set(visitors.versions) == {"1.0", "2.0"}


def test_a_pod_that_is_killed_does_lose_requests(tmp_path: Path) -> None:
    """The visitors would notice: without this, the test above could not fail."""
    with Guestbook(tmp_path) as guestbook, balancer(tmp_path) as front:
        pods = [guestbook.start_ui(DEMO_VERSION="1.0") for _ in range(2)]
        front.route_to(pod.url for pod in pods)
        with Visitors(front.url, count=4) as visitors:
            _more_pages(visitors, "1.0")
            pods[0].kill()
            wait(lambda: visitors.failures, "a failure")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_ui_ends_with_status_0(tmp_path: Path, number: signal.Signals) -> None:
    with Guestbook(tmp_path) as guestbook:
        ui = guestbook.start_ui()
        ui.signal(number)
        assert ui.wait() == 0
