"""The steps of one exercise: each is done, and looked at until it is as expected."""

from __future__ import annotations

import secrets
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lab.exercises import observe, propagation, restore, traffic
from lab.exercises.check import Difference, Verdict, summary, verdict
from lab.exercises.format import ByPods, Expect, Share, Step
from lab.exercises.load import ExerciseError, Lesson, filled, objects, typed_path
from lab.exercises.narrate import Transcript
from lab.exercises.result import Outcome, StepResult
from lab.exercises.target import Target
from lab.exercises.traffic import Answer

PATIENCE = 15.0
"""Seconds that logs, statistics and traces may lag behind the traffic."""
PAUSE = 0.3


@dataclass(frozen=True, slots=True)
class Change:
    """A counter-proof under way: changed manifests, and the step that must fail because of them."""

    files: Mapping[str, Path]
    fails: str


def execute(target: Target, transcript: Transcript, argv: Sequence[str]) -> None:
    """Runs a command that must succeed, and writes it to the transcript."""
    transcript.command(target.line(argv))
    target.run(argv)


def readiness(item: str, default: str = "") -> list[str]:
    """Returns kubectl's arguments that wait for `deployment/NAME` or `[NAMESPACE/]pod/NAME`."""
    *where, kind, name = item.split("/")
    namespace = where[0] if where else default
    verb = ["wait", "--for=condition=Ready"] if kind == "pod" else ["rollout", "status"]
    return [*verb, f"{kind}/{name}", *(["-n", namespace] if namespace else [])]


