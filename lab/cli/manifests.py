"""Manifests given with -f and -k."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from lab.cli.client import FailureError

Texts = list[tuple[str, str]]
"""The name and the content of each file."""


@contextlib.contextmanager
def errors() -> Iterator[None]:
    """Turns a ManifestError into a FailureError."""
    from lab.manifests.read import ManifestError

    try:
        yield
    except ManifestError as error:
        raise FailureError(*error.lines) from None


def texts(
    files: list[str] | None, kustomize: str | None = None, *, recursive: bool = False
) -> Texts:
    """Reads files, with `recursive` the folders below theirs, or a kustomization.

    Raises FailureError.
    """
    from lab.manifests.kustomize import kustomization
    from lab.manifests.read import read

    if bool(files) == bool(kustomize):
        raise FailureError("must specify one of -f and -k")
    with errors():
        if kustomize:
            return kustomization(kustomize)
        return [text for name in files or () for text in read(name, recursive=recursive)]
