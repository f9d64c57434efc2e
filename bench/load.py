"""Sends load to a URL: with wrk where it is installed, else with threads of our own."""

from __future__ import annotations

import http.client
import re
import shutil
import statistics
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True, slots=True)
class Load:
    """Rate and latencies of a server under load."""

    rate: float
    """Requests a second."""
    median: float
    """Milliseconds."""
    p99: float
    """Milliseconds."""


def best(url: str, connections: int, seconds: float = 3, rounds: int = 3) -> Load:
    """The best of some rounds, for other things may be running on the machine."""
    return max((load(url, connections, seconds) for _ in range(rounds)), key=lambda each: each.rate)


def load(url: str, connections: int, seconds: float, headers: Sequence[str] = ()) -> Load:
    """Ask for a URL all the time over so many connections; an answer that is no 2xx is an error."""
    wrk = shutil.which("wrk")
    return (
        _wrk(wrk, url, connections, seconds, headers)
        if wrk
        else _threads(url, connections, seconds, headers)
    )


def _wrk(wrk: str, url: str, connections: int, seconds: float, headers: Sequence[str]) -> Load:
    named = [part for header in headers for part in ("-H", header)]
    command = [wrk, "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--latency"]
    output = subprocess.run([*command, *named, url], check=True, capture_output=True, text=True)
    text = output.stdout
    if "Non-2xx" in text or "Requests/sec" not in text:
        raise RuntimeError(f"{url} answered with errors:\n{text}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    assert rate is not None
    return Load(float(rate[1]), _latency(text, "50%"), _latency(text, "99%"))


def _latency(text: str, name: str) -> float:
    found = re.search(rf"{name}\s+([\d.]+)(us|ms|s)", text)
    assert found is not None
    return float(found[1]) * _UNITS[found[2]]


def _threads(url: str, connections: int, seconds: float, headers: Sequence[str]) -> Load:
    parts = urlsplit(url)
    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    named = dict(header.split(": ", 1) for header in headers)
    times: list[float] = []
    errors: list[str] = []
    end = time.monotonic() + seconds

    def ask() -> None:
        connection = http.client.HTTPConnection(parts.netloc)
        while not errors and (started := time.monotonic()) < end:
            connection.request("GET", path, headers=named)
            answer = connection.getresponse()
            answer.read()
            if answer.status // 100 != 2:
                errors.append(f"{url} answered {answer.status}")
            times.append((time.monotonic() - started) * 1000)
        connection.close()

    threads = [threading.Thread(target=ask) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise RuntimeError(errors[0])
    points = statistics.quantiles(times, n=100)
    return Load(len(times) / seconds, points[49], points[98])
