"""The lab with the whole application and an Envoy beside every pod: start, memory, idleness.

Each value stands beside its limit, and beside that of a lab whose pods share one network. The
latency that a pair of sidecars adds is the difference between the same request with and without
them, one at a time over a kept connection.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil

from bench.figure import Figure
from lab.cluster.process import marked
from lab.net import detect
from tests.support.lab import COMMAND, Lab, in_pod, spawn, wait_until_ready

FIRST_LIMIT = 60.0
"""Seconds from the command to the page, the first time."""

WARM_LIMIT = 10.0
"""The same, afterwards."""

EFFECT_LIMIT = 1.0
"""Seconds from the start of `guestbook apply` until traffic shows it."""

MEMORY_LIMIT = 720.0
"""Megabytes of all processes together: proportional set size, which counts what is shared once."""

IDLE_LIMIT = 3.0
"""Per cent of one core, of all processes together."""

LATENCY_LIMIT = 3.0
"""Milliseconds at the median."""

IDLE_SECONDS = 20.0
SHARED_LIMIT = 1.1
"""The most that a network for each pod may cost, as a ratio to one for all."""

WARM_ROUNDS = 3
APPLY_ROUNDS = 5
CALL_ROUNDS = 5
REQUESTS = 500

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


CALLS = """
import http.client, os, statistics, sys, time
from urllib.parse import urlsplit
url = urlsplit(sys.argv[1])
proxy = urlsplit(os.environ.get('http_proxy', ''))
path, place = url.path, (url.hostname, url.port or 80)
if url.hostname == 'localhost':
    place = (os.environ.get('HOST', '127.0.0.1'), url.port)
elif proxy.hostname:
    path, place = sys.argv[1], (proxy.hostname, proxy.port)
connection = http.client.HTTPConnection(*place)
times = []
for _ in range(int(sys.argv[2])):
    began = time.perf_counter()
    connection.request('GET', path, headers={'Host': url.hostname})
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 200
    times.append(1000 * (time.perf_counter() - began))
print(statistics.median(times))
"""
"""Prints the median of a request's milliseconds."""

WATCH = """
import sys, time, urllib.error, urllib.request
print('ready', flush=True)
while True:
    try:
        urllib.request.urlopen('http://message-service/hello/bench', timeout=5).read()
    except urllib.error.HTTPError as error:
        if error.code == 418:
            break
print(time.time())
"""
"""Prints the time at which a rule that was applied is seen."""

HELLO = "http://message-service/hello/bench"


def figures() -> Iterator[Figure]:
    """Measure; each figure comes as soon as it is known."""
    networks = ["pods", "proxy"] if detect.refusal() is None else ["proxy"]
    with tempfile.TemporaryDirectory() as parent:
        folders = {network: Path(parent) / network for network in networks}
        first = {network: _start(folders[network], network) for network in networks}
        yield from _compared("up to the page, first time", first, FIRST_LIMIT, "s")
        warm = _alternately(WARM_ROUNDS, networks, lambda name: _start(folders[name], name))
        yield from _compared("up to the page, warm", warm, WARM_LIMIT, "s")
        idle, memory = {}, {}
        for network, folder in folders.items():
            with _serving(folder, network) as lab:
                idle[network], memory[network] = _idle(lab), _memory(lab)
        yield from _compared("idle lab", idle, IDLE_LIMIT, "% of a core")
        yield from _compared("idle lab: memory", memory, MEMORY_LIMIT, "MB")
        with contextlib.ExitStack() as stack:
            labs = {n: stack.enter_context(_serving(folders[n], n)) for n in networks}
            for lab in labs.values():
                lab.apply(CLIENT)
                lab.ready("app=bench", 1)
            through = _alternately(CALL_ROUNDS, networks, lambda name: _through(labs[name]))
            direct = _alternately(CALL_ROUNDS, networks, lambda name: _direct(labs[name]))
            added = {name: through[name] - direct[name] for name in networks}
            yield from _compared("a pair of sidecars", added, LATENCY_LIMIT, "ms")
            yield from _compared("a call through both", through, LATENCY_LIMIT, "ms")
            effect = _alternately(APPLY_ROUNDS, networks, lambda name: _effect(labs[name]))
            yield from _compared("apply to effect", effect, EFFECT_LIMIT, "s")


def _alternately(
    rounds: int, networks: list[str], measure: Callable[[str], float]
) -> dict[str, float]:
    """Medians of measurements that take turns, so that the machine is the same for each."""
    seen: dict[str, list[float]] = {network: [] for network in networks}
    for _ in range(rounds):
        for network in networks:
            seen[network].append(measure(network))
    return {network: statistics.median(values) for network, values in seen.items()}


def _compared(name: str, values: dict[str, float], limit: float, unit: str) -> Iterator[Figure]:
    """The default network's value beside its limit, and beside that of a shared network."""
    value = next(iter(values.values()))
    yield Figure(name, value, limit, f"{unit} (limit)", at_most=1)
    if len(values) > 1:
        unit = f"{unit} (shared network)"
        yield Figure(name, value, values["proxy"], unit, at_most=SHARED_LIMIT)


@contextlib.contextmanager
def _serving(folder: Path, network: str) -> Iterator[Lab]:
    """A lab whose page has been served; stopped at the end, also when it never came so far."""
    lab = spawn(folder, "--network", network)
    try:
        wait_until_ready(lab)
        page = httpx.get(lab.url(), timeout=10).raise_for_status()
        assert "unavailable" not in page.text
        yield lab
    finally:
        lab.stop()


def _start(folder: Path, network: str) -> float:
    began = time.monotonic()
    with _serving(folder, network):
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


def _through(lab: Lab) -> float:
    """Milliseconds of a request through both sidecars."""
    (client,) = lab.pods("app=bench")
    return float(in_pod(lab, client, "python3", "-c", CALLS, HELLO, str(REQUESTS)))


def _direct(lab: Lab) -> float:
    """The same within the pod that answers."""
    server = lab.pods("app=message-service")[0]
    url = "http://localhost:8080/hello/bench"
    return float(in_pod(lab, server, "python3", "-c", CALLS, url, str(REQUESTS)))


def _effect(lab: Lab) -> float:
    """Seconds from the start of the command until a client sees what it applied."""
    command = [*COMMAND, "--state", str(lab.folder)]
    watch = [*command, "exec", "bench", "-c", "c", "--", "python3", "-c", WATCH]
    with subprocess.Popen(watch, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        watching.stdout.readline()
        began = time.time()
        subprocess.run(
            [*command, "apply", "-f", "-"],
            input=TEAPOT,
            text=True,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        seen = float(watching.stdout.readline())
    lab.ok("delete", "virtualservice", "teapot")
    return seen - began
