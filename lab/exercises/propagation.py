"""Waits until a change has reached the proxies of a cluster.

`kubectl apply` returns when the API server has stored an object. istiod learns of it a moment
later, collects changes for a tenth of a second and more, and sends each proxy its part. A look that
comes too early sees the old state and takes it for the effect of the change.

Every istiod is asked three questions, through a port-forward to its monitoring port, which answers
clients in the pod itself:

- `/debug/configz`: does istiod hold these objects in the version of the API server?
- `/metrics`: has it taken in other changes since, that it may still be collecting?
- `/debug/syncz`: what did it send to each proxy, and has the proxy acknowledged that?

A proxy that has a new policy keeps connections that were open before, with the old policy, until it
has drained them (45 s); its statistics say how many listeners it still drains.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from lab.exercises import observe, restore
from lab.exercises.load import ExerciseError
from lab.exercises.target import Target

PATIENCE = 60.0
"""Seconds until a change that has not arrived is an error."""
QUIET = 1.0
"""Seconds without news from istiod: ten times as long as it collects changes."""
_PAUSE = 0.1
_PORT = 15014
_DRAINING = "stats?filter=^listener_manager.total_.*_draining$"

_ISTIO = ".istio.io"
_UPDATES = re.compile(r"^pilot_inbound_updates\{[^}]*\} (\S+)", re.MULTILINE)
_TYPES = ("cluster", "endpoint", "listener", "route", "extensionconfig")


@dataclass(frozen=True, slots=True)
class _State:
    """The changes that istiod has taken in and sent; the same twice means no news."""

    updates: float
    sent: tuple[tuple[str, ...], ...]


def wait(target: Target, present: Iterable[restore.Name], absent: Iterable[restore.Name]) -> None:
    """Waits until every proxy has acknowledged that these objects are there, and those are not.

    Does nothing for a target whose commands wait themselves, and without an istiod to ask. Raises
    ExerciseError when it takes too long.
    """
    if target.synchronous:
        return
    istiods = [p["metadata"]["name"] for p in _istiods(target)]
    if not istiods:
        return
    there = [name for name in present if _is_istio(name)]
    gone = [name for name in absent if _is_istio(name)]
    with contextlib.ExitStack() as stack:
        ports = [
            stack.enter_context(target.forward("istio-system", f"pod/{pod}", _PORT))
            for pod in istiods
        ]
        clients = [
            stack.enter_context(
                httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30)
            )
            for port in ports
        ]
        try:
            _wait(target, dict(zip(istiods, clients, strict=True)), there, gone)
        except httpx.HTTPError as error:
            raise ExerciseError(f"istiod does not say what the proxies have: {error}") from error


def _wait(
    target: Target,
    istiods: Mapping[str, httpx.Client],
    there: list[restore.Name],
    gone: list[restore.Name],
) -> None:
    deadline = time.monotonic() + PATIENCE
    last: list[_State] | None = None
    since = 0.0
    learns = set(istiods)
    while True:
        began = time.monotonic()
        late: list[str] = []
        state: list[_State] = []
        for pod, client in istiods.items():
            if pod in learns:
                unknown = list(_unknown(target, pod, client, there, gone))
                late += unknown
                if not unknown:
                    learns.remove(pod)
            proxies = client.get("/debug/syncz").raise_for_status().json()
            late += _unacknowledged(proxies)
            metrics = client.get("/metrics").raise_for_status().text
            state.append(_State(_updates(metrics), _sent(proxies)))
        if late or state != last:
            last, since = state, time.monotonic()
        elif began - since >= QUIET:
            return
        if time.monotonic() > deadline:
            reason = "; ".join(late) or "istiod takes in changes without a pause"
            raise ExerciseError(f"the proxies have not got the change in {PATIENCE:g} s: {reason}")
        time.sleep(_PAUSE)


def drain(target: Target) -> None:
    """Waits until no proxy keeps connections for an earlier configuration.

    Does nothing for a target whose commands wait themselves. Raises ExerciseError when it takes too
    long.
    """
    if target.synchronous:
        return
    deadline = time.monotonic() + PATIENCE
    late = list(_proxies(target))
    while late := [place for place in late if _drains(target, *place)]:
        if time.monotonic() > deadline:
            names = ", ".join(name for _, name in late)
            raise ExerciseError(f"connections of before are still open in {PATIENCE:g} s: {names}")
        time.sleep(QUIET)


def _proxies(target: Target) -> Iterator[tuple[str, str]]:
    """Yields namespace and name of the pods with a proxy that are ready."""
    for selector in ("default/", "istio-system/"):
        for pod in observe.pods(target, selector):
            spec = pod["spec"]
            containers = [*spec["containers"], *spec.get("initContainers", [])]
            if observe.is_ready(pod) and any(c["name"] == "istio-proxy" for c in containers):
                yield pod["metadata"]["namespace"], pod["metadata"]["name"]


def _drains(target: Target, namespace: str, pod: str) -> bool:
    lines = observe.proxy(target, namespace, pod, _DRAINING).splitlines()
    return any(not line.endswith(": 0") for line in lines if "_draining: " in line)


def _is_istio(name: restore.Name) -> bool:
    return name.kind.endswith(_ISTIO)


def _istiods(target: Target) -> list[dict[str, Any]]:
    return [p for p in observe.pods(target, "istio-system/app=istiod") if observe.is_ready(p)]


def _unknown(
    target: Target,
    pod: str,
    istiod: httpx.Client,
    there: list[restore.Name],
    gone: list[restore.Name],
) -> Iterator[str]:
    """Yields the objects that istiod has in another version than the API server, in words."""
    if not there and not gone:
        return
    held: Mapping[restore.Name, str] = {
        restore.name_of(item): item["metadata"].get("resourceVersion", "")
        for item in istiod.get("/debug/configz").raise_for_status().json()
    }
    for name, item in restore.record(target, there).items() if there else ():
        if item is not None and held.get(name) != item["metadata"]["resourceVersion"]:
            yield f"{pod} does not know {name.argument} as it is now"
    for name in gone:
        if name in held:
            yield f"{pod} does not know that {name.argument} is gone"


def _updates(metrics: str) -> float:
    return sum(float(number) for number in _UPDATES.findall(metrics))


def _sent(proxies: list[dict[str, Any]]) -> tuple[tuple[str, ...], ...]:
    """Returns the versions sent to each proxy, by name: istiod lists them in no fixed order."""
    return tuple(
        sorted(
            (proxy["proxy"], *(proxy.get(f"{kind}_sent", "") for kind in _TYPES))
            for proxy in proxies
        )
    )


def _unacknowledged(proxies: list[dict[str, Any]]) -> Iterator[str]:
    for proxy in proxies:
        for kind in _TYPES:
            sent = proxy.get(f"{kind}_sent", "")
            if sent and sent != proxy.get(f"{kind}_acked", ""):
                yield f"{proxy['proxy']} has not acknowledged its {kind}s"
