"""Change one manifest of an exercise on purpose: its counter-proofs."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import yaml

from lab.exercises.format import CounterProof
from lab.exercises.load import ExerciseError, Lesson, objects

_DOT = re.compile(r"(?<!\\)\.")


def mutated(lesson: Lesson, proof: CounterProof) -> str:
    """The text of the changed manifest; raises when the change changes nothing."""
    documents = objects(lesson.folder / proof.file)
    changed = [change(document, proof) for document in documents]
    if changed == documents:
        raise ExerciseError(f"{lesson.name}: counterproof {proof.because!r} changes nothing")
    return yaml.safe_dump_all(changed, sort_keys=False)


def change(document: dict[str, Any], proof: CounterProof) -> dict[str, Any]:
    """A changed copy of one object; itself when the counter-proof is about another."""
    if proof.object and proof.object != f"{document['kind']}/{document['metadata']['name']}":
        return document
    changed = copy.deepcopy(document)
    for path in proof.remove:
        parent, key = _find(changed, path)
        try:
            del parent[key]
        except (KeyError, IndexError):
            raise ExerciseError(f"{proof.file}: there is no {path} to remove") from None
    for path, value in proof.set.items():
        parent, key = _find(changed, path)
        parent[key] = value
    return changed


def _find(document: Any, path: str) -> tuple[Any, Any]:
    """The container of a field and its key: `spec.http.0.fault`; a dot in a key is `\\.`."""
    *parents, last = [part.replace("\\.", ".") for part in _DOT.split(path)]
    for part in parents:
        try:
            document = document[int(part) if isinstance(document, list) else part]
        except (KeyError, IndexError, ValueError, TypeError):
            raise ExerciseError(f"there is no {part!r} on the way to {path}") from None
    return document, int(last) if isinstance(document, list) else last


def overlay(lesson: Lesson, proof: CounterProof, folder: Path) -> dict[str, Path]:
    """Write the changed manifest into `folder`; which file stands for which name."""
    path = folder / Path(proof.file).name
    path.write_text(mutated(lesson, proof))
    return {proof.file: path}
