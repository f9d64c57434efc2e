"""The state folder of a lab: resources, logs, data and the lock."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import lab


class AlreadyRunningError(Exception):
    """Another supervisor holds the folder; `pid` is its process."""

    def __init__(self, folder: Path, pid: str) -> None:
        super().__init__(f"a lab is already running in {folder} (process {pid or 'unknown'})")
        self.pid = pid


def repository() -> Path:
    """Returns the folder that holds `k8s/` and `istio/`: the checkout of this package."""
    root = Path(lab.__file__).resolve().parents[1]
    return root if (root / "k8s").is_dir() else Path.cwd()


def default_folder() -> Path:
    """Returns `$GUESTBOOK_STATE`, else `.guestbook` beside the manifests."""
    if chosen := os.environ.get("GUESTBOOK_STATE"):
        return Path(chosen).absolute()
    return usual_folder()


def usual_folder() -> Path:
    """Returns `.guestbook` beside the manifests."""
    return repository() / ".guestbook"


@dataclass(frozen=True, slots=True)
class State:
    """The parts of a state folder."""

    folder: Path

    @property
    def resources(self) -> Path:
        return self.folder / "resources"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def pods(self) -> Path:
        """Removed with their pod: roots, emptyDir volumes, Envoy configuration."""
        return self.folder / "pods"

    @property
    def volumes(self) -> Path:
        """PersistentVolumeClaims, kept when the lab stops."""
        return self.folder / "volumes"

    @property
    def certificates(self) -> Path:
        return self.folder / "certificates"

    @property
    def commands(self) -> Path:
        """Programs for shells; kept when the lab is new, so that no shell finds others."""
        return self.folder / "bin"

    @property
    def socket(self) -> Path:
        return self.folder / "control.sock"

    @property
    def forwarding(self) -> Path:
        """The socket of `port-forward`."""
        return self.folder / "forward.sock"

    @property
    def images(self) -> Path:
        """The user's own programs for images."""
        return self.folder / "images.json"

    def create(self) -> None:
        """Makes the folder, readable by its owner alone (it holds Secrets)."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in (self.resources, self.logs, self.pods, self.volumes, self.certificates):
            path.mkdir(mode=0o700, exist_ok=True)


def wait_until_unlocked(state: State) -> None:
    """Returns when no supervisor holds the folder any more."""
    with contextlib.suppress(FileNotFoundError), (state.folder / "lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)


@contextlib.contextmanager
def locked(state: State) -> Iterator[None]:
    """Holds the folder for one supervisor; the kernel lets go when the process dies.

    Raises AlreadyRunningError.
    """
    state.create()
    with (state.folder / "lock").open("a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise AlreadyRunningError(state.folder, file.read().strip()) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
        file.truncate(0)
