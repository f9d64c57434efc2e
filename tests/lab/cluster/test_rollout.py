"""A simulation of the Deployment controller: it never breaks a Deployment's promises."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.cluster.rollout import Replica, deployment_step, stateful_set_step
from lab.kinds.kubernetes.apps import DeploymentSpec, StatefulSetSpec, of_replicas

TEMPLATE = {
    "metadata": {"labels": {"app": "a"}},
    "spec": {"containers": [{"name": "c", "image": "curlimages/curl"}]},
}


def deployment(replicas: int, **strategy: object) -> DeploymentSpec:
    return DeploymentSpec.model_validate(
        {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "a"}},
            "template": TEMPLATE,
            "strategy": strategy,
        }
    )


@given(
    replicas=st.integers(0, 6),
    old=st.integers(0, 8),
    surge=st.integers(0, 3),
    unavailable=st.integers(0, 3),
    data=st.data(),
)
def test_a_rolling_update_ends_and_keeps_its_bounds(
    replicas: int, old: int, surge: int, unavailable: int, data: st.DataObject
) -> None:
    rolling = {"maxSurge": surge, "maxUnavailable": unavailable}
    spec = deployment(replicas, type="RollingUpdate", rollingUpdate=rolling)
    pods = [Replica(f"old-{n}", "old", True, False, n) for n in range(old)]
    allowed_missing = unavailable or (1 if surge == 0 else 0)
    count = 0
    for _ in range(100):
        step = deployment_step(spec, "new", pods)
        before = len(pods)
        pods = [pod for pod in pods if pod.name not in step.delete]
        for _ in range(step.create):
            count += 1
            pods.append(Replica(f"new-{count}", "new", False, False, 100 + count))
        assert len(pods) <= max(before, replicas + surge)
        ready = sum(pod.ready for pod in pods)
        assert ready >= min(replicas - allowed_missing, old)
        waiting = [pod for pod in pods if not pod.ready]
        if waiting:
            chosen = data.draw(st.sampled_from(waiting))
            pods = [replace(pod, ready=True) if pod is chosen else pod for pod in pods]
        elif not step.create and not step.delete:
            break
    assert [pod.template for pod in pods] == ["new"] * replicas


def test_recreate_waits_until_the_old_pods_are_gone() -> None:
    spec = deployment(1, type="Recreate")
    old = Replica("old", "old", True, False, 0)
    assert deployment_step(spec, "new", [old]).delete == ("old",)
    assert deployment_step(spec, "new", [replace(old, terminating=True)]).create == 0
    assert deployment_step(spec, "new", []).create == 1


def test_scaling_down_spares_the_ready_and_the_old() -> None:
    pods = [
        Replica("first", "t", True, False, 1),
        Replica("second", "t", True, False, 2),
        Replica("failing", "t", False, False, 0),
    ]
    assert set(deployment_step(deployment(1), "t", pods).delete) == {"failing", "second"}


@pytest.mark.parametrize(
    ("value", "up", "expected"),
    [("25%", True, 1), ("25%", False, 0), (2, True, 2), ("50%", True, 2)],
)
def test_percentages_round_as_in_kubernetes(value: int | str, up: bool, expected: int) -> None:
    assert of_replicas(value, 3, up=up) == expected


def stateful(replicas: int, policy: str = "OrderedReady") -> StatefulSetSpec:
    return StatefulSetSpec.model_validate(
        {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "a"}},
            "template": TEMPLATE,
            "podManagementPolicy": policy,
        }
    )


def test_a_stateful_set_goes_in_order() -> None:
    zero = Replica("s-0", "t", False, False, 0)
    assert stateful_set_step(stateful(3), "t", []) == ((0,), ())
    assert stateful_set_step(stateful(3), "t", [zero]) == ((), ())
    ready = replace(zero, ready=True)
    assert stateful_set_step(stateful(3), "t", [ready]) == ((1,), ())
    one = Replica("s-1", "t", True, False, 0)
    assert stateful_set_step(stateful(0), "t", [ready, one]) == ((), ("s-1",))
    assert stateful_set_step(stateful(3, "Parallel"), "t", []) == ((0, 1, 2), ())


def test_a_stateful_set_replaces_the_highest_first() -> None:
    pods = [Replica(f"s-{n}", "old", True, False, n) for n in range(2)]
    assert stateful_set_step(stateful(2), "new", pods) == ((), ("s-1",))
    pods[1] = Replica("s-1", "new", False, False, 9)
    assert stateful_set_step(stateful(2), "new", pods) == ((), ())
    pods[1] = replace(pods[1], ready=True)
    assert stateful_set_step(stateful(2), "new", pods) == ((), ("s-0",))
