"""Counter-proofs: an exercise with a manifest changed on purpose, which must make a step fail."""

from __future__ import annotations

import copy
import re
import tempfile
from pathlib import Path
from typing import Any

import yaml

from lab.exercises.format import CounterProof
from lab.exercises.load import ExerciseError, Lesson, objects
from lab.exercises.result import Result
from lab.exercises.runner import Runner
from lab.exercises.steps import Change
from lab.exercises.target import Target

_DOT = re.compile(r"(?<!\\)\.")


def obstacle(lesson: Lesson, proof: CounterProof, target: Target) -> str | None:
    """Returns why a counter-proof can't be run here; None when it can."""
    if target.name not in proof.targets:
        return f"only on {' and '.join(proof.targets)}"
    step = next(s for s in lesson.exercise.steps if s.step.startswith(proof.fails))
    return target.lacks(step.needs) if step.needs else None


def run_changed(runner: Runner, lesson: Lesson, proof: CounterProof) -> Result:
    """Runs an exercise with one manifest changed."""
    with tempfile.TemporaryDirectory(prefix="guestbook-") as folder:
        path = Path(folder) / Path(proof.file).name
        path.write_text(mutated(lesson, proof))
        return runner.run(lesson, Change({proof.file: path}, proof.fails))


def shortcoming(result: Result, proof: CounterProof) -> str | None:
    """Returns why a changed run proves nothing; None when the right step failed by what was seen.

    A command that fails proves nothing, as nothing was looked at.
    """
    failed = result.failed
    if failed is None and result.problems:
        return "; ".join(result.problems)
    if failed is None:
        return f"the step {proof.fails!r} had to fail, but every step passed"
    if not failed.step.startswith(proof.fails):
        return f"the step {proof.fails!r} had to fail, but it failed at {failed.step!r}"
    if failed.error:
        return f"the step {proof.fails!r} could not be done: {failed.differences[0].seen}"
    return "; ".join(result.problems) or None


def mutated(lesson: Lesson, proof: CounterProof) -> str:
    """Returns the text of the changed manifest. Raises ExerciseError when nothing changes."""
    documents = objects(lesson.folder / proof.file)
    changed = [_changed(document, proof) for document in documents]
    if changed == documents:
        raise ExerciseError(f"{lesson.name}: counterproof {proof.because!r} changes nothing")
    return yaml.safe_dump_all(changed, sort_keys=False)


def _changed(document: dict[str, Any], proof: CounterProof) -> dict[str, Any]:
    """Returns a changed copy of one object; itself when the counter-proof is about another."""
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
    """Returns the container and the key of `spec.http.0.fault`; a dot in a key is `\\.`."""
    *parents, last = [part.replace("\\.", ".") for part in _DOT.split(path)]
    for part in parents:
        try:
            document = document[int(part) if isinstance(document, list) else part]
        except (KeyError, IndexError, ValueError, TypeError):
            raise ExerciseError(f"there is no {part!r} on the way to {path}") from None
    return document, int(last) if isinstance(document, list) else last
