"""Run an exercise: do each step, look until it is as expected, and put the world back."""

from __future__ import annotations

import secrets
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

import httpx

from lab.exercises import observe, propagation, restore, traffic
from lab.exercises.check import Difference, Verdict, summary, verdict
from lab.exercises.format import ByPods, Expect, Share, Step
from lab.exercises.load import ExerciseError, Lesson, filled, objects
from lab.exercises.target import Target, get_json
from lab.exercises.traffic import Answer

PATIENCE = 15.0
"""Seconds that logs, statistics and traces may lag behind the traffic."""
_PAUSE = 0.3
_SETTLE = 180.0
_UNAVAILABLE = "Guestbook Service is currently unavailable"


@dataclass(frozen=True, slots=True)
class StepResult:
    step: str
    outcome: Literal["passed", "failed", "skipped"]
    seconds: float
    differences: list[Difference] = field(default_factory=list)
    reason: str = ""
    """Why it was skipped."""
    logs: list[str] = field(default_factory=list)
    error: bool = False
    """It failed because a command did, before anything could be looked at."""


@dataclass(frozen=True, slots=True)
class Result:
    """How an exercise went."""

    name: str
    seconds: float
    steps: list[StepResult]
    problems: list[str] = field(default_factory=list)
    """What went wrong beside the steps: before them, or while putting things back."""

    @property
    def failed(self) -> StepResult | None:
        return next((step for step in self.steps if step.outcome == "failed"), None)

    @property
    def passed(self) -> bool:
        return self.failed is None and not self.problems


class Narrator(Protocol):
    """Whoever wants to hear how it goes."""

    def begin(self, lesson: Lesson, target: str) -> None: ...
    def step(self, number: int, of: int, title: str) -> None: ...
    def command(self, line: str) -> None: ...
    def note(self, text: str) -> None: ...
    def seen(self, text: str) -> None: ...
    def ended(self, result: StepResult) -> None: ...
    def end(self, result: Result) -> None: ...


@dataclass(frozen=True, slots=True)
class Change:
    """A counter-proof under way: changed manifests, and the step that must fail because of them."""

    files: Mapping[str, Path]
    fails: str


