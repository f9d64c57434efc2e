"""Starting processes that never outlive the lab.

Three things see to it. Each child asks the kernel to kill it when its parent dies. A warden
process, which waits for the supervisor's end on a pipe, kills whatever still carries the lab's
mark in its environment (grandchildren, too). And the next `up` does the same before it starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

MARK = "GUESTBOOK_LAB"
"""The environment variable by which a lab's processes are known; its value is the state folder."""

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def _die_with_parent() -> None:
    """Runs in the child between fork and exec."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() == 1:
            os._exit(1)


async def start(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    on_output: Callable[[bytes], None],
    brief: bool = False,
) -> tuple[asyncio.subprocess.Process, asyncio.Task[None]]:
    """A child in a session of its own, and the task that hands on what it prints.

    One that is `brief` is left to the warden should the lab die first: asking the kernel for it
    makes Python copy its whole address space (fork in place of vfork). Raises OSError when the
    program can't be started.
    """
    process = await asyncio.create_subprocess_exec(
        *argv,
        env=dict(env),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=None if brief else _die_with_parent,
    )
    return process, asyncio.create_task(_pump(process, on_output))


async def _pump(process: asyncio.subprocess.Process, on_output: Callable[[bytes], None]) -> None:
    stream = process.stdout
    while stream is not None and (chunk := await stream.read(65536)):
        on_output(chunk)


def signal_group(pid: int, number: int) -> None:
    """A signal to a child and what it started; nothing when it is gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


async def run(
    argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, timeout: float
) -> tuple[int, bytes]:
    """Run a short command (an exec probe) to its end: exit status and output.

    A command that takes longer is killed and counts as 124, like timeout(1).
    """
    output: list[bytes] = []
    try:
        process, pump = await start(argv, env=env, cwd=cwd, on_output=output.append, brief=True)
    except OSError as error:
        return 126, f"{argv[0]}: {error.strerror}".encode()
    try:
        async with asyncio.timeout(timeout):
            await pump
            status = await process.wait()
    except TimeoutError:
        signal_group(process.pid, signal.SIGKILL)
        status = 124
    except asyncio.CancelledError:
        signal_group(process.pid, signal.SIGKILL)
        raise
    finally:
        pump.cancel()
    return status, b"".join(output)[-4096:]


def marked(value: str) -> list[int]:
    """The processes whose environment carries a lab's mark, this one left out."""
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
    """Kill what a lab left behind; how many processes that were."""
    killed: set[int] = set()
    while pids := [pid for pid in marked(value) if pid not in killed]:
        for pid in pids:
            killed.add(pid)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
    return len(killed)


def start_warden(value: str) -> subprocess.Popen[bytes]:
    """The process that sweeps when this one has ended, however it ended."""
    return subprocess.Popen(
        [sys.executable, "-m", "lab.cluster.reaper", value],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