class Play:
    """One run of an exercise's steps, with its variables and its visitor's cookies."""

    def __init__(
        self,
        target: Target,
        transcript: Transcript,
        lesson: Lesson,
        base_url: str,
        change: Change | None,
    ) -> None:
        self._target = target
        self._transcript = transcript
        self._lesson = lesson
        self._base_url = base_url
        self._change = change
        self._variables = {"run": secrets.token_hex(4)}
        self._visitor = traffic.visitor(base_url)

    def steps(self) -> Iterator[StepResult]:
        """Does the steps, up to the first that fails."""
        steps = self._lesson.exercise.steps
        for number, step in enumerate(steps, 1):
            self._transcript.step(number, len(steps), step.step)
            result = self._step(step)
            self._transcript.ended(result)
            yield result
            if result.outcome == "failed":
                return

    def lastly(self) -> list[str]:
        """Does what must be done at the end, as far as it can be; returns what went wrong."""
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

        def ended(outcome: Outcome) -> StepResult:
            return StepResult(step.step, outcome, time.monotonic() - started)

        if self._target.name not in step.targets:
            return replace(ended("skipped"), reason=f"only on {' and '.join(step.targets)}")
        if step.needs and (reason := self._target.lacks(step.needs)):
            return replace(ended("skipped"), reason=reason)
        error = False
        try:
            wrong = self._do(step)
        except ExerciseError as reason:
            error = True
            wrong = [Difference("every command succeeds", str(reason))]
        if not wrong:
            return ended("passed")
        logs = self._logs(step)
        return replace(ended("failed"), differences=wrong, logs=logs, error=error)

    def _do(self, step: Step) -> list[Difference]:
        """Does one step and looks until it is as expected; returns how it differs."""
        self._prepare(step)
        step = filled(step, self._variables)
        if step.minute_left:
            self._wait_for_minute(step.minute_left)
        if step.send:
            self._transcript.command(traffic.line(step.send, self._target, self._base_url))
        if step.command:
            lines = (self._target.line(argv) for argv in self._pipeline(step.command))
            self._transcript.command(" | ".join(lines))
        within, patience = step.within or 0.0, PATIENCE
        if self._change and step.step.startswith(self._change.fails):
            within, patience = min(within, 6.0), 5.0  # it must fail: no need to hope for long
        deadline = time.monotonic() + within
        while True:
            left = deadline - time.monotonic()
            good, bad = self._attempt(step, patience=min(3.0, left) if within else patience)
            if not bad:
                for text in good:
                    self._transcript.seen(text)
                return []
            if time.monotonic() + PAUSE > deadline:
                return bad
            time.sleep(PAUSE)

    def _prepare(self, step: Step) -> None:
        """Makes every change of a step, in the order of the format's page.

        Returns when the proxies have it.
        """
        for verb, names, options in (
            ("apply", step.apply, []),
            ("delete", step.delete, ["--ignore-not-found"]),
        ):
            if names:
                files = [word for name in names for word in ("-f", self._path(name))]
                self._run(["kubectl", verb, *files, *options])
        for namespace, label in step.label.items():
            self._run(["kubectl", "label", "namespace", namespace, label, "--overwrite"])
        for item in step.ready:
            self._run(["kubectl", *readiness(item, "default"), "--timeout=180s"])
        if step.apply or step.delete or step.label or step.ready:
            propagation.wait(self._target, self._named(step.apply), self._named(step.delete))
        for name, wanted in step.remember.items():
            found = observe.pods(self._target, wanted.pod)
            if len(found) <= wanted.index:
                raise ExerciseError(f"there are only {len(found)} pods {wanted.pod}")
            pod = found[wanted.index]["metadata"]["name"]
            address = found[wanted.index]["status"]["podIP"]
            self._variables |= {name: pod, f"{name}_IP": address}
            self._transcript.note(f"{name} is {pod} ({address})")

    def _named(self, files: Sequence[str]) -> list[restore.Name]:
        """Returns the objects of some of the exercise's files."""
        return [restore.name_of(item) for f in files for item in objects(Path(self._path(f)))]

    def _path(self, name: str) -> str:
        changed = self._change.files.get(name) if self._change else None
        return typed_path(changed or self._lesson.folder / name)

    def _run(self, argv: list[str]) -> None:
        execute(self._target, self._transcript, argv)

    def _pipeline(self, command: str) -> list[list[str]]:
        """Returns a command, or several joined by pipes, with the paths of the exercise's files."""

        def word(text: str) -> str:
            known = not text.startswith("-") and (self._lesson.folder / text).is_file()
            return self._path(text) if known else text

        return [[word(text) for text in shlex.split(part)] for part in command.split(" | ")]

    def _command(self, command: str) -> Answer:
        output = text = ""
        changes = False
        for argv in self._pipeline(command):
            changes = changes or argv[:2] == ["kubectl", "apply"]
            done = self._target.run(argv, stdin=output, check=False)
            output, text = done.output, done.text
            if done.status:
                return Answer(exit=done.status, body=text, error=text)
        if changes:
            files = [word for word in command.split() if (self._lesson.folder / word).is_file()]
            propagation.wait(self._target, self._named(files), [])
        return Answer(body=text)

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
            time.sleep(PAUSE)

    def _stays(self, expect: Expect, seen: observe.Before) -> list[Difference]:
        """Looks on while something has to hold."""
        long = max((group.stays or 0.0 for group in expect.pods), default=0.0)
        until = time.monotonic() + long
        while time.monotonic() < until:
            _, bad = observe.differences(self._target, expect, seen)
            if bad:
                return [replace(d, expected=f"{d.expected}, for {long:g} s") for d in bad]
            time.sleep(PAUSE)
        return []

    def _share(self, share: Share) -> float:
        if isinstance(share.expected, ByPods):
            some = observe.pods(self._target, share.expected.pods)
            every = observe.pods(self._target, share.expected.among)
            ready = sum(map(observe.is_ready, every))
            return sum(map(observe.is_ready, some)) / ready if ready else 0.0
        return share.expected or 0.0

    def _wait_for_minute(self, needed: float) -> None:
        """Waits for the clock's next minute, by which rate limits count, if too little is left."""
        left = 60 - time.time() % 60
        if left < needed:
            self._transcript.note(f"waiting {left:.0f} s for the clock's next minute")
            time.sleep(left + 0.2)

    def _logs(self, step: Step) -> list[str]:
        """Returns the last lines of the proxies that a failed step has to do with."""
        wanted: list[str] = []
        if step.send and step.send.origin == "ingress":
            wanted = ["istio-system/istio=ingressgateway", "app=ui"]
        elif step.send:
            wanted = ["{}/pod/{}".format(*traffic.pod_of(step.send.origin))]
        expect = step.expect
        for looks in (expect.logs, expect.stats, expect.endpoints):
            wanted += [look.of for look in looks]
        lines: list[str] = []
        for selector in dict.fromkeys(wanted):
            try:
                concrete = filled(Step(step=selector), self._variables).step
                lines += observe.proxy_lines(self._target, concrete)
            except ExerciseError:
                continue
        return lines
