"""The two worlds an exercise runs in, behind one grammar: kubectl's.

`KubectlTarget` runs the program `kubectl`; `LabTarget` gives the same arguments to the lab's own
command. Whatever the runner knows of either world it learns through such commands, so that a
person can type every one of them.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lab.exercises.load import ExerciseError

INTERRUPTED = 130
"""The exit status of a command that Ctrl-C ended."""

_FORWARDING = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+)")


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that ended: its exit status and what it wrote."""

    status: int
    output: str
    errors: str

    @property
    def said(self) -> str:
        return "\n".join(part for part in (self.output.strip(), self.errors.strip()) if part)


class CommandError(ExerciseError):
    """A command that had to succeed didn't."""


class Target(Protocol):
    """A world: runs commands and says where its ingress is."""

    name: str
    synchronous: bool
    """Whether a command that changes something returns only when the proxies have the change."""

    def line(self, argv: Sequence[str]) -> str:
        """The command as a person types it here."""
        ...

    def run(
        self, argv: Sequence[str], *, stdin: str = "", timeout: float = 300, check: bool = True
    ) -> Completed:
        """Run `kubectl …`, `istioctl …` or `guestbook …`; `argv[0]` says which.

        Raises CommandError when `check` and its exit status isn't 0.
        """
        ...

    def forward(
        self, namespace: str, resource: str, port: int
    ) -> contextlib.AbstractContextManager[int]:
        """A local port that leads to `port` of `resource` (`svc/zipkin`) while it is open."""
        ...

    def ingress(self) -> str:
        """The URL of the ingress gateway, without a slash at the end."""
        ...

    def identity(self) -> str:
        """Which world this is, so that the record of one is never put back into another."""
        ...

    def lacks(self, need: str) -> str | None:
        """Why this world has no `need` (`mysql`), or None when it has."""
        ...

    def close(self) -> None: ...


def get_json(target: Target, *argv: str) -> Any:
    """`kubectl get … -o json`; None when nothing is there."""
    said = target.run(["kubectl", "get", *argv, "--ignore-not-found", "-o", "json"]).output
    return json.loads(said) if said.strip() else None


def checked(target: Target, argv: Sequence[str], done: Completed) -> Completed:
    if done.status:
        raise CommandError(
            f"`{target.line(argv)}` failed ({done.status}): {done.said or 'no output'}"
        )
    return done


def run_program(argv: Sequence[str], stdin: str, timeout: float) -> Completed:
    """Run a program to its end, or until `timeout` seconds are over."""
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
def forwarding(argv: Sequence[str]) -> Iterator[int]:
    """Run a `port-forward` command and give its local port; it ends with the context."""
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            assert process.stdout is not None  # noqa: S101 - Popen was told to make the pipe
            said = ""
            for line in process.stdout:
                said += line
                if found := _FORWARDING.search(line):
                    yield int(found[1])
                    return
            raise CommandError(f"`{shlex.join(argv)}` failed: {said.strip()}")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)


class KubectlTarget:
    """A cluster, through the programs kubectl and istioctl."""

    name = "kubectl"
    synchronous = False

    def __init__(self, context: str | None = None, ingress: str | None = None) -> None:
        self._context = context
        self._ingress = ingress
        self._open = contextlib.ExitStack()

    def line(self, argv: Sequence[str]) -> str:
        return shlex.join(self._argv(argv))

    def _argv(self, argv: Sequence[str]) -> list[str]:
        if self._context and argv[0] in ("kubectl", "istioctl"):
            return [argv[0], "--context", self._context, *argv[1:]]
        return list(argv)

    def run(
        self, argv: Sequence[str], *, stdin: str = "", timeout: float = 300, check: bool = True
    ) -> Completed:
        if argv[0] == "guestbook":
            done = run_here(argv[1:], stdin)
        else:
            done = run_program(self._argv(argv), stdin, timeout)
        return checked(self, argv, done) if check else done

    def forward(
        self, namespace: str, resource: str, port: int
    ) -> contextlib.AbstractContextManager[int]:
        argv = ["kubectl", "port-forward", "-n", namespace, resource, f":{port}"]
        return forwarding(self._argv(argv))

    def ingress(self) -> str:
        """What scripts/kind.sh noted, or the load balancer's address; else a port-forward."""
        if self._ingress is None:
            self._ingress = self._find_ingress()
        return self._ingress

    def _find_ingress(self) -> str:
        service = get_json(self, "service", "istio-ingressgateway", "-n", "istio-system")
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
        """The name of kubectl's context."""
        if self._context is None:
            self._context = self.run(["kubectl", "config", "current-context"]).output.strip()
        return self._context

    def lacks(self, need: str) -> str | None:  # noqa: ARG002 - a cluster has what k8s/ asks for
        return None

    def close(self) -> None:
        self._open.close()


class LabTarget:
    """The lab on this machine, through its own command."""

    name = "lab"
    synchronous = True

    def __init__(self, state: Path | None = None) -> None:
        """`state` is the lab's folder when it isn't the usual one."""
        self._options = ["--state", str(state)] if state else []

    def line(self, argv: Sequence[str]) -> str:
        words = ["guestbook", *argv[1:]] if argv[0] in ("kubectl", "istioctl") else list(argv)
        return shlex.join(words)

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str = "",
        timeout: float = 300,  # noqa: ARG002 - the lab's own commands carry their own deadline
        check: bool = True,
    ) -> Completed:
        done = run_here([*self._options, *argv[1:]], stdin)
        return checked(self, argv, done) if check else done

    def forward(
        self, namespace: str, resource: str, port: int
    ) -> contextlib.AbstractContextManager[int]:
        command = [sys.executable, "-m", "lab.cli", *self._options]
        return forwarding([*command, "port-forward", "-n", namespace, resource, f":{port}"])

    def _state(self) -> dict[str, Any]:
        done = run_here([*self._options, "status", "-o", "json"], "")
        if done.status:
            said = done.errors.strip().removeprefix("Error: ")
            raise ExerciseError(f"{said} (in another terminal), or use --target kubectl")
        state = json.loads(done.output)
        if not state.get("ingress"):
            raise ExerciseError("this lab has no ingress gateway (yet)")
        return dict(state)

    def ingress(self) -> str:
        return str(self._state()["ingress"]).rstrip("/")

    def identity(self) -> str:
        return "lab"

    def lacks(self, need: str) -> str | None:
        database = self._state().get("database")
        if need == "mysql" and database == "sqlite":
            return "this lab keeps the messages in SQLite, as no mysqld or mariadbd is installed"
        return None

    def close(self) -> None:
        """Nothing stays open."""


def run_here(argv: Sequence[str], stdin: str) -> Completed:
    """The lab's command in this process: `guestbook ARGV…`.

    Raises KeyboardInterrupt when a signal came while it ran.
    """
    from lab.cli import main  # the command mounts the exercises, so the import is made late

    output, errors = _Captured(), _Captured()
    before = sys.stdin
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin.encode()))
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            try:
                status = main(list(argv))
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
