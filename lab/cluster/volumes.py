"""Volumes: folders, and the container's paths that lead to them.

Without a mount namespace a process sees the machine's files. A mount at `/data/config` becomes a
link in a folder that stands for the container's root then, and the paths in its command line and
environment are rewritten to it (`link`, `rewrite`).
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from lab.cluster.environment import Lookup, MissingReferenceError, data
from lab.files import write_atomically
from lab.kinds.kubernetes.pod_spec import (
    ConfigMapVolume,
    Container,
    SecretVolume,
    Volume,
    VolumeMount,
)

_PATH = re.compile(r"(?<![A-Za-z0-9._/-])/[A-Za-z0-9._/-]+")


def make(volume: Volume, folder: Path, claims: Path, lookup: Lookup) -> Path:
    """Makes and fills the folder of one volume. Raises MissingReferenceError."""
    if volume.persistent_volume_claim is not None:
        path = claims / volume.persistent_volume_claim.claim_name
        path.mkdir(parents=True, exist_ok=True)
        return path
    path = folder / volume.name
    path.mkdir(parents=True, exist_ok=True)
    if (config_map := volume.config_map) is not None:
        _fill(path, "ConfigMap", config_map.name, config_map, lookup)
    elif (secret := volume.secret) is not None:
        _fill(path, "Secret", secret.secret_name, secret, lookup)
    return path


def _fill(
    path: Path, kind: str, name: str, source: ConfigMapVolume | SecretVolume, lookup: Lookup
) -> None:
    values = data(kind, name, source.optional, lookup)
    chosen = {item.path: item.key for item in source.items or ()} or {key: key for key in values}
    for target, key in chosen.items():
        if key not in values:
            if source.optional:
                continue
            raise MissingReferenceError(f'{kind.lower()} "{name}" has no key "{key}"')
        file = path / target
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists() or file.read_bytes() != values[key]:
            write_atomically(file, values[key])
    for file in path.rglob("*"):
        if file.is_file() and str(file.relative_to(path)) not in chosen:
            file.unlink()


def source(mount: VolumeMount, volumes: Mapping[str, Path]) -> Path:
    """Returns the folder or file of a volume that is mounted; a missing `subPath` is made."""
    path = volumes[mount.name]
    if mount.sub_path:
        path = path / mount.sub_path
        if not path.exists():
            path.mkdir(parents=True)
    return path


def link(container: Container, volumes: Mapping[str, Path], root: Path) -> None:
    """Makes `root` look like the container's file system, as far as its mounts go."""
    if root.exists():
        shutil.rmtree(root)
    root.mkdir(parents=True)
    for mount in container.volume_mounts:
        target = source(mount, volumes)
        place = root / mount.mount_path.strip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(target)


def rewrite(text: str, mounts: Iterable[VolumeMount], root: Path) -> str:
    """Moves the paths in `text` that are a mount, below one or above one, under `root`."""
    places = [mount.mount_path.rstrip("/") for mount in mounts]

    def replace(match: re.Match[str]) -> str:
        path = match[0].rstrip("/")
        for place in places:
            if path == place or path.startswith(place + "/") or place.startswith(path + "/"):
                return str(root) + match[0]
        return match[0]

    return _PATH.sub(replace, text) if places else text
