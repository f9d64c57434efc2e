"""A watch over a service under attack: its liveness and its memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from tests.support.service import Service

MEMORY = 256 * 2**20
"""Bytes of memory a pod may have."""

PATIENCE = 1
"""Seconds liveness may take."""


@contextmanager
def well(*services: Service) -> Iterator[None]:
    """Fails unless these services answer liveness in time and keep within their memory."""
    stop = threading.Event()
    watches = [_Watch(service) for service in services]
    threads = [threading.Thread(target=watch.run, args=(stop,)) for watch in watches]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    for watch in watches:
        watch.check()


class _Watch:
    def __init__(self, service: Service) -> None:
        self._service = service
        self._probes = 0
        self._failures = 0
        self._slowest = 0.0
        self._largest = 0

    def run(self, stop: threading.Event) -> None:
        process = psutil.Process(self._service.pid)
        while not self._probes or not stop.wait(0.02):
            started, queued = time.monotonic(), self._queued()
            self._failures += not self._alive()
            self._probes += 1
            # Other programs of this machine are not the service's fault.
            elsewhere = self._queued() - queued
            self._slowest = max(self._slowest, time.monotonic() - started - elsewhere)
            self._largest = max(self._largest, process.memory_info().rss)

    def check(self) -> None:
        assert self._failures == 0
        assert self._slowest < PATIENCE, f"liveness took {self._slowest:.1f} s"
        assert self._largest < MEMORY, f"{self._largest / 2**20:.0f} MiB"

    def _queued(self) -> float:
        """Seconds the service and this thread have waited for a core that others used."""
        files = (f"/proc/{self._service.pid}/schedstat", "/proc/thread-self/schedstat")
        return sum(int(Path(file).read_text().split()[1]) for file in files) / 1e9

    def _alive(self) -> bool:
        connection = HTTPConnection(urlsplit(self._service.management).netloc, timeout=30)
        try:
            connection.request("GET", "/actuator/health/liveness")
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()
