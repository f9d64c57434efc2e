"""The two targets of an exercise, a cluster and the lab, behind one grammar: kubectl's.

`KubectlTarget` runs the program `kubectl`; `LabTarget` gives the same arguments to the lab's own
command. The runner learns everything through such commands, so that a person can type each.
"""

from __future__ import annotations

import abc
import contextlib
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from lab.exercises.format import TargetName
from lab.exercises.load import ExerciseError

INTERRUPTED = 130
"""The exit status of a command that Ctrl-C ended."""

_FORWARDING = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+)")

Command = Callable[[list[str]], int]
"""Runs one `guestbook` command line in this process; returns the exit status."""


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that ended: its exit status and its output."""

    status: int
    output: str
    errors: str

    @property
    def text(self) -> str:
        return "\n".join(part for part in (self.output.strip(), self.errors.strip()) if part)


class CommandError(ExerciseError):
    """A command failed that had to succeed."""


class Target(abc.ABC):
    """Runs commands and knows the URL of its ingress."""

    name: ClassVar[TargetName]
    synchronous: ClassVar[bool]
    """Whether a command that changes something returns only when the proxies have the change."""

    def __init__(self, guestbook: Command) -> None:
        self._guestbook = guestbook
        self._open = contextlib.ExitStack()

    @abc.abstractmethod
    def line(self, argv: Sequence[str]) -> str:
        """Returns the command as a person types it here."""

    @abc.abstractmethod
    def _run(self, argv: Sequence[str], stdin: str, timeout: float) -> Completed: ...

    @abc.abstractmethod
    def _program(self, argv: Sequence[str]) -> list[str]:
        """Returns the command line of a process for a kubectl command."""

    def run(
        self, argv: Sequence[str], *, stdin: str = "", timeout: float = 300, check: bool = True
    ) -> Completed:
        """Runs `kubectl …`, `istioctl …` or `guestbook …`; `argv[0]` says which.

        Raises CommandError when `check` and its exit status isn't 0.
        """
        done = self._run(argv, stdin, timeout)
        if check and done.status:
            raise CommandError(
                f"`{self.line(argv)}` failed ({done.status}): {done.text or 'no output'}"
            )
        return done

    def get_json(self, *argv: str) -> Any:
        """Returns the objects of `kubectl get … -o json`; None when nothing is there."""
        argv = ("kubectl", "get", *argv, "--ignore-not-found", "-o", "json")
        text = self.run(argv).output
        return json.loads(text) if text.strip() else None

    def forward(
        self, namespace: str, resource: str, port: int
    ) -> contextlib.AbstractContextManager[int]:
        """Opens a local port that leads to `port` of `resource`, such as `svc/zipkin`."""
        argv = ["kubectl", "port-forward", "-n", namespace, resource, f":{port}"]
        return _forwarding(self._program(argv))

    @abc.abstractmethod
    def ingress(self) -> str:
        """Returns the URL of the ingress gateway, without a slash at the end."""

    @abc.abstractmethod
    def identity(self) -> str:
        """Returns a name of the lab or cluster: what was recorded in one stays out of another."""

    def lacks(self, need: str) -> str | None:  # noqa: ARG002 - a cluster has what k8s/ asks for
        """Returns why there is no `need` (`mysql`) here; None when there is."""
        return None

    def close(self) -> None:
        self._open.close()


class KubectlTarget(Target):
    """A cluster, through the programs kubectl and istioctl."""

    name = "kubectl"
    synchronous = False

    def __init__(
        self, guestbook: Command, context: str | None = None, ingress: str | None = None
    ) -> None:
        super().__init__(guestbook)
        self._context = context
        self._ingress = ingress

    def line(self, argv: Sequence[str]) -> str:
        return shlex.join(self._program(argv))

    def _program(self, argv: Sequence[str]) -> list[str]:
        if self._context and argv[0] in ("kubectl", "istioctl"):
            return [argv[0], "--context", self._context, *argv[1:]]
        return list(argv)

    def _run(self, argv: Sequence[str], stdin: str, timeout: float) -> Completed:
        if argv[0] == "guestbook":
            return _run_here(self._guestbook, argv[1:], stdin)
        return _run_program(self._program(argv), stdin, timeout)

    def ingress(self) -> str:
        """Returns the URL noted by scripts/kind.sh, a load balancer's, else a port-forward's."""
        if self._ingress is None:
            self._ingress = self._find_ingress()
        return self._ingress

    def _find_ingress(self) -> str:
        service = self.get_json("service", "istio-ingressgateway", "-n", "istio-system")
        if service is None:
            raise ExerciseError(
                "there is no Service istio-ingressgateway in istio-system; "
                "istio/install/README.md says how to install Istio"
            )
        if noted := service["metadata"].get("annotations", {}).get("guestbook-url"):
            return str(noted)
        addresses = service.get("status", {}).get("loadBalancer", {}).get("ingress") or [{}]
        host = addresses[0].get("ip") or addresses[0].get("hostname")
        if host:
            return f"http://{host}"
        port = self._open.enter_context(
            self.forward("istio-system", "svc/istio-ingressgateway", 80)
        )
        return f"http://localhost:{port}"

    def identity(self) -> str:
        """Returns the name of kubectl's context."""
        if self._context is None:
            self._context = self.run(["kubectl", "config", "current-context"]).output.strip()
        return self._context


