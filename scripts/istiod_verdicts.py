"""Writes istiod's verdicts on manifests: `python -m scripts.istiod_verdicts ISTIOD`.

ISTIOD is the program of `scripts/istiod`. It is asked about each document of
`tests/istiod/verdicts/`, and its answer becomes the comments above the document.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "tests" / "istiod" / "verdicts"
ACCEPTED, SCHEMA, REFUSED, WARNING = "accepted", "refused by the schema", "refused: ", "warning: "


@dataclass(frozen=True)
class Verdict:
    """The answer of a cluster to a document."""

    refused: bool
    words: tuple[str, ...] = ()
    """The refusals of istiod's webhook; none where the schema refuses."""
    warnings: tuple[str, ...] = ()

    def lines(self) -> Iterator[str]:
        if self.refused:
            yield from [REFUSED + words for words in self.words] or [SCHEMA]
        else:
            yield ACCEPTED
            yield from (WARNING + warning for warning in self.warnings)


def recorded(file: Path) -> Iterator[tuple[Verdict, str]]:
    """Yields the documents of a file with the verdicts written above them."""
    for part in file.read_text(encoding="utf-8").split("---\n"):
        lines = part.splitlines()
        comments = [line.removeprefix("# ") for line in lines if line.startswith("# ")]
        document = "\n".join(line for line in lines if not line.startswith("# "))
        if document.strip():
            yield read(comments), f"{document.strip()}\n"


def read(comments: list[str]) -> Verdict:
    """Returns a verdict from its lines."""
    words = tuple(line.removeprefix(REFUSED) for line in comments if line.startswith(REFUSED))
    found = [line.removeprefix(WARNING) for line in comments if line.startswith(WARNING)]
    return Verdict(ACCEPTED not in comments, words, tuple(found))


def ask(program: str, documents: list[str]) -> list[Verdict]:
    """Returns istiod's verdicts on some documents."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "manifests.yaml"
        file.write_text("---\n".join(documents), encoding="utf-8")
        command = [program, "validate", str(file)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return [answered(answer) for answer in answers]


def answered(answer: dict[str, Any]) -> Verdict:
    """Returns the verdict in an answer of the program."""
    warnings = tuple(texts("\n".join(answer.get("warnings", ()))))
    if "schema" in answer:
        return Verdict(True)
    words = re.sub(r"invalid policy \S+: ", "", answer.get("webhook", ""))
    return Verdict(bool(words), tuple(texts(words)), warnings)


def texts(errors: str) -> Iterator[str]:
    """Yields the single errors of a list as Go prints it, without what its libraries add."""
    for line in errors.splitlines():
        text = re.sub(r": (strconv|netip)\..*|: error parsing regexp.*", "", line)
        text = text.strip().removeprefix("* ")
        if text and not re.fullmatch(r"\d+ errors? occurred:|\| .*|ERROR: .*", text):
            yield text


def main() -> int:
    """Writes all verdicts again; returns the exit status."""
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    for file in sorted(FOLDER.glob("*.yaml")):
        documents = [document for _, document in recorded(file)]
        verdicts = ask(sys.argv[1], documents)
        parts = [
            "".join(f"# {line}\n" for line in verdict.lines()) + document
            for verdict, document in zip(verdicts, documents, strict=True)
        ]
        file.write_text("---\n".join(parts), encoding="utf-8")
        print(f"==> {file.name}: {len(documents)} verdicts")
    return 0


if __name__ == "__main__":
    sys.exit(main())
