"""Log files, one a container: lines with their time, rotated by size."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

MAX_BYTES = 10_000_000
"""A file is put aside at this size, and the one before it dropped, as by kubelet."""

_POLL = 0.1


def stamp(time: datetime | None = None) -> str:
    """Returns the time of now, or another in UTC, as it stands before each line."""
    return (time or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class ContainerLog:
    """Appends a container's output to its file."""

    def __init__(self, path: Path, take: Callable[[bytes], bool] | None = None) -> None:
        """`take` is given each line first, and returns whether it is no part of the log."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._take = take
        self._file = path.open("ab", buffering=0)
        self._size = self._file.tell()
        self._rest = b""

    def write(self, chunk: bytes) -> None:
        """Takes output as it comes; a last line without its end waits for more or for `flush`."""
        lines = (self._rest + chunk).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > 65536:
            lines.append(self._rest)
            self._rest = b""
        if self._take is not None:
            lines = [line for line in lines if not self._take(line)]
        if lines:
            head = f"{stamp()} ".encode()
            data = b"".join(head + line + b"\n" for line in lines)
            self._file.write(data)
            self._size += len(data)
            if self._size > MAX_BYTES:
                self._rotate()

    def flush(self) -> None:
        """Writes a last line that has no line end."""
        if self._rest:
            self.write(b"\n")

    def close(self) -> None:
        self.flush()
        self._file.close()

    def _rotate(self) -> None:
        self._file.close()
        self.path.replace(previous(self.path))
        self._file = self.path.open("ab", buffering=0)
        self._size = 0


def previous(path: Path) -> Path:
    """Returns the path of the rotated part of a log."""
    return path.with_suffix(".1.log")


def lines(
    path: Path,
    tail: int | None = None,
    since: datetime | None = None,
    between: tuple[str, str] | None = None,
) -> list[bytes]:
    """Returns the lines of a log with their time: the last `tail` of those from `since` on.

    With `between` they are those from one time until before another.
    """
    data = b""
    for file in (previous(path), path):
        if file.exists():
            data += file.read_bytes()
    found = data.splitlines()
    if since is not None:
        start = stamp(since).encode()
        found = [line for line in found if line[: len(start)] >= start]
    if between is not None:
        first, end = (time.encode() for time in between)
        found = [line for line in found if first <= line[: len(first)] < end]
    if tail is not None:
        found = found[-tail:] if tail else []
    return found


async def follow(path: Path) -> AsyncIterator[bytes]:
    """Yields the lines that are added from now on, across rotation, until the file is deleted."""
    file = path.open("rb")
    try:
        file.seek(0, 2)
        rest = b""
        while True:
            chunk = file.read(65536)
            if not chunk:
                try:
                    moved = path.stat().st_ino != os.fstat(file.fileno()).st_ino
                except FileNotFoundError:
                    return
                if moved:
                    file.close()
                    file = path.open("rb")
                else:
                    await asyncio.sleep(_POLL)
                continue
            parts = (rest + chunk).split(b"\n")
            rest = parts.pop()
            for part in parts:
                yield part
    finally:
        file.close()
