"""The repository as tests read it: its folders and its exercises."""

from __future__ import annotations

from pathlib import Path

from lab.exercises import load

ROOT = Path(__file__).resolve().parents[2]
ISTIO = ROOT / "istio"
LESSONS = load.read_all(ISTIO)


def name_of(path: Path) -> str:
    """Returns a path below the repository, as the id of a test."""
    return str(path.relative_to(ROOT))
