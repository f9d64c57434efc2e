"""The part of kustomize that the lab reads: `resources` and `namespace`.

Everything else changes the manifests, so that an error could no longer name their lines: it is
refused, with the way out (`kubectl kustomize DIR | guestbook apply -f -`).
"""

from __future__ import annotations

from pathlib import Path

from lab.manifests.read import ManifestError, read
from lab.resources.document import DocumentError, documents

NAMES = ("kustomization.yaml", "kustomization.yml", "Kustomization")
_READ = ("apiVersion", "kind", "metadata", "resources")


def kustomization(folder: str) -> list[tuple[str, str]]:
    """Returns the texts of the resources a kustomization lists, folders included.

    Raises ManifestError.
    """
    root = Path(folder)
    file = next((root / name for name in NAMES if (root / name).is_file()), None)
    if file is None:
        raise ManifestError([f"{folder}: no {NAMES[0]} in this folder"])
    try:
        found = list(documents(file.read_text(encoding="utf-8")))
    except DocumentError as error:
        raise ManifestError([f"{file}:{error.line}: {error.reason}"]) from None
    if len(found) != 1 or not isinstance(found[0].value, dict):
        raise ManifestError([f"{file}: one mapping is expected"])
    document = found[0]
    refused = [
        f"{file}:{document.lines.get((key,), 1)}: {key}: the lab reads `resources` alone; use: "
        f"kubectl kustomize {folder} | guestbook apply -f -"
        for key in document.value
        if key not in _READ
    ]
    if refused:
        raise ManifestError(refused)
    resources = document.value.get("resources") or []
    texts: list[tuple[str, str]] = []
    for index, name in enumerate(resources):
        path = root / str(name)
        line = document.lines.get(("resources", index), 1)
        if "://" in str(name):
            raise ManifestError([f"{file}:{line}: {name}: only local files and folders"])
        if path.is_dir():
            texts += kustomization(str(path))
        elif path.is_file():
            texts += read(str(path))
        else:
            raise ManifestError([f"{file}:{line}: {name}: no such file or folder"])
    return texts
