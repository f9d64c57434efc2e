"""The files of a pod: the machine's, with volumes and own files mounted where they belong.

Where the machine lacks the folder of a mount, the pod gets a new root: a file system in memory that
shows the machine's files and has the missing folder as well. Nothing is made on the machine.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lab.net.namespaces import BIND, RECURSIVE, mount

_READ_ONLY, _REMOUNT, _MOVE, _UNBINDABLE, _RELATIVE_TIMES = 1, 32, 8192, 1 << 17, 1 << 21
_KEPT_FLAGS = 2 | 4 | 8 | 1024
"""Flags of a mount (nosuid, nodev, noexec, noatime) that may not be taken away here."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A file or folder in place of what is at a path."""

    source: Path
    target: Path
    read_only: bool = False


def arrange(mounts: Iterable[Mount], kept: Iterable[Path], root: Path) -> None:
    """Mounts files in this process's own mount namespace.

    `kept` stay visible when a mount would hide them. `root` is an empty folder for a new root,
    should one be needed. Raises OSError.
    """
    # A mount at /tmp is no mount at /tmp/x: outer ones come first.
    ordered = sorted(
        (Mount(item.source, item.target.resolve(), item.read_only) for item in mounts),
        key=lambda item: len(item.target.parts),
    )
    hidden = [path for path in kept if any(path.is_relative_to(item.target) for item in ordered)]
    # Opened first: a mount may hide the source of a later one.
    sources = [os.open(item.source, os.O_PATH) for item in ordered]
    shown = [os.open(path, os.O_PATH) for path in hidden]
    missing = [item.target for item in ordered if not item.target.exists()]
    base = root if missing else Path("/")
    if missing:
        _new_root(root, missing)
    for item, source in zip(ordered, sources, strict=True):
        place = base / item.target.relative_to("/")
        if not place.exists():
            _make(place, folder=_is_folder(source))
        _bind(source, place)
        if item.read_only:
            _make_read_only(place)
    for path, descriptor in zip(hidden, shown, strict=True):
        place = base / path.relative_to("/")
        if not place.exists():
            _make(place, folder=_is_folder(descriptor))
        _bind(descriptor, place)
    for descriptor in (*sources, *shown):
        os.close(descriptor)
    if missing:
        os.chdir(root)
        mount(".", "/", flags=_MOVE)
        os.chroot(".")


def _bind(descriptor: int, place: Path) -> None:
    mount(f"/proc/self/fd/{descriptor}", place, flags=BIND)


def _make_read_only(place: Path) -> None:
    found = os.statvfs(place).f_flag
    kept = found & _KEPT_FLAGS | (_RELATIVE_TIMES if found & 4096 else 0)
    mount("none", place, flags=BIND | _REMOUNT | _READ_ONLY | kept)


def _is_folder(descriptor: int) -> bool:
    # Asked of what is open: its path may be hidden by now.
    return stat.S_ISDIR(os.fstat(descriptor).st_mode)


def _make(place: Path, *, folder: bool) -> None:
    """Makes the place of a mount."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if folder:
        place.mkdir()
    else:
        place.touch()


def _new_root(root: Path, missing: Iterable[Path]) -> None:
    """Makes a root in memory that shows the machine's files, where each of `missing` can be made.

    That is where the nearest folder above it is in memory, too.
    """
    mount("tmpfs", root, "tmpfs")
    # What shows the folder that this root is in does not show it once more.
    mount("none", root, flags=_UNBINDABLE)
    _show(Path("/"), root)
    in_memory = {Path("/")}
    for target in missing:
        above = next(path for path in target.parents if path.is_dir())
        if above not in in_memory:
            mount("tmpfs", root / above.relative_to("/"), "tmpfs")
            _show(above, root / above.relative_to("/"))
            in_memory.add(above)


def _show(folder: Path, place: Path) -> None:
    """Shows at a place in memory everything that is in a folder."""
    for entry in os.scandir(folder):
        own = place / entry.name
        # What may not be looked at stays away.
        with contextlib.suppress(OSError):
            if entry.is_symlink():
                own.symlink_to(Path(entry.path).readlink())
                continue
            _make(own, folder=entry.is_dir())
            mount(entry.path, own, flags=BIND | RECURSIVE)