class Runner:
    """Runs exercises against one target, one after the other."""

    def __init__(
        self,
        target: Target,
        narrator: Narrator,
        *,
        istio: Path,
        lessons: Sequence[Lesson],
        state: Path,
    ) -> None:
        """`lessons` are all that exist: what another one left behind is set aside.

        `state` is the folder for the record of what was there before.
        """
        self._target = target
        self._narrator = narrator
        self._istio = istio
        self._disturbing = restore.disturbing(lessons, istio)
        self._leftovers = restore.leftovers(lessons, istio)
        self._journal = restore.Journal(state, target.identity())

    def run(self, lesson: Lesson, change: Change | None = None) -> Result:
        """Run one exercise; whatever happens, the world is put back as it was."""
        self._narrator.begin(lesson, self._target.name)
        started = time.monotonic()
        results: list[StepResult] = []
        problems: list[str] = []
        play: _Play | None = None
        before: dict[restore.Name, dict[str, object] | None] | None = None
        healthy = False
        try:
            self.recover()
            base_url = self._target.ingress()
            healthy = _page_works(base_url)
            names = sorted({*restore.touched(lesson, self._istio), *self._disturbing})
            before = restore.record(self._target, names)
            self._journal.begin(before)
            self._set_aside(before)
            if lesson.exercise.baseline:
                self._baseline(base_url)
            self._arrive(names)
            play = _Play(self._target, self._narrator, lesson, base_url, change)
            results.extend(play.steps())
        except ExerciseError as error:
            problems.append(str(error))
        finally:
            if play is not None:
                problems += play.lastly()
            if before is not None:
                problems += self._restore(before, healthy)
        result = Result(lesson.name, time.monotonic() - started, results, problems)
        self._narrator.end(result)
        return result

    def recover(self) -> list[str]:
        """Finish what a killed run left undone; what was put back, in words."""
        before = self._journal.unfinished()
        if before is None:
            return []
        self._narrator.note("a run before this one was cut off; putting back what it changed")
        done = restore.restore(self._target, before)
        self._journal.end()
        return done

    def clean(self) -> list[str]:
        """Remove whatever exercises left, and bring the ingress of exercise 02 back."""
        done = self.recover()
        found = restore.record(self._target, self._leftovers)
        for name in self._leftovers:
            if found[name] is not None:
                self._run(["kubectl", "delete", name.argument, *name.where, "--ignore-not-found"])
                done.append(f"removed {name.argument}")
        argv = ["kubectl", "apply"]
        for file in restore.BASELINE:
            argv += ["-f", _shown(self._istio / file)]
        self._run(argv)
        return [*done, "the ingress of exercise 02 is there"]

    def _run(self, argv: list[str]) -> None:
        self._narrator.command(self._target.line(argv))
        self._target.run(argv)

    def _set_aside(self, before: Mapping[restore.Name, object]) -> None:
        for name in self._disturbing:
            if before.get(name) is not None:
                self._narrator.note("set aside what another exercise, or an earlier run, left")
                self._run(["kubectl", "delete", name.argument, *name.where, "--ignore-not-found"])

    def _arrive(self, names: Sequence[restore.Name]) -> None:
        """Wait until the proxies know what is there at the start, and what a run before removed."""
        if self._target.synchronous:
            return
        now = restore.record(self._target, names)
        propagation.wait(
            self._target,
            [name for name, item in now.items() if item is not None],
            [name for name, item in now.items() if item is None],
        )
        propagation.drain(self._target)

    def _baseline(self, base_url: str) -> None:
        argv = ["kubectl", "apply"]
        for file in restore.BASELINE:
            argv += ["-f", _shown(self._istio / file)]
        self._run(argv)
        deadline = time.monotonic() + 60
        while not _page_answers(base_url):
            if time.monotonic() > deadline:
                raise ExerciseError(
                    f"the guestbook does not answer at {base_url}: is it deployed? "
                    "(lab: `guestbook up`; cluster: `kubectl apply -k k8s/overlays/kind` and "
                    "istio/install/README.md)"
                )
            time.sleep(_PAUSE)

    def _restore(
        self, before: dict[restore.Name, dict[str, object] | None], healthy: bool
    ) -> list[str]:
        tries_again = f"`guestbook exercise clean --target {self._target.name}` tries again"
        try:
            for text in restore.restore(self._target, before):
                self._narrator.note(text)
            self._journal.end()
        except KeyboardInterrupt:
            raise ExerciseError(
                f"interrupted before everything was put back; {tries_again}"
            ) from None
        except ExerciseError as error:
            return [f"could not put everything back: {error}; {tries_again}"]
        try:
            if healthy:
                self._settle()
        except ExerciseError as error:
            return [str(error)]
        return []

    def _settle(self) -> None:
        """Wait until the guestbook is as healthy as it was, so that the next run is not misled."""
        deadline = time.monotonic() + _SETTLE
        while True:
            found = get_json(self._target, "deployments.apps", "-n", "default") or {"items": []}
            late = [
                d["metadata"]["name"]
                for d in found["items"]
                if d.get("status", {}).get("readyReplicas", 0) < d["spec"].get("replicas", 1)
            ]
            if not late and _page_works(self._target.ingress()):
                return
            if time.monotonic() > deadline:
                what = f"{', '.join(late)} not ready" if late else "the page is not complete"
                raise ExerciseError(f"the guestbook did not recover: {what}")
            time.sleep(_PAUSE)


