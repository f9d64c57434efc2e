"""Refuses docstrings that begin with a relative clause (`python -m scripts.docstrings`).

Docstrings are those of modules, classes and functions, and the strings that document attributes.
They begin with a noun or a verb: "Routes of the page", "Returns the port".
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("lab", "bench", "scripts", "services", "tests")
REFUSED = re.compile(r"(How|That|What|Where|Which|Who|Whose)\b")


def main() -> int:
    """Prints each refused docstring with its file and line; returns the exit status."""
    files = [file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.py"))]
    refused = [
        f"{file.relative_to(ROOT)}:{line}: {text.splitlines()[0]}"
        for file in files
        for line, text in docstrings(file.read_text(encoding="utf-8"))
        if REFUSED.match(text)
    ]
    for each in refused:
        print(each)
    if refused:
        print(f"{len(refused)} docstrings begin with {REFUSED.pattern[:-2]}", file=sys.stderr)
    return 1 if refused else 0


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Yields the strings that stand alone as statements, with their lines."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield node.lineno, text.strip()


if __name__ == "__main__":
    sys.exit(main())
