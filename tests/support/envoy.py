"""An Envoy with a bootstrap of a test's own, without a mesh."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab.istiod.process import binary

LOG = "envoy.log"


@contextmanager
def envoy(
    folder: Path, bootstrap: dict[str, Any], *options: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Starts an Envoy, which need not listen yet; it is killed at the end."""
    file = folder / "bootstrap.json"
    file.write_text(json.dumps(bootstrap))
    with (folder / LOG).open("wb") as log:
        process = subprocess.Popen(
            [str(binary()), "-c", str(file), "--concurrency", "1", *options],
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
