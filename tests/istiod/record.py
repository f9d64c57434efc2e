"""The record of what istiod makes of the scenarios: `python -m tests.istiod.record ISTIOD`.

`config/base.json` has the configuration of each proxy of the base. The file of a scenario has what
its manifests change: for each resource the proxies, and the change (`difference.change`). A proxy
that the base lacks is written as a change of the proxy of the base that it resembles most.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lab.manifests.read import ManifestError
from tests.istiod.difference import change, changed
from tests.istiod.normal import name_of
from tests.istiod.scenarios import HERE, all_scenarios
from tests.istiod.world import World

Json = dict[str, Any]
Proxy = dict[str, Json]
"""The resources of a proxy by type and name: `clusters outbound|80||ui`."""

FOLDER = HERE / "config"
WIDTH = 120


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    scenarios = all_scenarios()
    print(f"==> Asking istiod about {len(scenarios)} scenarios")
    try:
        answers = ask(Path(sys.argv[1]), {name: one.world() for name, one in scenarios.items()})
    except ManifestError as error:
        print(f"The lab refuses a pod or a Service: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError:
        print("istiod refuses a scenario, for the reason above", file=sys.stderr)
        return 1
    base = answers["base"]
    FOLDER.mkdir(exist_ok=True)
    for name, one in scenarios.items():
        found = {
            "inputs": digest(one.world()),
            **written(base if name != "base" else {}, answers[name]),
        }
        (FOLDER / f"{name}.json").write_text(rendered(found) + "\n")
    for file in FOLDER.glob("*.json"):
        if file.stem not in scenarios:
            file.unlink()
    size = sum(file.stat().st_size for file in FOLDER.glob("*.json"))
    print(f"==> Wrote {FOLDER.relative_to(Path.cwd())}, {size // 1024} KiB")
    return 0


def digest(world: World) -> str:
    """Returns a short digest of all that istiod is told."""
    text = json.dumps([world.files, world.environment], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# --- asking ---------------------------------------------------------------------------------------


def ask(binary: Path, worlds: Mapping[str, World]) -> dict[str, dict[str, Proxy]]:
    """Returns istiod's configuration of each proxy of each scenario.

    Raises CalledProcessError. istiod keeps parts of the mesh configuration for as long as it runs,
    so scenarios share a process only when they share that.
    """
    with tempfile.TemporaryDirectory() as folder:
        groups: dict[str, list[str]] = {}
        for name, world in worlds.items():
            (Path(folder) / name).mkdir()
            for file, text in world.files.items():
                (Path(folder) / name / file).write_text(text)
            same = json.dumps([world.files["mesh.yaml"], world.environment], sort_keys=True)
            groups.setdefault(same, []).append(name)
        for names in groups.values():
            subprocess.run(
                [str(binary.resolve()), "config", *names],
                cwd=folder,
                env={**os.environ, **worlds[names[0]].environment},
                stdout=subprocess.DEVNULL,
                check=True,
            )
        return {name: _proxies(Path(folder) / name / "istiod") for name in worlds}


def _proxies(folder: Path) -> dict[str, Proxy]:
    files = sorted(folder.glob("*.json"))
    return {file.stem: _named(json.loads(file.read_text())) for file in files}


def _named(config: Mapping[str, Iterable[Json]]) -> Proxy:
    return {
        f"{kind} {name_of(item)}": _stable(item) for kind, items in config.items() for item in items
    }


def _stable(value: Any) -> Any:
    """Returns a value with the one list sorted whose order changes from run to run in istiod."""
    if isinstance(value, list):
        return [_stable(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: sorted(item, key=json.dumps) if key == "query_parameters" else _stable(item)
        for key, item in value.items()
    }


# --- writing and reading --------------------------------------------------------------------------


def written(base: Mapping[str, Proxy], answer: Mapping[str, Proxy]) -> Json:
    """Returns an answer as what it changes in another one."""
    like = {name: _most_like(base, name, answer[name]) for name in answer}
    resources: dict[str, list[Json]] = {}
    for name in sorted(answer):
        before, after = base.get(like[name], {}), answer[name]
        for key in sorted(before.keys() | after.keys()):
            if before.get(key) != after.get(key):
                one = _entry(before, key, after.get(key))
                entries = resources.setdefault(key, [])
                same = next((e for e in entries if {**e, "proxies": []} == one), None)
                if same is None:
                    entries.append({**one, "proxies": [name]})
                else:
                    same["proxies"].append(name)
    return {
        "proxies": {name: like[name] for name in sorted(answer)},
        "resources": dict(sorted(resources.items())),
    }


def _entry(before: Proxy, key: str, after: Json | None) -> Json:
    """Returns a change of a resource; a new one is written like another, if that is short."""
    if key in before or after is None:
        return {"proxies": [], "change": change(before.get(key), after)}
    like = [other for other in sorted(before) if other.split()[0] == key.split()[0]]
    changes: list[Json] = [{"proxies": [], "change": after}]
    changes += [
        {"proxies": [], "like": other, "change": change(before[other], after)} for other in like
    ]
    return min(changes, key=lambda found: len(json.dumps(found)))


def _most_like(base: Mapping[str, Proxy], name: str, proxy: Proxy) -> str:
    """Returns the proxy of the base that needs the fewest changes."""
    if name in base or not base:
        return name
    return min(sorted(base), key=lambda other: len(json.dumps(change(base[other], proxy))))


def read(base: Mapping[str, Proxy], record: Json) -> dict[str, Proxy]:
    """Returns the configuration of each proxy of a scenario."""
    before = {name: base.get(like, {}) for name, like in record["proxies"].items()}
    result = {name: dict(found) for name, found in before.items()}
    for key, entries in record["resources"].items():
        for entry in entries:
            for name in entry["proxies"]:
                found = changed(before[name].get(entry.get("like", key)), entry["change"])
                if found is None:
                    del result[name][key]
                else:
                    result[name][key] = found
    return result


@functools.cache
def recorded(scenario: str) -> tuple[str, dict[str, Proxy]]:
    """Returns the digest of the inputs and the configuration of each proxy of a scenario."""
    record = json.loads((FOLDER / f"{scenario}.json").read_text())
    base = {} if scenario == "base" else recorded("base")[1]
    return record["inputs"], read(base, record)


def lists(proxy: Proxy) -> dict[str, list[Json]]:
    """Returns a proxy's resources as lists by type."""
    result: dict[str, list[Json]] = {}
    for key, item in proxy.items():
        result.setdefault(key.partition(" ")[0], []).append(item)
    return result


def rendered(value: Any, indent: int = 0) -> str:
    """Returns JSON in which whatever fits has one line."""
    flat = json.dumps(value, ensure_ascii=False)
    if len(flat) + indent <= WIDTH or not isinstance(value, dict | list) or not value:
        return flat
    inside = " " * (indent + 1)
    if isinstance(value, dict):
        items = [
            f"{inside}{json.dumps(key)}: {rendered(item, indent + 1)}"
            for key, item in value.items()
        ]
        return "{\n" + ",\n".join(items) + "\n" + " " * indent + "}"
    items = [inside + rendered(item, indent + 1) for item in value]
    return "[\n" + ",\n".join(items) + "\n" + " " * indent + "]"


if __name__ == "__main__":
    sys.exit(main())
