"""exercise list, show, run and clean."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from lab.cli.context import settings
from lab.cli.env import ON, typed

if TYPE_CHECKING:
    from rich.console import Console

    from lab.exercises.format import Step
    from lab.exercises.load import Lesson
    from lab.exercises.result import Result
    from lab.exercises.runner import Runner
    from lab.exercises.target import Target

exercise = typer.Typer(
    help="The exercises of the codelab: read them, run them, check that they work.",
    no_args_is_help=True,
)


class TargetKind(StrEnum):
    """The targets of a run."""

    lab = "lab"
    kubectl = "kubectl"


TargetOption = Annotated[
    TargetKind, typer.Option("--target", help="the lab on this machine, or the cluster of kubectl")
]
ContextOption = Annotated[str | None, typer.Option(help="kubectl's context")]
IngressOption = Annotated[
    str | None,
    typer.Option(envvar="INGRESS_URL", help="URL of the cluster's ingress gateway; else found"),
]


@exercise.command("list")
def list_() -> None:
    """List the exercises.

    Example:
      guestbook exercise list
    """
    from rich.console import Console
    from rich.table import Table

    table = Table("Exercise", "You learn", "Minutes", "Codelab", box=None, pad_edge=False)
    with _errors():
        for lesson in _lessons():
            steps = " ".join(lesson.exercise.codelab)
            minutes = str(lesson.exercise.minutes)
            table.add_row(lesson.name, lesson.exercise.teaches, minutes, steps)
    Console().print(table)


@exercise.command()
def show(
    outer: typer.Context,
    name: Annotated[str, typer.Argument(help="such as 05-retries, retries or 5")],
) -> None:
    """Show the steps of an exercise, with the commands to type.

    Example:
      guestbook exercise show 05-retries
    """
    from lab.exercises.load import pick
    from lab.exercises.target import KubectlTarget

    console = _console()
    with _errors():
        cluster = KubectlTarget(settings(outer).command)
        (lesson,) = pick(_lessons(), [name])
        about = lesson.exercise
        console.print(f"{lesson.name}: {about.title}", style="bold", markup=False)
        console.print(f"You learn {about.teaches}. About {about.minutes} minutes.")
        if about.needs:
            console.print(f"Needs: {about.needs}.")
        console.print(f"The lesson is {lesson.folder / 'README.md'}", soft_wrap=True)
        for number, step in enumerate(about.steps, 1):
            only = "" if len(step.targets) > 1 else f" (only on {step.targets[0]})"
            console.print(f"\n{number}. {step.step}{only}", style="bold", markup=False)
            for line in _commands(cluster, lesson, step):
                console.print(f"   $ {line}", markup=False, soft_wrap=True)


@exercise.command()
def run(
    outer: typer.Context,
    names: Annotated[
        list[str] | None, typer.Argument(help="such as 05-retries, retries or 5")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="run all of them, in order")] = False,
    kind: TargetOption = TargetKind.lab,
    context: ContextOption = None,
    ingress: IngressOption = None,
    counterproof: Annotated[
        bool,
        typer.Option(
            help="run them with a field missing or wrong, which must make them fail: "
            "a check that can't fail proves nothing"
        ),
    ] = False,
    junit_file: Annotated[
        Path | None, typer.Option("--junit", help="write a JUnit report here")
    ] = None,
    keep_going: Annotated[
        bool, typer.Option(help="go on with the next exercise after one failed")
    ] = True,
) -> None:
    """Run exercises and check the results; afterwards everything is as it was before.

    Exit status: 0 all passed, 1 something was not as expected, 2 they could not be run.

    Examples:
      guestbook exercise run 05-retries
      guestbook exercise run --all
    """
    from lab.exercises import junit
    from lab.exercises.load import ExerciseError, pick

    console = _console()
    results: list[Result] = []
    with _terminated(), _target(outer, kind, context, ingress) as target:
        lessons = _lessons()
        if bool(names) == every:
            raise ExerciseError("name exercises to run, or say --all (`list` shows them)")
        chosen = lessons if every else pick(lessons, names or [])
        target.ingress()  # Fails once, not for each exercise, when nothing runs.
        runner = _runner(outer, target, lessons, console)
        try:
            for lesson in chosen:
                if counterproof:
                    results += _counterproofs(runner, lesson, target, console)
                else:
                    results.append(runner.run(lesson))
                if not keep_going and not results[-1].passed:
                    break
        finally:
            if junit_file:
                junit.write(junit_file, results)
        _summary(console, results)
    if not all(result.passed for result in results):
        raise typer.Exit(1)


@exercise.command()
def clean(
    outer: typer.Context,
    kind: TargetOption = TargetKind.lab,
    context: ContextOption = None,
    ingress: IngressOption = None,
) -> None:
    """Remove what exercises left behind, and bring the ingress back.

    After a run that was killed it first restores what that run had changed.

    Example:
      guestbook exercise clean
    """
    console = _console()
    with _target(outer, kind, context, ingress) as target:
        for text in _runner(outer, target, _lessons(), console).clean():
            console.print(text, markup=False, soft_wrap=True)


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False)


def _lessons() -> list[Lesson]:
    from lab.exercises.load import read_all, root

    return read_all(root())


def _runner(
    outer: typer.Context, target: Target, lessons: list[Lesson], console: Console
) -> Runner:
    from lab.exercises.load import root
    from lab.exercises.narrate import Transcript
    from lab.exercises.runner import Runner

    state = settings(outer).state_folder()
    return Runner(target, Transcript(console), istio=root(), lessons=lessons, state=state)


def _counterproofs(
    runner: Runner, lesson: Lesson, target: Target, console: Console
) -> list[Result]:
    """Runs an exercise once for each counter-proof; one passes when its step fails."""
    from lab.exercises.counterproof import obstacle, run_changed, shortcoming
    from lab.exercises.result import Result

    results = []
    for proof in lesson.exercise.counterproof:
        title = f"{lesson.name}, changed on purpose: {proof.because}"
        console.print(title, markup=False, soft_wrap=True)
        if reason := obstacle(lesson, proof, target):
            console.print(f"  skipped: {reason}\n", style="yellow", markup=False, soft_wrap=True)
            continue
        result = run_changed(runner, lesson, proof)
        problem = shortcoming(result, proof)
        if problem is None:
            console.print("  as it must, that step failed\n", style="bold green")
        else:
            console.print(f"  ✗ {problem}\n", style="bold red", markup=False, soft_wrap=True)
        name = f"{lesson.name}: {proof.because}"
        results.append(Result(name, result.seconds, [], [problem] if problem else []))
    return results


def _commands(target: Target, lesson: Lesson, step: Step) -> Iterator[str]:
    """Yields the commands of a step, for a person."""
    from lab.exercises import traffic
    from lab.exercises.load import typed_path
    from lab.exercises.steps import readiness

    for verb, names in (("apply", step.apply), ("delete", step.delete)):
        if names:
            files = " ".join(f"-f {typed_path(lesson.folder / name)}" for name in names)
            yield f"kubectl {verb} {files}"
    for namespace, label in step.label.items():
        yield f"kubectl label namespace {namespace} {label}"
    for item in step.ready:
        yield " ".join(["kubectl", *readiness(item)])
    for variable, wanted in step.remember.items():
        select = f"kubectl get pods -l {wanted.pod} -o jsonpath"
        yield f"{variable}=$({select}='{{.items[{wanted.index}].metadata.name}}')"
        yield f"{variable}_IP=$({select}='{{.items[{wanted.index}].status.podIP}}')"
    if step.send:
        line = traffic.line(step.send, target, "$INGRESS")
        # In double quotes, where a shell fills in $INGRESS, ${run} and what was remembered.
        yield re.sub(r"""'([^'"]*\$[^'"]*)'""", r'"\1"', line)
    if step.command:
        yield step.command


