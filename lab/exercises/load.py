"""Exercises on disk: folders of `istio/` that hold a `check/exercise.yaml`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from lab.exercises.format import Exercise, Step

FILE = "check/exercise.yaml"
"""The steps, in a lesson's folder; `kubectl apply -f FOLDER` reads no folder below it."""

_VARIABLE = re.compile(r"\$\{(\w+)\}")


class ExerciseError(Exception):
    """A mistake in an exercise or its surroundings; the message says what and where."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """An exercise and its folder."""

    name: str
    """The folder's name, such as `05-retries`."""
    folder: Path
    exercise: Exercise


def root(start: Path | None = None) -> Path:
    """Returns the folder `istio`: of the working directory, else of this source tree."""
    for folder in (start or Path.cwd(), Path(__file__).resolve().parents[2]):
        if (folder / "istio" / "01-sidecar").is_dir():
            return folder / "istio"
    raise ExerciseError("there is no folder istio/ here; run this in the guestbook's repository")


def read(folder: Path) -> Lesson:
    """Reads and checks one exercise; errors name the file and the field."""
    path = folder / FILE
    try:
        data = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ExerciseError(f"{path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ExerciseError(f"{path}: {error}") from error
    try:
        exercise = Exercise.model_validate(data)
    except ValidationError as error:
        problems = "\n".join(
            f"{path}: {'.'.join(str(part) for part in problem['loc']) or 'exercise'}: "
            f"{problem['msg']}"
            for problem in error.errors()
        )
        raise ExerciseError(problems) from error
    lesson = Lesson(folder.name, folder, exercise)
    if found := list(_problems(lesson)):
        raise ExerciseError("\n".join(f"{path}: {problem}" for problem in found))
    return lesson


def read_all(istio: Path) -> list[Lesson]:
    """Returns every exercise, in order of its number."""
    return [read(path.parents[1]) for path in sorted(istio.glob(f"*/{FILE}"))]


def pick(lessons: list[Lesson], names: list[str]) -> list[Lesson]:
    """Returns the lessons of these names; `05`, `5`, `retries` and `05-retries` are the same."""
    chosen: list[Lesson] = []
    for name in names:
        wanted = name.strip("/").rsplit("/", 1)[-1]
        found = [
            lesson
            for lesson in lessons
            if wanted == lesson.name
            or lesson.name.partition("-")[2] == wanted
            or (wanted.isdigit() and lesson.name.startswith(f"{int(wanted):02}-"))
        ]
        if not found:
            known = ", ".join(lesson.name for lesson in lessons)
            raise ExerciseError(f"there is no exercise {name!r}; there are {known}")
        chosen.extend(lesson for lesson in found if lesson not in chosen)
    return chosen


def files(lesson: Lesson) -> list[str]:
    """Returns every manifest the exercise names, relative to its folder, each once."""
    named: dict[str, None] = {}
    for step in (*lesson.exercise.steps, *lesson.exercise.lastly):
        for name in (*step.apply, *step.delete, *_files_of_command(lesson, step)):
            named[name] = None
    return list(named)


def typed_path(path: Path) -> str:
    """Returns a path as it is typed here: relative when it is below the working directory."""
    resolved = path.resolve()
    here = Path.cwd()
    return str(resolved.relative_to(here) if resolved.is_relative_to(here) else resolved)


def objects(path: Path) -> list[dict[str, Any]]:
    """Returns the Kubernetes objects of a file."""
    try:
        documents = list(yaml.safe_load_all(path.read_text()))
    except (OSError, yaml.YAMLError) as error:
        raise ExerciseError(f"{path}: {error}") from error
    return [document for document in documents if document]


def substitute(value: Any, variables: dict[str, str]) -> Any:
    """Returns `value` with `${NAME}` replaced in every string; an unknown name is an error."""
    if isinstance(value, str):

        def known(found: re.Match[str]) -> str:
            if found[1] not in variables:
                raise ExerciseError(f"${{{found[1]}}} has no value: no step before remembers it")
            return variables[found[1]]

        return _VARIABLE.sub(known, value)
    if isinstance(value, list):
        return [substitute(item, variables) for item in value]
    if isinstance(value, dict):
        return {key: substitute(item, variables) for key, item in value.items()}
    return value


def filled(step: Step, variables: dict[str, str]) -> Step:
    """Returns the step with its variables replaced."""
    kept = {name: getattr(step, name) for name in ("remember", "within", "minute_left")}
    raw = step.model_dump(by_alias=True, exclude_unset=True, exclude=set(kept))
    return Step.model_validate(substitute(raw, variables)).model_copy(update=kept)


def _files_of_command(lesson: Lesson, step: Step) -> Iterator[str]:
    """Yields the exercise's own files in a command; those of elsewhere are only looked at."""
    for word in (step.command or "").split():
        if "/" not in word and (lesson.folder / word).is_file():
            yield word


def _problems(lesson: Lesson) -> Iterator[str]:
    """Yields what the models can't see: missing files, variables without a value."""
    known = {"run"}
    for step in (*lesson.exercise.steps, *lesson.exercise.lastly):
        for name in (*step.apply, *step.delete):
            if not (lesson.folder / name).is_file():
                yield f"step {step.step!r}: there is no file {name}"
        for name in step.remember:
            known |= {name, f"{name}_IP"}
        used = set(_VARIABLE.findall(step.model_dump_json()))
        if missing := sorted(used - known):
            yield f"step {step.step!r}: {', '.join(missing)} is not remembered by a step before"
    for proof in lesson.exercise.counterproof:
        if not (lesson.folder / proof.file).is_file():
            yield f"counterproof: there is no file {proof.file}"
