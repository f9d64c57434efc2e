"""The files that name images, and the images they name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tests.support.repository import ROOT

LOCAL = "localhost/guestbook/"
"""The prefix of the project's own images, which resolve nowhere outside."""

IMAGE = re.compile(r"^[ \t-]*image: *(?:&\w+ )?([^\s#]+)", re.M)
FOLDERS = (".devcontainer", ".github", "compose", "docs", "istio", "k8s", "scripts", "tests/lab")
KINDS = {".env", ".hcl", ".json", ".md", ".sh", ".yaml", ".yml"}


def _files() -> Iterator[Path]:
    yield from (ROOT / name for name in ("docker-compose.yml", "docker-bake.hcl", "README.md"))
    yield ROOT / "services/Dockerfile"
    for folder in FOLDERS:
        yield from (p for p in sorted((ROOT / folder).rglob("*")) if p.suffix in KINDS)


FILES = [path for path in _files() if path.is_file()]
