"""One lab, with the whole guestbook in it, for the exercises that are run for real."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.lab import Lab, left_behind, running


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab as `guestbook up` starts it; it must leave no process."""
    folder = tmp_path_factory.mktemp("exercises") / "state"
    with running(folder) as started:
        yield started
    assert left_behind(folder) == []
