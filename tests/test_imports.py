"""Test modules and benchmarks share code through tests/support alone."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.support.repository import ROOT


def imported(path: Path) -> set[str]:
    """Returns the modules that a file imports, with the names taken from packages."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.startswith("tests.")}


def test_no_module_imports_a_test_module_or_a_conftest() -> None:
    imports = {path: imported(path) for path in (ROOT / "tests").rglob("*.py")}
    assert any(imports.values())
    assert [
        (path, name)
        for path, names in imports.items()
        for name in names
        if any(part.startswith("test_") or part == "conftest" for part in name.split("."))
    ] == []


def test_benchmarks_import_helpers_alone() -> None:
    imports = {path: imported(path) for path in (ROOT / "bench").glob("*.py")}
    assert any(imports.values())
    assert [
        (path, name)
        for path, names in imports.items()
        for name in names
        if not name.startswith("tests.support.")
    ] == []
