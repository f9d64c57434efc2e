"""The repository as tests read it: its folders and its exercises."""

from __future__ import annotations

from pathlib import Path

from lab.exercises import load

ROOT = Path(__file__).resolve().parents[2]
ISTIO = ROOT / "istio"
MESH = (ROOT / "k8s/base", ISTIO / "install/istio.yaml", *(ISTIO / "02-ingress").glob("*.yaml"))
"""The guestbook with its gateway, as the first lessons leave it."""

LESSONS = load.read_all(ISTIO)


def name_of(path: Path) -> str:
    """Returns a path below the repository, as the id of a test."""
    return str(path.relative_to(ROOT))
