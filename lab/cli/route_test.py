"""`guestbook route test`: requests with what must become of them, as a test suite."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from lab.cli import manifests
from lab.cli.client import FailureError
from lab.cli.context import Files, Namespace, asked_namespace
from lab.cli.output import write
from lab.cli.route import caller, mesh

if TYPE_CHECKING:
    from lab.explain.cases.run import Asked, Coverage, Failure, Outcome


def route_test(
    context: typer.Context,
    tests: Annotated[list[str], typer.Argument(metavar="FILE...", help="Test files or folders.")],
    filename: Files = None,
    source: Annotated[
        str,
        typer.Option(
            "--from",
            help="The client of cases without `from`: as of `route`, or any place of the rules.",
        ),
    ] = "any",
    fail_under: Annotated[
        float, typer.Option(metavar="PERCENT", help="Fail when fewer of the rules are met.")
    ] = 0,
    output: Annotated[
        str, typer.Option("--output", "-o", help="text, junit or github (annotations).")
    ] = "text",
    namespace: Namespace = None,
) -> None:
    """Check many requests against what must become of them, without sending any.

    The files are those of istio-config-validator: each case has requests, and
    the destinations, rewrite, redirect, fault, headers or delegate of the rule
    that they must meet (or must not, with wantMatch: false). The lab knows
    more: from, status, subset, pods, policy, token, mTLS, and each step that
    `guestbook route` shows. docs/route-test.md has it all.

    With -f the manifests alone are the mesh; else it is that of the lab. The
    exit status is 1 when a case fails. Rules that no request met are listed.

    Examples:
      guestbook route test tests/routes.yaml -f k8s/base -f istio/02-ingress
      guestbook route test tests/ --from deploy/ui
      guestbook route test tests/routes.yaml -f mesh/ -o github --fail-under 90
    """
    from lab.explain.cases import format, run
    from lab.explain.interpret.matchers import NoAnswerError
    from lab.manifests.read import read

    if output not in _OUTPUTS:
        raise FailureError(f"unknown output {output}: {', '.join(_OUTPUTS)}")
    snapshot = mesh(context, filename)
    where = asked_namespace(context, namespace)
    with manifests.errors():
        placed = format.read([text for name in tests for text in read(name)])
    if not placed:
        raise FailureError(f"no testCases in {', '.join(tests)}")
    try:
        outcomes, coverage = run.run(
            snapshot, placed, source, lambda name: caller(snapshot, name, where)
        )
    except NoAnswerError as error:
        raise FailureError(str(error)) from None
    write("\n".join(_OUTPUTS[output](outcomes, coverage)))
    if not all(outcome.passed for outcome in outcomes):
        raise typer.Exit(1)
    if coverage.percent < fail_under:
        raise FailureError(f"{coverage.percent:.0f}% of the rules are met, less than {fail_under}%")


def _text(outcomes: Sequence[Outcome], coverage: Coverage) -> Iterator[str]:
    for outcome in outcomes:
        case = outcome.placed.case
        verdict = "ok  " if outcome.passed else "FAIL"
        yield f"{verdict}  {case.description or '(no description)'}  {outcome.placed.place}"
        yield from (f"        {line}" for line in _failures(outcome))
        yield from (f"      note: {note}" for note in _notes(outcome))
    yield from _summary(outcomes, coverage)


def _failures(outcome: Outcome) -> Iterator[str]:
    """Yields the requests that fail, and why; those with the same reasons together."""
    alike: dict[tuple[Failure, ...], list[Asked]] = {}
    for asked in outcome.asked:
        if asked.failures:
            alike.setdefault(asked.failures, []).append(asked)
    for failures, group in alike.items():
        yield from (f"{asked.request} from {asked.client}" for asked in group)
        for failure in failures:
            yield f"  {failure.what}: expected {failure.expected}"
            yield f"  {' ' * len(failure.what)}  seen     {failure.seen}"


def _notes(outcome: Outcome) -> list[str]:
    return list(dict.fromkeys(note for asked in outcome.asked for note in asked.notes))


def _summary(outcomes: Sequence[Outcome], coverage: Coverage) -> Iterator[str]:
    asked = [one for outcome in outcomes for one in outcome.asked]
    failed = sum(bool(one.failures) for one in asked)
    yield f"{len(outcomes)} cases, {len(asked)} requests: {len(asked) - failed} pass, {failed} fail"
    if coverage.total:
        met = coverage.total - len(coverage.missed)
        yield f"{met} of {coverage.total} rules of VirtualServices are met"
    yield from (f"  not met: {name}  {place}" for name, place in coverage.missed)


def _github(outcomes: Sequence[Outcome], coverage: Coverage) -> Iterator[str]:
    """Yields workflow commands: annotations at the lines of the test files and of the rules."""
    for outcome in outcomes:
        place = outcome.placed.place
        title = outcome.placed.case.description or "route test"
        if not outcome.passed:
            yield _command("error", place, title, "\n".join(_failures(outcome)))
        for note in _notes(outcome):
            yield _command("notice", place, title, note)
    for name, place in coverage.missed:
        yield _command("notice", place, "route test", f"{name}: no request met it")
    yield next(_summary(outcomes, coverage))


def _command(level: str, place: str, title: str, message: str) -> str:
    file, _, line = place.rpartition(":")
    escaped = message.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    title = title.replace("%", "%25").replace(":", "%3A").replace(",", "%2C")
    return f"::{level} file={file},line={line},title={title}::{escaped}"


def _junit(outcomes: Sequence[Outcome], _coverage: Coverage) -> Iterator[str]:
    """Yields a JUnit report: a suite for each file, a case for each request."""
    from xml.etree import ElementTree

    from lab.exercises import junit
    from lab.exercises.check import Difference
    from lab.exercises.result import Result, StepResult

    files: dict[str, list[StepResult]] = {}
    for outcome in outcomes:
        description = outcome.placed.case.description or outcome.placed.place
        steps = files.setdefault(outcome.placed.source.file, [])
        for asked in outcome.asked:
            differences = [
                Difference(f"{one.what} {one.expected}", one.seen) for one in asked.failures
            ]
            name = f"{description}: {asked.request}"
            steps.append(
                StepResult(
                    name,
                    "failed" if differences else "passed",
                    0,
                    differences,
                    logs=list(asked.notes),
                )
            )
    results = [Result(file, 0, steps) for file, steps in files.items()]
    document = junit.document(results, "guestbook route test")
    ElementTree.indent(document)
    yield ElementTree.tostring(document, encoding="unicode", xml_declaration=True)


_OUTPUTS = {"text": _text, "junit": _junit, "github": _github}
