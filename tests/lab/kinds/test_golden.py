"""The golden files are what the lab makes of their manifests."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.manifests import load, registry
from tests.support import golden


@pytest.mark.parametrize("manifest", golden.MANIFESTS, ids=lambda path: path.parent.name)
def test_what_a_resource_becomes(manifest: Path) -> None:
    assert golden.output(manifest).read_text() == golden.rendered(manifest), (
        "look at the change, then: python -m tests.support.golden"
    )


def test_there_is_one_for_each_kind_of_istio() -> None:
    shown = {item.kind for path in golden.MANIFESTS for item in load.load([str(path)]).resources}
    assert shown == {kind.kind for kind in registry.KINDS if "istio.io" in kind.group}
