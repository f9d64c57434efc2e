"""Processes that never outlive the lab.

Each child asks the kernel to kill it when its parent dies. A reaper process, which waits for the
supervisor's end on a pipe, kills everything that still carries the lab's mark in its environment
(grandchildren, too). The next `up` does the same before it starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lab.net import namespaces

MARK = "GUESTBOOK_LAB"
"""The environment variable that marks a lab's processes; its value is the state folder."""

TIMED_OUT = 124
"""The exit status of a command that took too long, as of timeout(1)."""

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True, slots=True)
class Command:
    """A command line with its environment and working folder."""

    argv: list[str]
    env: Mapping[str, str]
    folder: Path
    enter: Callable[[], None] | None = None
    """Moves the child, before it becomes the program, to where it runs."""
    inside: int | None = None
    """The process in whose namespaces it runs."""


def _die_with_parent() -> None:
    """Runs in the child between fork and exec."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() == 1:
            os._exit(1)


async def start(
    command: Command, on_output: Callable[[bytes], None], *, pause: float = 0.0
) -> tuple[asyncio.subprocess.Process, asyncio.Task[None]]:
    """Starts a child in a session of its own; returns it and the task that hands on its output.

    What comes within `pause` seconds after other output is handed on together. Raises OSError when
    the program can't be started.
    """

    def prepare() -> None:
        _die_with_parent()
        if command.enter is not None:
            try:
                command.enter()
            except OSError as error:
                os.write(2, f"The container can't enter its pod: {error}\n".encode())
                raise

    try:
        process = await asyncio.create_subprocess_exec(
            *command.argv,
            env=command.env,
            cwd=command.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # The least limit leaves output in the pipe, where it comes together.
            limit=1 if pause else 2**16,
            preexec_fn=prepare,
        )
    except subprocess.SubprocessError as error:
        raise OSError(errno.EPERM, "can't enter its pod") from error
    return process, asyncio.create_task(_pump(process, on_output, pause))


async def _pump(
    process: asyncio.subprocess.Process, on_output: Callable[[bytes], None], pause: float
) -> None:
    stream = process.stdout
    while stream is not None and (chunk := await stream.read(65536)):
        on_output(chunk)
        if pause:
            await asyncio.sleep(pause)


def signal_group(pid: int, number: int) -> None:
    """Sends a signal to a child and its own children; nothing when it is gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


async def run(command: Command, *, timeout: float) -> tuple[int, bytes]:
    """Runs a short command (an exec probe) to its end; returns exit status and output.

    A command that takes longer than `timeout` seconds is killed: TIMED_OUT. Should the lab die
    first, the command is left to the reaper: asking the kernel for it makes Python copy its whole
    address space (fork in place of vfork).
    """
    started: list[subprocess.Popen[bytes]] = []
    # A thread that has entered namespaces can't be used again.
    thread = ThreadPoolExecutor(1)
    try:
        running = asyncio.get_running_loop().run_in_executor
        return await running(thread, _run, command, timeout, started)
    except OSError as error:
        return 126, f"{command.argv[0]}: {error.strerror}".encode()
    finally:
        # One that was cancelled.
        for child in started:
            if child.returncode is None:
                signal_group(child.pid, signal.SIGKILL)
        thread.shutdown(wait=False)


def _run(
    command: Command, timeout: float, started: list[subprocess.Popen[bytes]]
) -> tuple[int, bytes]:
    if command.inside is not None:
        namespaces.join_thread(command.inside)
    with subprocess.Popen(
        command.argv,
        env=command.env,
        cwd=command.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as child:
        started.append(child)
        try:
            output, _ = child.communicate(timeout=timeout)
            status = child.returncode
        except subprocess.TimeoutExpired as late:
            signal_group(child.pid, signal.SIGKILL)
            output, status = late.output or b"", TIMED_OUT
    return status, output[-4096:]


def marked(value: str) -> list[int]:
    """Returns the processes whose environment carries a lab's mark, this one left out."""
    needle = f"{MARK}={value}".encode()
    found = []
    for entry in Path("/proc").iterdir() if Path("/proc").is_dir() else ():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if needle in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def sweep(value: str) -> int:
    """Kills the processes of a lab; returns how many they were."""
    killed: set[int] = set()
    while pids := [pid for pid in marked(value) if pid not in killed]:
        for pid in pids:
            killed.add(pid)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
    return len(killed)


@contextlib.contextmanager
def reaper(value: str) -> Iterator[None]:
    """Runs a process that sweeps when this one has ended, however it ended."""
    with subprocess.Popen(
        [sys.executable, "-m", "lab.cluster.reaper", value],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=_see_proxies,
    ):
        yield


def _see_proxies() -> None:
    """Lets the reaper read the environment of programs that may mark packets.

    The kernel shows it to those alone who may do as much. Without namespaces nobody may.
    """
    # Where there is no Linux, there is no such function.
    with contextlib.suppress(OSError, AttributeError):
        namespaces.keep_network_admin()
