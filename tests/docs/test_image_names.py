"""The names of the project's own images, which resolve nowhere outside."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("ui", "message", "guestbook", "load")
LOCAL = "localhost/guestbook/"
FOLDERS = (".devcontainer", ".github", "compose", "docs", "istio", "k8s", "scripts", "tests/lab")
KINDS = {".env", ".hcl", ".json", ".md", ".sh", ".yaml", ".yml"}

MENTION = re.compile(
    rf"(?<![\w./$}}-])((?:[\w.-]+(?::\d+)?/)*guestbook/(?:{'|'.join(OURS)}):[\w$])"
)
"""A reference to an image of ours, registry included."""
IMAGE = re.compile(r"^[ \t-]*image: *(?:&\w+ )?([^\s#]+)", re.M)


def _files() -> Iterator[Path]:
    yield from (ROOT / name for name in ("docker-compose.yml", "docker-bake.hcl", "README.md"))
    yield ROOT / "services/Dockerfile"
    for folder in FOLDERS:
        yield from (p for p in sorted((ROOT / folder).rglob("*")) if p.suffix in KINDS)


FILES = [path for path in _files() if path.is_file()]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def strangers(text: str) -> list[str]:
    """Returns references to images of ours that a node would ask a registry for."""
    named = [m for m in MENTION.findall(text) if not m.startswith(LOCAL)]
    for image in IMAGE.findall(text):
        path, _, last = image.split("@")[0].rpartition("/")
        if last.partition(":")[0] in OURS and f"{path}/" != LOCAL:
            named.append(image)
    return named


def test_every_kind_of_file_is_read() -> None:
    names = {name_of(path) for path in FILES}
    assert {"docker-compose.yml", "k8s/base/ui-deployment.yaml", "docs/images.md"} <= names
    assert sum(name.startswith("istio/") and name.endswith(".md") for name in names) >= 15


@pytest.mark.parametrize("path", FILES, ids=name_of)
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
