"""The names of the project's own images, which resolve nowhere outside."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.images import FILES, IMAGE, LOCAL
from tests.support.repository import ISTIO, name_of

OURS = ("ui", "message", "guestbook", "load")
MENTION = re.compile(
    rf"(?<![\w./$}}-])((?:[\w.-]+(?::\d+)?/)*guestbook/(?:{'|'.join(OURS)}):[\w$])"
)
"""A reference to an image of ours, registry included."""


def strangers(text: str) -> list[str]:
    """Returns references to images of ours that a node would ask a registry for."""
    named = [m for m in MENTION.findall(text) if not m.startswith(LOCAL)]
    for image in IMAGE.findall(text):
        path, _, last = image.split("@")[0].rpartition("/")
        if last.partition(":")[0] in OURS and f"{path}/" != LOCAL:
            named.append(image)
    return named


NAMING = [p for p in FILES if MENTION.search(text := p.read_text()) or IMAGE.search(text)]
"""The files that name an image."""


def test_every_kind_of_file_is_read() -> None:
    assert {"docker-compose.yml", "k8s/base/ui-deployment.yaml", "docs/images.md"} <= {
        name_of(path) for path in NAMING
    }
    assert set(ISTIO.glob("*/README.md")) <= set(FILES)


@pytest.mark.parametrize("path", NAMING, ids=name_of)
def test_images_of_ours_resolve_on_this_machine_alone(path: Path) -> None:
    assert strangers(path.read_text()) == []


@pytest.mark.parametrize(
    "text",
    [
        "image: guestbook/ui:v1",
        "  - image: docker.io/guestbook/message:v1",
        "image: registry.example.com/ui",
        "image: ui:v2",
        "docker build -t guestbook/guestbook:v1 .",
        "`kubectl set image deployment/ui ui=guestbook/ui:v2`",
    ],
)
def test_a_name_that_resolves_outside_is_found(text: str) -> None:
    assert strangers(text)


@pytest.mark.parametrize(
    "text", ["image: localhost/guestbook/ui:v1", "see services/guestbook/ui.py", "$REGISTRY/ui:v1"]
)
def test_other_names_are_let_be(text: str) -> None:
    assert strangers(text) == []