class _Play:
    """One exercise being played: its variables, its visitor's cookies."""

    def __init__(
        self,
        target: Target,
        narrator: Narrator,
        lesson: Lesson,
        base_url: str,
        change: Change | None,
    ) -> None:
        self._target = target
        self._narrator = narrator
        self._lesson = lesson
        self._base_url = base_url
        self._change = change
        self._variables = {"run": secrets.token_hex(4)}
        self._visitor = traffic.visitor(base_url)

    def steps(self) -> Iterator[StepResult]:
        """Do the steps; the first that fails is the last."""
        steps = self._lesson.exercise.steps
        for number, step in enumerate(steps, 1):
            self._narrator.step(number, len(steps), step.step)
            result = self._step(step)
            self._narrator.ended(result)
            yield result
            if result.outcome == "failed":
                return

    def lastly(self) -> list[str]:
        """Do what must be done at the end, as far as it can be; what went wrong."""
        problems = []
        for step in self._lesson.exercise.lastly:
            try:
                self._do(filled(step, self._variables))
            except ExerciseError as error:
                if "has no value" not in str(error):  # the step that remembers was not reached
                    problems.append(f"{step.step}: {error}")
        self._visitor.close()
        return problems

    def _step(self, step: Step) -> StepResult:
        started = time.monotonic()

        def ended(outcome: Literal["passed", "failed", "skipped"]) -> StepResult:
            return StepResult(step.step, outcome, time.monotonic() - started)

        if self._target.name not in step.targets:
            return replace(ended("skipped"), reason=f"only on {' and '.join(step.targets)}")
        if step.needs and (reason := self._target.lacks(step.needs)):
            return replace(ended("skipped"), reason=reason)
        broke = False
        try:
            wrong = self._do(step)
        except ExerciseError as error:
            broke = True
            wrong = [Difference("every command succeeds", str(error))]
        if not wrong:
            return ended("passed")
        logs = self._logs(step)
        return replace(ended("failed"), differences=wrong, logs=logs, error=broke)

    def _do(self, step: Step) -> list[Difference]:
        """Do one step and look until it is as expected; how it differs."""
        self._prepare(step)
        step = filled(step, self._variables)
        if step.minute_left:
            self._wait_for_minute(step.minute_left)
        self._announce(step)
        within, patience = step.within or 0.0, PATIENCE
        if self._change and step.step.startswith(self._change.fails):
            within, patience = min(within, 6.0), 5.0  # it must fail: no need to hope for long
        deadline = time.monotonic() + within
        while True:
            left = deadline - time.monotonic()
            good, bad = self._attempt(step, patience=min(3.0, left) if within else patience)
            if not bad:
                for text in good:
                    self._narrator.seen(text)
                return []
            if time.monotonic() + _PAUSE > deadline:
                return bad
            time.sleep(_PAUSE)

    def _prepare(self, step: Step) -> None:
        """Everything of a step that changes the world, in the order of the format's page.

        Returns when the proxies have it.
        """
        if step.apply:
            self._manifests("apply", step.apply)
        if step.delete:
            self._manifests("delete", step.delete)
        for namespace, label in step.label.items():
            self._run(["kubectl", "label", "namespace", namespace, label, "--overwrite"])
        for item in step.ready:
            *where, kind, name = item.split("/")
            namespace = where[0] if where else "default"
            waiting = (
                ["wait", "--for=condition=Ready", f"pod/{name}"]
                if kind == "pod"
                else ["rollout", "status", f"{kind}/{name}"]
            )
            self._run(["kubectl", *waiting, "-n", namespace, "--timeout=180s"])
        if step.apply or step.delete or step.label or step.ready:
            propagation.wait(self._target, self._named(step.apply), self._named(step.delete))
        for name, wanted in step.remember.items():
            found = observe.pods(self._target, wanted.pod)
            if len(found) <= wanted.index:
                raise ExerciseError(f"there are only {len(found)} pods {wanted.pod}")
            pod = found[wanted.index]
            self._variables[name] = pod["metadata"]["name"]
            self._variables[f"{name}_IP"] = pod["status"]["podIP"]
            self._narrator.note(f"{name} is {pod['metadata']['name']} ({pod['status']['podIP']})")

    def _manifests(self, verb: str, names: Sequence[str]) -> None:
        argv = ["kubectl", verb]
        for name in names:
            argv += ["-f", self._path(name)]
        self._run([*argv, "--ignore-not-found"] if verb == "delete" else argv)

    def _named(self, files: Sequence[str]) -> list[restore.Name]:
        """The objects of some of the exercise's files."""
        return [restore.name_of(item) for f in files for item in objects(Path(self._path(f)))]

    def _path(self, name: str) -> str:
        changed = self._change.files.get(name) if self._change else None
        return _shown(changed or self._lesson.folder / name)

    def _run(self, argv: list[str]) -> None:
        self._narrator.command(self._target.line(argv))
        self._target.run(argv)

    def _announce(self, step: Step) -> None:
        if step.send:
            self._narrator.command(traffic.line(step.send, self._target, self._base_url))
        if step.command:
            lines = (self._target.line(argv) for argv in self._pipeline(step.command))
            self._narrator.command(" | ".join(lines))

    def _pipeline(self, command: str) -> list[list[str]]:
        """A command, or several joined by pipes, with the paths of the exercise's files."""

        def word(text: str) -> str:
            known = not text.startswith("-") and (self._lesson.folder / text).is_file()
            return self._path(text) if known else text

        return [[word(text) for text in shlex.split(part)] for part in command.split(" | ")]

    def _command(self, command: str) -> Answer:
        stdin = said = ""
        changes = False
        for argv in self._pipeline(command):
            changes = changes or argv[:2] == ["kubectl", "apply"]
            done = self._target.run(argv, stdin=stdin, check=False)
            stdin = done.output
            said = done.said
            if done.status:
                return Answer(exit=done.status, body=said, error=said)
        if changes:
            files = [word for word in command.split() if (self._lesson.folder / word).is_file()]
            propagation.wait(self._target, self._named(files), [])
        return Answer(body=said)

    def _attempt(self, step: Step, patience: float) -> tuple[list[str], list[Difference]]:
        seen = observe.before(self._target, step.expect)
        answers: list[Answer] = []
        if step.send:
            answers = traffic.send(step.send, self._target, self._visitor)
        elif step.command:
            answers = [self._command(step.command)]
        judged = verdict(step.expect, answers, self._share) if answers else Verdict([], [])
        if judged.bad:
            return [], judged.bad
        good = judged.good or ([summary(answers)] if step.send else [])
        deadline = time.monotonic() + patience
        while True:
            found, bad = observe.differences(self._target, step.expect, seen)
            if not bad:
                bad = self._stays(step.expect, seen)
            if not bad or time.monotonic() > deadline:
                return good + found, bad
            time.sleep(_PAUSE)

    def _stays(self, expect: Expect, seen: observe.Before) -> list[Difference]:
        """Look on while something has to hold."""
        long = max((group.stays or 0.0 for group in expect.pods), default=0.0)
        until = time.monotonic() + long
        while time.monotonic() < until:
            _, bad = observe.differences(self._target, expect, seen)
            if bad:
                return [replace(d, expected=f"{d.expected}, for {long:g} s") for d in bad]
            time.sleep(_PAUSE)
        return []

    def _share(self, share: Share) -> float:
        if isinstance(share.expected, ByPods):
            some = observe.pods(self._target, share.expected.pods)
            every = observe.pods(self._target, share.expected.among)
            ready = sum(map(observe.is_ready, every))
            return sum(map(observe.is_ready, some)) / ready if ready else 0.0
        return share.expected or 0.0

    def _wait_for_minute(self, needed: float) -> None:
        """Rate limits are counted by the clock's minute: wait when too little of it is left."""
        left = 60 - time.time() % 60
        if left < needed:
            self._narrator.note(f"waiting {left:.0f} s for the clock's next minute")
            time.sleep(left + 0.2)

    def _logs(self, step: Step) -> list[str]:
        """The last lines of the proxies that a failed step has to do with."""
        wanted: dict[str, None] = {}
        if step.send and step.send.origin == "ingress":
            wanted["istio-system/istio=ingressgateway"] = None
            wanted["app=ui"] = None
        elif step.send:
            namespace, pod = traffic.pod_of(step.send.origin)
            wanted[f"{namespace}/pod/{pod}"] = None
        expect = step.expect
        named = [*(x.of for x in expect.logs), *(x.of for x in expect.stats)]
        wanted.update(dict.fromkeys([*named, *(x.of for x in expect.endpoints)]))
        lines: list[str] = []
        for selector in wanted:
            try:
                concrete = filled(Step(step=selector), self._variables).step
                lines += observe.new_lines(self._target, concrete, "istio-proxy", 8)
            except ExerciseError:
                continue
        return lines


def each(
    runner: Runner, lessons: Sequence[Lesson], after: Callable[[Result], None] = lambda _r: None
) -> list[Result]:
    """Run several exercises; one that fails doesn't stop the others."""
    results = []
    for lesson in lessons:
        results.append(runner.run(lesson))
        after(results[-1])
    return results


def _shown(path: Path) -> str:
    """A path as one types it here: relative when it is below the working directory."""
    resolved = path.resolve()
    here = Path.cwd()
    return str(resolved.relative_to(here)) if resolved.is_relative_to(here) else str(resolved)


def _page_answers(base_url: str) -> bool:
    try:
        return httpx.get(f"{base_url}/", trust_env=False, timeout=10).status_code == 200
    except httpx.HTTPError:
        return False


def _page_works(base_url: str) -> bool:
    try:
        answer = httpx.get(f"{base_url}/", trust_env=False, timeout=10)
    except httpx.HTTPError:
        return False
    return answer.status_code == 200 and _UNAVAILABLE not in answer.text
