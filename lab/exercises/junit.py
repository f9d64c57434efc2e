"""JUnit reports, as CI systems read them: an exercise is a suite, a step is a case."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from lab.exercises.result import Result, StepResult


def write(path: Path, results: Sequence[Result]) -> None:
    """Writes the report, with its folder when that is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ElementTree.ElementTree(document(results)).write(path, encoding="utf-8", xml_declaration=True)


def document(results: Sequence[Result], name: str = "guestbook exercises") -> ElementTree.Element:
    """Returns the report; `name` is that of all suites together."""
    suites = ElementTree.Element("testsuites", name=name)
    for result in results:
        outcomes = [step.outcome for step in result.steps]
        suite = ElementTree.SubElement(
            suites,
            "testsuite",
            name=result.name,
            tests=str(len(result.steps)),
            failures=str(outcomes.count("failed")),
            skipped=str(outcomes.count("skipped")),
            errors=str(len(result.problems)),
            time=f"{result.seconds:.3f}",
        )
        for step in result.steps:
            _case(suite, result.name, step)
        for problem in result.problems:
            case = ElementTree.SubElement(
                suite, "testcase", classname=result.name, name="around the steps"
            )
            ElementTree.SubElement(case, "error", message=_clean(problem))
    return suites


def _case(suite: ElementTree.Element, name: str, step: StepResult) -> None:
    case = ElementTree.SubElement(
        suite, "testcase", classname=name, name=step.step, time=f"{step.seconds:.3f}"
    )
    if step.outcome == "skipped":
        ElementTree.SubElement(case, "skipped", message=step.reason)
    if step.outcome == "failed":
        lines = [f"expected {d.expected}\nseen     {d.seen}" for d in step.differences]
        message = lines[0].partition("\n")[0] if lines else "failed"
        failure = ElementTree.SubElement(case, "failure", message=_clean(message))
        failure.text = _clean("\n".join([*lines, *step.logs]))


def _clean(text: str) -> str:
    """Removes the characters that XML can't hold."""
    return "".join(c for c in text if c in "\t\n" or ord(c) >= 32)
