"""The order of the lab's packages: imports go one way, without circles."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

LAB = Path(__file__).parents[2] / "lab"

BELOW: dict[str, set[str]] = {
    "names": set(),
    "files": set(),
    "durations": set(),
    "versions": set(),
    "resources": {"durations", "versions"},
    "model": {"resources"},
    "xds": {"model"},
    "kinds": {"durations", "model", "names", "resources", "versions", "xds"},
    "manifests": {"kinds", "resources"},
    "envoy": {"kinds", "model", "names", "resources", "versions", "xds"},
    "istiod": {"envoy", "files", "kinds", "manifests", "model", "names", "resources", "xds"},
    "explain": {"envoy", "kinds", "manifests", "model", "names", "observe", "resources", "xds"},
    "observe": {"kinds", "model", "names"},
    "standins": set(),
    "net": {"model", "names"},
    "cluster": {
        "files",
        "kinds",
        "manifests",
        "model",
        "names",
        "net",
        "observe",
        "resources",
        "standins",
        "versions",
    },
    "exercises": {"durations", "files", "names"},
}
"""The packages that a package may import; `cli` may import all, and nothing imports `cli`."""


def modules() -> dict[str, Path]:
    """The files of the lab by the name of their module."""
    found: dict[str, Path] = {}
    for path in sorted(LAB.rglob("*.py")):
        parts = ("lab", *path.relative_to(LAB).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(name: str) -> Iterator[str]:
    """The modules of the lab that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (item.name for item in node.names if item.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            for item in node.names:
                inner = f"{node.module}.{item.name}"
                yield inner if inner in MODULES else node.module


GRAPH = {name: set(imports(name)) - {name} for name in MODULES}


def package(module: str) -> str:
    """`kinds` for `lab.kinds.gateway.checks`."""
    return [*module.split("."), ""][1]


def test_a_package_imports_only_those_below_it() -> None:
    upward = [
        f"{name} imports {imported}"
        for name, found in GRAPH.items()
        for imported in sorted(found)
        if package(name) in BELOW
        and package(imported) not in BELOW[package(name)] | {package(name), ""}
    ]
    assert upward == []


def test_every_package_has_its_place() -> None:
    assert {package(name) for name in MODULES} - {""} == {*BELOW, "cli"}
    order = tuple(TopologicalSorter(BELOW).static_order())
    assert set(order) == set(BELOW)


def test_no_modules_import_each_other() -> None:
    """An import inside a function counts too: it only hides a circle."""
    try:
        tuple(TopologicalSorter(GRAPH).static_order())
    except CycleError as error:
        raise AssertionError(" → ".join(error.args[1])) from None


def test_services_and_lab_do_not_know_each_other() -> None:
    repository = LAB.parent
    for half, other in (("lab", "services"), ("services", "lab")):
        for path in (repository / half).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                named = (
                    [node.module or ""]
                    if isinstance(node, ast.ImportFrom)
                    else [item.name for item in node.names]
                    if isinstance(node, ast.Import)
                    else []
                )
                assert other not in {name.split(".")[0] for name in named}, path
