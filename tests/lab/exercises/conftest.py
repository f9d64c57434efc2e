"""One lab, with the whole guestbook in it, for the exercises that are run for real."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from lab.exercises import load, restore
from tests.support.cluster import REPOSITORY
from tests.support.lab import Lab, condition, left_behind, running

ISTIO = REPOSITORY / "istio"


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab as `guestbook up` starts it; it must leave no process."""
    folder = tmp_path_factory.mktemp("exercises") / "state"
    with running(folder) as started:
        yield started
    assert left_behind(folder) == []


def picture(lab: Lab) -> dict[str, Any]:
    """All that an exercise could change: objects as they were written, pods, the record."""
    kinds = {
        name.kind for lesson in load.read_all(ISTIO) for name in restore.touched(lesson, ISTIO)
    }
    objects = lab.json(",".join(sorted(kinds - {"pod"})), "-A")["items"]
    seen: dict[str, Any] = {
        f"{restore.name_of(item)}": (
            item.get("spec"),
            item.get("data"),
            item["metadata"].get("labels"),
        )
        for item in objects
    }
    pods = [p for p in lab.json("pods", "-A")["items"] if "deletionTimestamp" not in p["metadata"]]
    seen["pods"] = sorted((p["metadata"]["name"], condition(p)) for p in pods)
    seen["records"] = [path.name for path in lab.folder.glob("exercise-*")]
    return seen
