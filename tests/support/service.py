"""A service as its users run it: a process of its own on free ports."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from tests.support.wait import wait

READY = re.compile(r"is ready on (http://\S+?), management on (http://[\w.:\[\]-]+)")


class Service:
    """A running service: where it listens, what it wrote, and how it is stopped."""

    def __init__(self, name: str, environ: dict[str, str]) -> None:
        self.lines: list[str] = []
        """The lines of its output so far, without line ends."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", name if "." in name else f"services.{name}"],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            found = wait(self._addresses, f"{name} to be ready")
        except BaseException:
            self.kill()
            raise
        self.url, self.management = found

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def wait_for_line(self, text: str, timeout: float = 20) -> str:
        """The first line that has the text in it, as soon as it is written."""
        return wait(
            lambda: next((line for line in list(self.lines) if text in line), ""),
            f"a line with {text!r} in:\n{self.text}",
            timeout,
        )

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, timeout: float = 30) -> int:
        """The exit status, once it has ended and all its lines are read."""
        status = self.process.wait(timeout)
        self._reader.join(timeout)
        return status

    def stop(self) -> int:
        """End it as Ctrl-C does; returns the exit status."""
        if self.process.poll() is None:
            self.signal(signal.SIGINT)
        try:
            return self.wait()
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        self.process.kill()
        self.wait()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stream:
            for line in stream:
                self.lines.append(line.rstrip("\n"))

    def _addresses(self) -> Sequence[str] | None:
        if self.process.poll() is not None:
            self._reader.join(5)
            raise AssertionError(f"ended with {self.process.returncode}:\n{self.text}")
        found = READY.search(self.text)
        return found.groups() if found else None


def environment(**settings: object) -> dict[str, str]:
    """Nothing of the caller's environment but what a process needs, and the settings."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {
        **kept,
        "HOST": "127.0.0.1",
        "PORT": "0",
        "MANAGEMENT_PORT": "0",
        **{name: str(value) for name, value in settings.items()},
    }


class StartService(Protocol):
    def __call__(self, name: str, **settings: object) -> Service:
        """Start `python -m services.<name>` with these variables, and wait until it is ready."""


@contextmanager
def starter() -> Iterator[StartService]:
    """Starts services on free ports of 127.0.0.1; they are stopped at the end."""
    started: list[Service] = []

    def start(name: str, **settings: object) -> Service:
        service = Service(name, environment(**settings))
        started.append(service)
        return service

    try:
        yield start
    finally:
        for service in reversed(started):
            service.stop()
