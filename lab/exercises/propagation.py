"""The wait until a change has reached the proxies of a cluster.

`kubectl apply` returns when the API server has stored an object. istiod learns of it a moment
later, collects changes for a tenth of a second and more, and sends each proxy what concerns it. A
look that comes too early sees the old state, and what was true before passes for what the change
has done.

Three questions tell when it is over, each put to every istiod with `pilot-discovery request`, which
all versions have:

- `/debug/configz`: does istiod hold these objects in the version of the API server?
- `/metrics`: has it taken in other changes since, that it may still be collecting?
- `/debug/syncz`: what did it send to each proxy, and has the proxy acknowledged that?
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lab.exercises import observe, world
from lab.exercises.load import ExerciseError
from lab.exercises.target import Target

PATIENCE = 60.0
"""Seconds until a change that has not arrived is an error."""
QUIET = 1.0
"""Seconds without news from istiod: ten times as long as it collects changes, for a busy machine."""
_PAUSE = 0.1

_ISTIO = ".istio.io"
_UPDATES = re.compile(r"^pilot_inbound_updates\{[^}]*\} (\S+)", re.MULTILINE)
_TYPES = ("cluster", "endpoint", "listener", "route", "extensionconfig")


@dataclass(frozen=True, slots=True)
class _State:
    """All that istiod has taken in and sent; when it is the same twice, there was no news."""

    updates: float
    sent: tuple[tuple[str, ...], ...]


def wait(target: Target, present: Iterable[world.Name], absent: Iterable[world.Name]) -> None:
    """Wait until every proxy has acknowledged that these objects are there, and those are not.

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
    deadline = time.monotonic() + PATIENCE
    last: list[_State] | None = None
    since = 0.0
    while True:
        began = time.monotonic()
        late = [text for pod in istiods for text in _unknown(target, pod, there, gone)]
        state = []
        for pod in istiods:
            proxies = json.loads(_ask(target, pod, "/debug/syncz") or "[]")
            late += _unacknowledged(proxies)
            state.append(_State(_updates(_ask(target, pod, "/metrics")), _sent(proxies)))
        if late or state != last:
            last, since = state, time.monotonic()
        elif began - since >= QUIET:
            return
        if time.monotonic() > deadline:
            reason = "; ".join(late) or "istiod takes in changes without a pause"
            raise ExerciseError(f"the proxies have not got the change in {PATIENCE:g} s: {reason}")
        time.sleep(_PAUSE)


def _is_istio(name: world.Name) -> bool:
    return name.kind.endswith(_ISTIO)


def _istiods(target: Target) -> list[dict[str, Any]]:
    return [p for p in observe.pods(target, "istio-system/app=istiod") if observe.is_ready(p)]


def _ask(target: Target, pod: str, path: str) -> str:
    where = ["-n", "istio-system", pod, "-c", "discovery"]
    return target.run(
        ["kubectl", "exec", *where, "--", "pilot-discovery", "request", "GET", path]
    ).output


def _unknown(
    target: Target, pod: str, there: list[world.Name], gone: list[world.Name]
) -> Iterator[str]:
    """The objects that istiod has in another version than the API server, in words."""
    if not there and not gone:
        return
    wanted = world.record(target, there)
    held: Mapping[world.Name, str] = {
        world.name_of(item): item["metadata"].get("resourceVersion", "")
        for item in json.loads(_ask(target, pod, "/debug/configz") or "[]")
    }
    for name, item in wanted.items():
        if item is not None and held.get(name) != item["metadata"]["resourceVersion"]:
            yield f"{pod} does not know {name.argument} as it is now"
    for name in gone:
        if name in held:
            yield f"{pod} does not know that {name.argument} is gone"


def _updates(metrics: str) -> float:
    return sum(float(number) for number in _UPDATES.findall(metrics))


def _sent(proxies: list[dict[str, Any]]) -> tuple[tuple[str, ...], ...]:
    return tuple(
        (proxy["proxy"], *(proxy.get(f"{kind}_sent", "") for kind in _TYPES)) for proxy in proxies
    )


def _unacknowledged(proxies: list[dict[str, Any]]) -> Iterator[str]:
    for proxy in proxies:
        for kind in _TYPES:
            sent = proxy.get(f"{kind}_sent", "")
            if sent and sent != proxy.get(f"{kind}_acked", ""):
                yield f"{proxy['proxy']} has not acknowledged its {kind}s"
