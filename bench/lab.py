"""The lab with the whole application and an Envoy beside every pod: start, memory, idleness.

Each value stands beside its limit. The latency that a pair of sidecars adds is the difference
between the same request with and without them, one at a time over a kept connection.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil

from bench.figure import Figure
from lab import names
from lab.cluster.process import marked
from tests.support.lab import COMMAND, Lab, spawn, wait_until_ready
from tests.support.wait import wait

FIRST_LIMIT = 60.0
"""Seconds from the command to the page, the first time."""

WARM_LIMIT = 10.0
"""The same, afterwards."""

EFFECT_LIMIT = 1.0
"""Seconds from the start of `guestbook apply` until traffic shows it."""

MEMORY_LIMIT = 1000.0
"""Megabytes of all processes together: proportional set size, which counts what is shared once."""

IDLE_LIMIT = 3.0
"""Per cent of one core, of all processes together."""

LATENCY_LIMIT = 3.0
"""Milliseconds at the median."""

IDLE_SECONDS = 20.0
WARM_ROUNDS = 2
APPLY_ROUNDS = 5
REQUESTS = 1000

TEAPOT = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: teapot}
spec:
  hosts: [message-service]
  http:
  - fault: {abort: {httpStatus: 418, percentage: {value: 100}}}
    route: [{destination: {host: message-service}}]
"""
CLIENT = """
apiVersion: v1
kind: Pod
metadata: {name: bench, labels: {app: bench}}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: curlimages/curl, command: [sleep, infinity]}]
"""


def figures() -> Iterator[Figure]:
    """Measure; each figure comes as soon as it is known."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "lab"
        first = _timed_start(folder)
        yield Figure("up to the page, first time", first, FIRST_LIMIT, "s (limit)", at_most=1)
        warm = min(_timed_start(folder) for _ in range(WARM_ROUNDS))
        yield Figure("up to the page, warm", warm, WARM_LIMIT, "s (limit)", at_most=1)
        with _serving(folder) as lab:
            used = _idle(lab)
            yield Figure("idle lab", used, IDLE_LIMIT, "% of a core (limit)", at_most=1)
            megabytes = _memory(lab)
            yield Figure("idle lab: memory", megabytes, MEMORY_LIMIT, "MB (limit)", at_most=1)
            lab.apply(CLIENT)
            address = lab.ready("app=bench", 1)[0]["status"]["podIP"]
            added = _added_latency(lab, address)
            yield Figure("a pair of sidecars", added, LATENCY_LIMIT, "ms (limit)", at_most=1)
            effect = max(_effect(lab, address) for _ in range(APPLY_ROUNDS))
            yield Figure("apply to effect", effect, EFFECT_LIMIT, "s (limit)", at_most=1)


@contextlib.contextmanager
def _serving(folder: Path) -> Iterator[Lab]:
    """A lab whose page has been served; stopped at the end, also when it never came so far."""
    lab = spawn(folder)
    try:
        wait_until_ready(lab)
        page = httpx.get(lab.url(), timeout=10).raise_for_status()
        assert "unavailable" not in page.text
        yield lab
    finally:
        lab.stop()


def _timed_start(folder: Path) -> float:
    began = time.monotonic()
    with _serving(folder):
        return time.monotonic() - began


def _processes(lab: Lab) -> list[psutil.Process]:
    """The lab itself, its warden and everything in its pods."""
    own = psutil.Process(lab.process.pid)
    known = {process.pid: process for process in (own, *own.children(recursive=True))}
    for pid in marked(str(lab.folder)):
        with contextlib.suppress(psutil.NoSuchProcess):
            known.setdefault(pid, psutil.Process(pid))
    return list(known.values())


def _memory(lab: Lab) -> float:
    total = 0
    for process in _processes(lab):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_full_info().pss
    return total / 1e6


def _idle(lab: Lab) -> float:
    """The share of a core that is used while nobody asks for anything."""
    # Work that the start and the first page caused comes to rest.
    time.sleep(10)
    before = _used(lab)
    time.sleep(IDLE_SECONDS)
    after = _used(lab)
    for pid, (name, seconds) in sorted(after.items(), key=lambda item: item[0]):
        spent = seconds - before.get(pid, (name, 0.0))[1]
        if os.environ.get("BENCH_DETAILS") and spent:
            print(f"    {name} ({pid}): {spent / IDLE_SECONDS:.2%}")
    spent_by_all = sum(seconds for _, seconds in after.values())
    return 100 * (spent_by_all - sum(s for _, s in before.values())) / IDLE_SECONDS


def _used(lab: Lab) -> dict[int, tuple[str, float]]:
    """Seconds of processor time by process, with those of ended children (exec probes)."""
    used = {}
    for process in _processes(lab):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            spent = times.user + times.system + times.children_user + times.children_system
            used[process.pid] = (" ".join(process.cmdline()[:3])[-60:], spent)
    return used


def _added_latency(lab: Lab, client: str) -> float:
    inside = names.inside(client)
    pod = lab.ready("app=message-service", 2)[0]["status"]["podIP"]
    through = _median(inside, 15001, "http://message-service/hello/bench")
    direct = _median(names.inside(pod), 8080, "/hello/bench")
    return through - direct


def _median(host: str, port: int, path: str) -> float:
    """Milliseconds of a request."""
    connection = http.client.HTTPConnection(host, port)
    times = []
    for _ in range(REQUESTS):
        began = time.perf_counter()
        connection.request("GET", path, headers={"Host": "message-service"})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
        times.append(1000 * (time.perf_counter() - began))
    connection.close()
    return statistics.median(times)


def _effect(lab: Lab, client: str) -> float:
    """Seconds from the start of the command until a client sees what it applied."""
    inside = names.inside(client)
    with httpx.Client(proxy=f"http://{inside}:15001", trust_env=False) as asking:

        def status() -> int:
            return asking.get("http://message-service/hello/bench").status_code

        wait(lambda: status() == 200, seconds=30)
        began = time.monotonic()
        command = [*COMMAND, "--state", str(lab.folder), "apply", "-f", "-"]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        ) as applying:
            assert applying.stdin is not None
            applying.stdin.write(TEAPOT)
            applying.stdin.close()
            wait(lambda: status() == 418, seconds=30)
            seconds = time.monotonic() - began
        assert applying.returncode == 0
        lab.ok("delete", "virtualservice", "teapot")
    return seconds