class LabTarget(Target):
    """The lab on this machine, through its own command."""

    name = "lab"
    synchronous = True

    def __init__(self, guestbook: Command, state: Path | None = None) -> None:
        """`state` is the lab's folder when it isn't the usual one."""
        super().__init__(guestbook)
        self._options = ["--state", str(state)] if state else []

    def line(self, argv: Sequence[str]) -> str:
        words = ["guestbook", *argv[1:]] if argv[0] in ("kubectl", "istioctl") else list(argv)
        return shlex.join(words)

    def _program(self, argv: Sequence[str]) -> list[str]:
        return [sys.executable, "-m", "lab.cli", *self._options, *argv[1:]]

    def _run(self, argv: Sequence[str], stdin: str, timeout: float) -> Completed:  # noqa: ARG002 - the lab's own commands carry their own deadline
        return _run_here(self._guestbook, [*self._options, *argv[1:]], stdin)

    def _status(self) -> dict[str, Any]:
        done = self._run(["guestbook", "status", "-o", "json"], "", 0)
        if done.status:
            reason = done.errors.strip().removeprefix("Error: ")
            raise ExerciseError(f"{reason} (in another terminal), or use --target kubectl")
        status: dict[str, Any] = json.loads(done.output)
        if not status.get("ingress"):
            raise ExerciseError("this lab has no ingress gateway (yet)")
        return status

    def ingress(self) -> str:
        return str(self._status()["ingress"]).rstrip("/")

    def identity(self) -> str:
        return "lab"

    def lacks(self, need: str) -> str | None:
        if need == "mysql" and self._status().get("database") == "sqlite":
            return "this lab keeps the messages in SQLite, as no mysqld or mariadbd is installed"
        return None


def _run_program(argv: Sequence[str], stdin: str, timeout: float) -> Completed:
    """Runs a program to its end, or until `timeout` seconds are over."""
    try:
        done = subprocess.run(  # a list, never a shell
            argv,
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError:
        raise CommandError(f"the program {argv[0]} is not installed, or not on PATH") from None
    except subprocess.TimeoutExpired:
        raise CommandError(f"`{shlex.join(argv)}` took longer than {timeout:.0f} s") from None
    return Completed(done.returncode, done.stdout, done.stderr)


@contextlib.contextmanager
def _forwarding(argv: Sequence[str]) -> Iterator[int]:
    """Runs a `port-forward` command and gives its local port; it ends with the context."""
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            assert process.stdout is not None  # noqa: S101 - Popen was told to make the pipe
            output = ""
            for line in process.stdout:
                output += line
                if found := _FORWARDING.search(line):
                    yield int(found[1])
                    return
            raise CommandError(f"`{shlex.join(argv)}` failed: {output.strip()}")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)


def _run_here(guestbook: Command, argv: Sequence[str], stdin: str) -> Completed:
    """Runs `guestbook ARGV…` in this process and captures its output.

    Raises KeyboardInterrupt when a signal came while it ran.
    """
    output, errors = _Captured(), _Captured()
    before = sys.stdin
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin.encode()))
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            try:
                status = guestbook(list(argv))
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.stdin = before
    if status == INTERRUPTED:
        # The signal was for the whole run, and the command, being in this process, has caught it.
        raise KeyboardInterrupt
    return Completed(status or 0, output.text(), errors.text())


class _Captured(io.TextIOWrapper):
    """A text stream whose bytes can be read back, for commands that write to `.buffer`."""

    def __init__(self) -> None:
        self._bytes = io.BytesIO()
        super().__init__(self._bytes, encoding="utf-8", errors="replace", write_through=True)

    def text(self) -> str:
        return self._bytes.getvalue().decode(errors="replace")
