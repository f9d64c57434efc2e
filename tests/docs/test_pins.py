"""The images that are pulled, each pinned by digest."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.test_image_names import FILES, IMAGE, LOCAL, ROOT, name_of

BY_TAG = {
    "docker.io/envoyproxy/ratelimit": "no digest of its tag was to be had",
    "docker.io/openzipkin/zipkin-slim": "no digest of its tag was to be had",
    "openzipkin/zipkin-slim": "no digest of its tag was to be had",
}
"""Images that are pulled by their tag alone until Renovate brings the digest."""


def _pulled(path: Path) -> Iterator[str]:
    for image in IMAGE.findall(path.read_text()):
        # A Compose setting with its default.
        name = re.sub(r"^\$\{\w+:-(.*)\}$", r"\1", image)
        if not name.startswith((LOCAL, "*")):
            yield name


PINNED = [
    pytest.param(image, id=f"{name_of(path)}-{image}")
    for path in FILES
    if path.suffix in (".yaml", ".yml") and not name_of(path).startswith("tests/")
    for image in _pulled(path)
]


@pytest.mark.parametrize("image", PINNED)
def test_what_is_pulled_is_pinned_by_digest(image: str) -> None:
    if image.rpartition(":")[0] in BY_TAG:
        return
    assert re.search(r":[\w.-]+@sha256:[0-9a-f]{64}$", image), image


def test_the_base_image_is_pinned_by_digest() -> None:
    dockerfile = (ROOT / "services/Dockerfile").read_text()
    assert re.search(r"^ARG PYTHON_IMAGE=python:[\w.-]+@sha256:[0-9a-f]{64}$", dockerfile, re.M)
    stages = re.findall(r"^FROM (\S+)(?: AS (\S+))?$", dockerfile, re.M)
    names = {name for _, name in stages} | {"${PYTHON_IMAGE}"}
    assert {image for image, _ in stages} <= names
