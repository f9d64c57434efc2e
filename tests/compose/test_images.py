"""Contents of the images: the service, its locked dependencies, nothing else."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.compose.stack import docker, require_engine, stand_ins
from tests.support.repository import ROOT

pytestmark = pytest.mark.timeout(900)

SERVICES = ("ui", "message", "guestbook")


@pytest.fixture(scope="module")
def images() -> Iterator[dict[str, str]]:
    """`make images` under names of this test; the reference by target."""
    require_engine()
    registry = "localhost/guestbook-test-images"
    found = {name: f"{registry}/{name}:test" for name in (*SERVICES, "ui-v2")}
    tags = [f"--set={target}.tags={image}" for target, image in found.items()]
    result = subprocess.run(
        ["scripts/images.sh", *tags],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=ROOT,
        env=os.environ | stand_ins() | {"TAG": "1.2.3", "SOURCE": "https://example.com/guestbook"},
    )
    assert result.returncode == 0, result.stderr
    yield found
    docker("image", "rm", *found.values(), check=False)


def run(image: str, *command: str) -> str:
    """Run a command in the image as strictly as the manifests do."""
    strict = ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--network=none"]
    return docker("run", "--rm", *strict, image, *command)


def inspect(image: str) -> dict[str, Any]:
    details: dict[str, Any] = json.loads(docker("image", "inspect", image))[0]
    return details


@pytest.mark.parametrize("service", SERVICES)
def test_each_image_has_its_own_code_and_dependencies(images: dict[str, str], service: str) -> None:
    code = run(images[service], "python", "-c", "import os; print(*os.listdir('/app/services'))")
    assert set(code.split()) == {"__init__.py", "__pycache__", "common", service}
    lock = (ROOT / f"requirements/{service}.txt").read_text()
    locked = set(re.findall(r"^([\w.-]+)==", lock, re.M))
    script = (
        "from importlib.metadata import distributions; import site\n"
        "print(*(d.metadata['name'] for d in distributions(path=site.getsitepackages())))"
    )
    names = run(images[service], "python", "-c", script).split()
    installed = {re.sub(r"[-_.]+", "-", name).lower() for name in names}
    assert installed
    assert installed <= locked
    others = {"ui": "sqlalchemy", "message": "sqlalchemy", "guestbook": "redis"}
    assert others[service] not in installed


@pytest.mark.parametrize("service", SERVICES)
def test_no_installer_no_compiler_no_cache(images: dict[str, str], service: str) -> None:
    script = (
        "import importlib.util as u, shutil\n"
        "print([m for m in ('pip', 'ensurepip', 'setuptools') if u.find_spec(m)])\n"
        "print([p for p in ('pip', 'pip3', 'cc', 'gcc', 'make', 'git') if shutil.which(p)])\n"
    )
    assert run(images[service], "python", "-c", script).split() == ["[]", "[]"]
    caches = docker(
        "run", "--rm", "--user=0", images[service], "find", "/", "-xdev", "-path", "*/.cache/pip"
    )
    assert caches == ""


@pytest.mark.parametrize("service", SERVICES)
def test_it_runs_as_a_number_and_says_what_it_is(images: dict[str, str], service: str) -> None:
    config = inspect(images[service])["Config"]
    assert config["User"] == "65532:65532"
    assert config["Cmd"] == ["python", "-m", f"services.{service}"]
    assert config["Entrypoint"] is None
    labels = config["Labels"]
    of_image = {name.removeprefix("org.opencontainers.image."): labels[name] for name in labels}
    assert of_image["title"]
    assert of_image["description"]
    assert of_image["licenses"] == "Apache-2.0"
    assert of_image["version"] == "1.2.3"
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", of_image["revision"])
    assert of_image["source"] == "https://example.com/guestbook"


@pytest.mark.parametrize("service", SERVICES)
def test_the_code_is_the_last_layer_and_small(images: dict[str, str], service: str) -> None:
    columns = "--format={{.Size}} {{.CreatedBy}}"
    history = docker("history", "--human=false", "--no-trunc", columns, images[service])
    lines = history.splitlines()
    layers = [line.split(" ", 1) for line in lines if not line.startswith("0 ")]
    assert "/app" in layers[0][1]
    assert int(layers[0][0]) < 500_000
    assert "/venv" in layers[1][1]


def test_ui_v2_is_the_same_code_with_another_background(images: dict[str, str]) -> None:
    one, two = inspect(images["ui"]), inspect(images["ui-v2"])
    assert one["RootFS"] == two["RootFS"]
    changed = set(two["Config"]["Env"]) - set(one["Config"]["Env"])
    assert changed == {"UI_BACKGROUND=goldenrod", "DEMO_VERSION=2.0"}
