"""A server of the tests' own as a process that they stop, kill and freeze."""

from __future__ import annotations

import signal
import subprocess


class ServerProcess:
    """The process of a server; one that does not run is left as it is."""

    _process: subprocess.Popen[bytes] | None = None

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """It takes connections, and says nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self.thaw()
            self._signal(number)
            self._process.wait(60)
            self._process = None
