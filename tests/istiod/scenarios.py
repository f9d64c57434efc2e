"""Scenarios: sets of manifests of which istiod's configuration is known.

Each begins with the base: `k8s/base`, `istio/install` and exercise 02's manifests. A file in
`scenarios/` or in `tests/lab/explain/cases` is a scenario; `exercises.yaml` lists the states of the
exercises by the files that they have applied. A scenario's head may say

    # with: FILE...       manifests that are applied before it
    # unready: POD...     pods that are not ready

`python -m tests.istiod.scenarios FOLDER FILE` writes the scenario of a file for `istiod config`.
"""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from lab.manifests.read import ManifestError
from lab.model import Snapshot
from tests.istiod.world import Text, World, snapshot, texts, world
from tests.support import sample
from tests.support.repository import ROOT

HERE = Path(__file__).parent
BASE = ("k8s/base", "istio/install/istio.yaml", "istio/02-ingress")
GATEWAY = ROOT / "lab/cluster/gateway.yaml"
FILES = (HERE / "scenarios", ROOT / "tests/lab/explain/cases")


@dataclass(frozen=True, slots=True)
class Scenario:
    name: str
    paths: tuple[Path, ...]
    unready: tuple[str, ...] = ()

    def texts(self) -> list[Text]:
        """Returns the manifests in the order of their age, the ingress gateway last."""
        return texts((*self.paths, GATEWAY))

    def world(self) -> World:
        """Returns the scenario for istiod, which doesn't read certificates."""
        return world(self.texts(), self.unready)

    def snapshot(self) -> Snapshot:
        """Returns the scenario for the lab. Raises ManifestError where it refuses a manifest."""
        found = [(name, _with_certificates(text)) for name, text in self.texts()]
        return snapshot(found, self.unready)


def _with_certificates(text: str) -> str:
    """Returns a manifest with a key pair in the place of the words CERTIFICATE and KEY."""
    if "CERTIFICATE" not in text:
        return text
    certificate, key = (json.dumps(item.decode()) for item in sample.certificate())
    pair = {"CERTIFICATE": certificate, "KEY": key}
    return re.sub(r"\b(CERTIFICATE|KEY)\b", lambda word: pair[word[0]], text)


@functools.cache
def all_scenarios() -> Mapping[str, Scenario]:
    """Returns the scenarios by name, the base first."""
    found = [Scenario("base", _paths(BASE))]
    listed = yaml.safe_load((HERE / "exercises.yaml").read_text())
    found += [Scenario(name, _paths(paths)) for name, paths in listed.items()]
    found += [_of_file(file) for folder in FILES for file in sorted(folder.glob("*.yaml"))]
    names = [scenario.name for scenario in found]
    if len(set(names)) < len(names):
        raise ValueError("two scenarios of one name")
    return {scenario.name: scenario for scenario in found}


def _paths(names: tuple[str, ...] | list[str]) -> tuple[Path, ...]:
    return tuple(ROOT / name for name in names)


def _of_file(file: Path) -> Scenario:
    head = dict(re.findall(r"^# (with|unready): (.*)$", file.read_text(), re.MULTILINE))
    before = (*BASE, *head.get("with", "").split())
    return Scenario(file.stem, (*_paths(before), file), tuple(head.get("unready", "").split()))


def main() -> int:
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    folder, file = map(Path, sys.argv[1:])
    folder.mkdir(parents=True, exist_ok=True)
    try:
        found = _of_file(file.resolve()).world()
    except ManifestError as error:
        print(error, file=sys.stderr)
        return 1
    for name, text in found.files.items():
        (folder / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
