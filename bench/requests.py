"""The lab's own work for each request that proxies report, at 500 requests a second.

The same requests without proxies are taken off: the application's log takes its share there too.
"""

from __future__ import annotations

import http.client
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from bench.figure import Figure
from lab import names
from tests.lab.conftest import SMALL
from tests.support.lab import Lab, running

RATE = 500
"""Requests a second; each is reported by both of its proxies."""

LIMIT = 5.0
"""Per cent of one core, of the lab's process."""

CLIENTS = 4
SECONDS = 15.0


def figures() -> Iterator[Figure]:
    """Measure; the share of a core that reports take."""
    with (
        tempfile.TemporaryDirectory() as parent,
        running(Path(parent) / "lab", "-f", str(SMALL), "--network", "proxy") as lab,
    ):
        client = lab.ready("app=curl", 1)[0]["status"]["podIP"]
        server = lab.ready("app=message-service", 2)[0]["status"]["podIP"]
        plain = _used(lab, names.inside(server), 8080)
        reported = _used(lab, names.inside(client), names.OUTBOUND_PORT)
        added = reported - plain
        yield Figure(
            f"reports of {RATE} requests a second", added, LIMIT, "% of a core (limit)", at_most=1
        )


def _used(lab: Lab, host: str, port: int) -> float:
    """Returns the share of a core that the lab's process uses while clients ask, in per cent."""
    process = psutil.Process(lab.process.pid)
    before = sum(process.cpu_times()[:2])
    began = time.monotonic()
    clients = [threading.Thread(target=_ask, args=(host, port)) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    return float(100 * (sum(process.cpu_times()[:2]) - before) / (time.monotonic() - began))


def _ask(host: str, port: int) -> None:
    connection = http.client.HTTPConnection(host, port)
    due = time.monotonic()
    end = due + SECONDS
    while due < end:
        connection.request("GET", "/hello/bench", headers={"Host": "message-service"})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
        due += CLIENTS / RATE
        time.sleep(max(0.0, due - time.monotonic()))
    connection.close()
