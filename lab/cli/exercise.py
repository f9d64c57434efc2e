"""`guestbook exercise …`: list, show, run and clean the exercises of `istio/`."""

from __future__ import annotations

import contextlib
import re
import signal
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from lab.cli.context import settings
from lab.exercises import junit, traffic
from lab.exercises.counterproof import obstacle, run_changed, shortcoming
from lab.exercises.format import Step
from lab.exercises.load import ExerciseError, Lesson, pick, read_all, root
from lab.exercises.narrate import Transcript
from lab.exercises.runner import Result, Runner
from lab.exercises.target import KubectlTarget, LabTarget, Target

app = typer.Typer(
    help="The exercises of the codelab: read them, run them, check that they work.",
    no_args_is_help=True,
)


class World(StrEnum):
    """Where an exercise runs."""

    lab = "lab"
    kubectl = "kubectl"


TargetOption = Annotated[
    World, typer.Option("--target", help="the lab on this machine, or the cluster of kubectl")
]
ContextOption = Annotated[
    str | None, typer.Option(help="kubectl's context (implies nothing for the lab)")
]
IngressOption = Annotated[
    str | None,
    typer.Option(envvar="INGRESS_URL", help="URL of the cluster's ingress gateway; else found"),
]


@app.command("list")
def list_() -> None:
    """List the exercises.

    Example:
      guestbook exercise list
    """
    table = Table("Exercise", "You learn", "Minutes", "Codelab", box=None, pad_edge=False)
    for lesson in _lessons():
        exercise = lesson.exercise
        table.add_row(
            lesson.name, exercise.teaches, str(exercise.minutes), " ".join(exercise.codelab)
        )
    Console().print(table)


@app.command()
def show(
    outer: typer.Context,
    name: Annotated[str, typer.Argument(help="such as 05-retries, retries or 5")],
) -> None:
    """Show what an exercise does, step by step, with the commands to type.

    Example:
      guestbook exercise show 05-retries
    """
    with _errors(), _target(outer, World.kubectl, None, None) as cluster:
        (lesson,) = pick(_lessons(), [name])
        console = Console(highlight=False)
        exercise = lesson.exercise
        console.print(f"{lesson.name}: {exercise.title}", style="bold", markup=False)
        console.print(f"You learn {exercise.teaches}. About {exercise.minutes} minutes.")
        if exercise.needs:
            console.print(f"Needs: {exercise.needs}.")
        console.print(f"The lesson is {lesson.folder / 'README.md'}", soft_wrap=True)
        for number, step in enumerate(exercise.steps, 1):
            only = "" if len(step.targets) > 1 else f" (only on {step.targets[0]})"
            console.print(f"\n{number}. {step.step}{only}", style="bold", markup=False)
            for line in _commands(cluster, lesson, step):
                console.print(f"   $ {line}", markup=False, soft_wrap=True)


@app.command()
def run(
    outer: typer.Context,
    names: Annotated[
        list[str] | None, typer.Argument(help="such as 05-retries, retries or 5")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="run all of them, in order")] = False,
    target: TargetOption = World.lab,
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
    """Run exercises and check what is seen; afterwards everything is as it was before.

    Exit status: 0 all passed, 1 something was not as expected, 2 they could not be run.

    Examples:
      guestbook exercise run 05-retries
      guestbook exercise run --all
    """
    with _errors(), _terminated(), _target(outer, target, context, ingress) as world:
        lessons = _lessons()
        if bool(names) == every:
            raise ExerciseError("name exercises to run, or say --all (`list` shows them)")
        chosen = lessons if every else pick(lessons, names or [])
        world.ingress()  # Where nothing runs, nothing can be run: say it once, not for each.
        console = Console(highlight=False)
        runner = _runner(outer, world, lessons, console)
        results: list[Result] = []
        try:
            for lesson in chosen:
                if counterproof:
                    results += _counterproofs(runner, lesson, world, console)
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


@app.command()
def clean(
    outer: typer.Context,
    target: TargetOption = World.lab,
    context: ContextOption = None,
    ingress: IngressOption = None,
) -> None:
    """Remove what exercises left behind, and bring the ingress back.

    After a run that was killed it first puts back what that run had found.

    Example:
      guestbook exercise clean
    """
    with _errors(), _target(outer, target, context, ingress) as world:
        console = Console(highlight=False)
        for text in _runner(outer, world, _lessons(), console).clean():
            console.print(text, markup=False, soft_wrap=True)


def _runner(outer: typer.Context, world: Target, lessons: list[Lesson], console: Console) -> Runner:
    state = settings(outer).state_folder()
    return Runner(world, Transcript(console), istio=root(), lessons=lessons, state=state)


def _lessons() -> list[Lesson]:
    with _errors():
        return read_all(root())


def _counterproofs(
    runner: Runner, lesson: Lesson, target: Target, console: Console
) -> list[Result]:
    """Run an exercise once for each counter-proof; one passes when its step fails."""
    results = []
    for proof in lesson.exercise.counterproof:
        console.print(
            f"{lesson.name}, changed on purpose: {proof.because}", markup=False, soft_wrap=True
        )
        if reason := obstacle(lesson, proof, target):
            console.print(f"  skipped: {reason}\n", style="yellow", markup=False, soft_wrap=True)
            continue
        result = run_changed(runner, lesson, proof)
        problem = shortcoming(result, proof)
        if problem is None:
            console.print("  as it must, that step failed\n", style="bold green")
        else:
            console.print(f"  ✗ {problem}\n", style="bold red", markup=False, soft_wrap=True)
        title = f"{lesson.name}: {proof.because}"
        results.append(Result(title, result.seconds, [], [problem] if problem else []))
    return results


def _commands(target: Target, lesson: Lesson, step: Step) -> Iterator[str]:
    """The commands of a step, for a person."""
    for verb, names in (("apply", step.apply), ("delete", step.delete)):
        if names:
            files = " ".join(f"-f {_path(lesson, name)}" for name in names)
            yield f"kubectl {verb} {files}"
    for namespace, label in step.label.items():
        yield f"kubectl label namespace {namespace} {label}"
    for item in step.ready:
        *where, kind, name = item.split("/")
        options = f" -n {where[0]}" if where else ""
        verb = "wait --for=condition=Ready" if kind == "pod" else "rollout status"
        yield f"kubectl {verb} {kind}/{name}{options}"
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


def _path(lesson: Lesson, name: str) -> str:
    path = (lesson.folder / name).resolve()
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _summary(console: Console, results: list[Result]) -> None:
    if len(results) < 2:
        return
    for result in results:
        mark, style = ("✓", "green") if result.passed else ("✗", "red")
        console.print(
            f"{mark} {result.name}  {result.seconds:.1f} s",
            style=style,
            markup=False,
            soft_wrap=True,
        )
    passed = sum(result.passed for result in results)
    took = sum(result.seconds for result in results)
    console.print(f"{passed} of {len(results)} passed in {took:.0f} s")


@contextlib.contextmanager
def _target(
    outer: typer.Context, target: World, context: str | None, ingress: str | None
) -> Iterator[Target]:
    if target is World.lab and context:
        raise ExerciseError("--context is for --target kubectl")
    command = settings(outer).command
    world: Target = (
        KubectlTarget(command, context, ingress)
        if target is World.kubectl
        else LabTarget(command, settings(outer).folder)
    )
    try:
        yield world
    finally:
        world.close()


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """A person's errors as one line on stderr, exit status 2; Ctrl-C as 130."""
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
    """SIGTERM ends a run as Ctrl-C does: what it changed is put back first.

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
