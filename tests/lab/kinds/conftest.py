"""Meshes shared by the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import harness
from tests.support.harness import Mesh


@pytest.fixture(scope="module")
def shared_mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """`client` with a sidecar, and `server` in two versions, without."""
    with harness.mesh(tmp_path_factory.mktemp("mesh")) as made:
        made.add("client", proxy="sidecar")
        made.add("server-v1", app="server", version="1.0")
        made.add("server-v2", app="server", version="2.0")
        made.add("other", app="other")
        made.service("client")
        made.service("server")
        made.service("other")
        made.start()
        yield made


@pytest.fixture
def mesh(shared_mesh: Mesh) -> Iterator[Mesh]:
    """The shared mesh without any Istio configuration, its servers well-behaved."""
    shared_mesh.calm()
    yield shared_mesh
    shared_mesh.apply()
