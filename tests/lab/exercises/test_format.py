"""check/exercise.yaml: what is there is well formed, what is wrong is refused with its place."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from lab.exercises import load
from lab.exercises.counterproof import mutated
from lab.exercises.format import Exercise
from lab.exercises.statistics import MISS
from scripts import exercise_schema
from tests.support.repository import ISTIO, LESSONS, ROOT

NAMES = [lesson.name for lesson in LESSONS]


def test_the_exercises_are_numbered_without_a_gap() -> None:
    assert sorted(path.name for path in ISTIO.glob("[0-9]*-*")) == NAMES
    assert [int(name[:2]) for name in NAMES] == list(range(1, len(NAMES) + 1))


def test_the_published_schema_is_that_of_the_models() -> None:
    published = (ISTIO / "exercise.schema.json").read_text()
    assert published == exercise_schema.text(), (
        "run: python -m scripts.exercise_schema > istio/exercise.schema.json"
    )


@pytest.mark.parametrize("lesson", LESSONS, ids=NAMES)
def test_an_editor_with_the_schema_accepts_every_exercise(lesson: load.Lesson) -> None:
    text = (lesson.folder / load.FILE).read_text()
    assert text.startswith("# yaml-language-server: $schema=../../exercise.schema.json\n")
    published = json.loads((ISTIO / "exercise.schema.json").read_text())
    jsonschema.Draft202012Validator(published).validate(yaml.safe_load(text))


@pytest.mark.parametrize("lesson", LESSONS, ids=NAMES)
def test_every_manifest_of_a_folder_is_used(lesson: load.Lesson) -> None:
    own = {path.name for path in lesson.folder.glob("*.yaml")}
    assert own == {name for name in load.files(lesson) if "/" not in name}


@pytest.mark.parametrize("lesson", LESSONS, ids=NAMES)
def test_every_counterproof_changes_a_manifest_the_exercise_applies(lesson: load.Lesson) -> None:
    applied = {name for step in lesson.exercise.steps for name in step.apply}
    applied |= {word for s in lesson.exercise.steps for word in (s.command or "").split()}
    for proof in lesson.exercise.counterproof:
        assert proof.file in applied
        assert mutated(lesson, proof)


def test_all_shares_together_fail_a_correct_system_less_than_once_in_a_million_runs() -> None:
    shares = sum(len(s.expect.shares) for lesson in LESSONS for s in lesson.exercise.steps)
    assert 0 < shares * MISS <= 1e-6


def test_every_step_of_the_codelab_has_its_place() -> None:
    index = (ROOT / "docs/codelab.md").read_text()
    lines = re.findall(r"^\| E\d\d \|.*$", index, re.MULTILINE)
    rows = [(cells[1].strip(), cells[-2].strip()) for cells in (line.split("|") for line in lines)]
    assert [number for number, _ in rows] == [f"E{n:02}" for n in range(1, 53)]
    checked = {step for lesson in LESSONS for step in lesson.exercise.codelab}
    # Image v2 is built by `make images`; the exercise that applies it names the step too.
    assert checked - {"E20"} == {number for number, runs in rows if runs}


VALID = {
    "title": "t",
    "teaches": "x",
    "minutes": 1,
    "codelab": [],
    "steps": [{"step": "one", "send": {"url": "/"}}],
    "counterproof": [{"because": "b", "file": "f", "remove": "spec", "fails": "one"}],
}


def write(folder: Path, text: str) -> None:
    """A lesson's folder that holds nothing but its steps."""
    path = folder / load.FILE
    path.parent.mkdir()
    path.write_text(text)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"steps": [{"step": "one", "sned": {}}]}, "sned"),
        ({"steps": [{"step": "one", "send": {"url": "ui"}}]}, "url is a path"),
        ({"steps": [{"step": "one", "send": {"from": "curl", "url": "/"}}]}, "whole URL"),
        ({"steps": [{"step": "one", "send": {"url": "/", "tcp": "a:1"}}]}, "exactly one of"),
        ({"steps": [{"step": "one", "within": "5"}]}, "not a duration"),
        ({"steps": [{"step": "one", "expect": {"answer": {"status": 200}}}]}, "something to send"),
        ({"steps": [{"step": "one", "command": "rm -r /"}]}, "kubectl, istioctl or guestbook"),
        ({"counterproof": []}, "at least 1 item"),
        ({"counterproof": [{"because": "b", "file": "f", "fails": "one"}]}, "remove or set"),
        (
            {"counterproof": [{"because": "b", "file": "f", "remove": "x", "fails": "two"}]},
            "no step begins with",
        ),
        (
            {
                "steps": [
                    {
                        "step": "one",
                        "within": "5s",
                        "send": {"url": "/"},
                        "expect": {"shares": [{"of": {"status": 200}, "expected": 0.5}]},
                    }
                ]
            },
            "measured once",
        ),
    ],
)
def test_what_is_wrong_is_refused(tmp_path: Path, change: dict[str, object], reason: str) -> None:
    write(tmp_path, yaml.safe_dump({**VALID, **change}))
    with pytest.raises(load.ExerciseError, match=re.escape(str(tmp_path))) as error:
        load.read(tmp_path)
    assert reason in str(error.value)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    steps = [{"step": "one", "apply": "nowhere.yaml", "send": {"url": "/"}}]
    write(tmp_path, yaml.safe_dump({**VALID, "steps": steps}))
    with pytest.raises(load.ExerciseError, match=r"there is no file nowhere\.yaml"):
        load.read(tmp_path)


def test_a_variable_that_nobody_sets_is_named(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("spec: {}")
    steps = [{"step": "one", "send": {"url": "/${WHO}"}}]
    write(tmp_path, yaml.safe_dump({**VALID, "steps": steps}))
    with pytest.raises(load.ExerciseError, match="WHO is not remembered"):
        load.read(tmp_path)


def test_yaml_that_does_not_parse_is_reported_with_its_file(tmp_path: Path) -> None:
    write(tmp_path, "steps: [")
    with pytest.raises(load.ExerciseError, match=r"exercise\.yaml"):
        load.read(tmp_path)


@pytest.mark.parametrize("name", ["5", "05", "retries", "05-retries", "istio/05-retries/"])
def test_an_exercise_is_found_by_any_of_its_names(name: str) -> None:
    assert [lesson.name for lesson in load.pick(LESSONS, [name])] == ["05-retries"]


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(load.ExerciseError, match="02-ingress"):
        load.pick(LESSONS, ["nothing"])


def test_durations_have_units() -> None:
    step = {"step": "s", "send": {"url": "/", "timeout": "250ms"}, "within": "2m"}
    read = Exercise.model_validate({**VALID, "steps": [{**step, "step": "one"}]}).steps[0]
    assert read.within == 120
    assert read.send is not None
    assert read.send.timeout == 0.25