def _summary(console: Console, results: list[Result]) -> None:
    if len(results) < 2:
        return
    for result in results:
        mark, style = ("✓", "green") if result.passed else ("✗", "red")
        line = f"{mark} {result.name}  {result.seconds:.1f} s"
        console.print(line, style=style, markup=False, soft_wrap=True)
    passed = sum(result.passed for result in results)
    took = sum(result.seconds for result in results)
    console.print(f"{passed} of {len(results)} passed in {took:.0f} s")


@contextlib.contextmanager
def _target(
    outer: typer.Context, kind: TargetKind, context: str | None, ingress: str | None
) -> Iterator[Target]:
    """Opens the lab or the cluster; errors of exercises end the command as in `_errors`."""
    from lab.exercises.load import ExerciseError
    from lab.exercises.target import KubectlTarget, LabTarget

    command, folder = settings(outer).command, settings(outer).folder
    with _errors():
        if kind is TargetKind.kubectl and ON in os.environ:
            raise ExerciseError(f"kubectl is the lab's here; first: {typed(off=True)}")
        if kind is TargetKind.kubectl:
            target: Target = KubectlTarget(command, context, ingress)
        elif context:
            raise ExerciseError("--context is for --target kubectl")
        else:
            target = LabTarget(command, folder)
        with contextlib.closing(target):
            yield target


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """Prints an ExerciseError to stderr and exits with 2; after Ctrl-C exits with 130."""
    from lab.exercises.load import ExerciseError

    try:
        yield
    except ExerciseError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error
    except KeyboardInterrupt as interrupt:
        typer.echo("interrupted; everything is as it was before", err=True)
        raise typer.Exit(130) from interrupt


@contextlib.contextmanager
def _terminated() -> Iterator[None]:
    """Makes SIGTERM end a run as Ctrl-C does: its changes are undone first.

    SIGINT too when it was ignored, as shells have it for what they start with `&`.
    """

    def stop(_signal: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
