"""One lab for the tests of the command and of the pods."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import issuer as issuers
from tests.support.lab import SMALL, Lab, left_behind, running


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab with a mesh and the small application; it must leave no process."""
    folder = tmp_path_factory.mktemp("lab") / "state"
    with running(folder, "-f", str(SMALL)) as started:
        yield started
    assert left_behind(folder) == []


@pytest.fixture(scope="session")
def issuer() -> Iterator[str]:
    """The URL of an issuer of tokens."""
    with issuers.serving() as url:
        yield url
