"""Runs of exercises: each begins from the same state, and everything is put back afterwards."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

from lab.exercises import propagation, restore
from lab.exercises.load import ExerciseError, Lesson, objects, typed_path
from lab.exercises.narrate import Transcript
from lab.exercises.result import Result, StepResult
from lab.exercises.steps import PAUSE, Change, Play, execute
from lab.exercises.target import Target

_START = 60.0
"""Seconds that the page may take to answer at the start."""
_SETTLE = 180.0
"""Seconds that the guestbook may take to recover at the end."""
_UNAVAILABLE = "Guestbook Service is currently unavailable"


class Runner:
    """Runs exercises against one target, one after the other."""

    def __init__(
        self,
        target: Target,
        transcript: Transcript,
        *,
        istio: Path,
        lessons: Sequence[Lesson],
        state: Path,
    ) -> None:
        """`lessons` are all that exist: what another one left behind is set aside.

        `state` is the folder for the record of what was there before.
        """
        self._target = target
        self._transcript = transcript
        self._istio = istio
        self._disturbing = restore.disturbing(lessons, istio)
        self._leftovers = restore.leftovers(lessons, istio)
        self._journal = restore.Journal(state, target.identity())

    def run(self, lesson: Lesson, change: Change | None = None) -> Result:
        """Runs one exercise; in any case everything is put back as it was."""
        self._transcript.begin(lesson, self._target.name)
        started = time.monotonic()
        results: list[StepResult] = []
        problems: list[str] = []
        play: Play | None = None
        before: restore.Record | None = None
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
                self._apply_baseline()
                _wait_for_page(base_url)
            self._wait_for_proxies(names)
            play = Play(self._target, self._transcript, lesson, base_url, change)
            results.extend(play.steps())
        except ExerciseError as error:
            problems.append(str(error))
        finally:
            if play is not None:
                problems += play.lastly()
            if before is not None:
                problems += self._restore(before, healthy)
        result = Result(lesson.name, time.monotonic() - started, results, problems)
        self._transcript.end(result)
        return result

    def recover(self) -> list[str]:
        """Finishes what a killed run left undone; returns what was put back, in words."""
        before = self._journal.unfinished()
        if before is None:
            return []
        self._transcript.note("a run before this one was cut off; putting back what it changed")
        done = restore.restore(self._target, before)
        self._journal.end()
        return done

    def clean(self) -> list[str]:
        """Removes everything that exercises left, and applies the ingress of exercise 02."""
        done = self.recover()
        found = restore.record(self._target, self._leftovers)
        for name in self._leftovers:
            if found[name] is not None:
                self._delete(name)
                done.append(f"removed {name.argument}")
        done += self._uninstall()
        self._apply_baseline()
        self._behave()
        return [*done, "the ingress of exercise 02 is there, and every message-service behaves"]

    def _uninstall(self) -> list[str]:
        """Removes the lab's further IstioOperators, such as that of a closed way out."""
        if self._target.name != "lab":
            return []
        kept = {restore.name_of(item) for item in objects(self._istio / "install/istio.yaml")}
        found = self._target.get_json("istiooperators", "-A") or {"items": []}
        names = sorted({restore.name_of(item) for item in found["items"]} - kept)
        for name in names:
            self._delete(name)
        return [f"removed {name.argument}" for name in names]

    def _behave(self) -> None:
        """Ends the misbehaviour of each pod, at the pod itself, past the rules of the mesh."""
        found = self._target.get_json("pods", "-l", "app=message-service") or {"items": []}
        for pod in found["items"]:
            if "deletionTimestamp" not in pod["metadata"]:
                name = pod["metadata"]["name"]
                try:
                    with self._target.forward("default", f"pod/{name}", 8080) as port:
                        url = f"http://localhost:{port}/behave"
                        httpx.post(url, trust_env=False, timeout=10).raise_for_status()
                except httpx.HTTPError as error:
                    reason = f"pod {name} could not be told to behave ({error}); try again"
                    raise ExerciseError(reason) from None

    def _delete(self, name: restore.Name) -> None:
        argv = ["kubectl", "delete", name.argument, *name.where, "--ignore-not-found"]
        execute(self._target, self._transcript, argv)

    def _apply_baseline(self) -> None:
        paths = [typed_path(self._istio / file) for file in restore.BASELINE]
        files = [word for path in paths for word in ("-f", path)]
        execute(self._target, self._transcript, ["kubectl", "apply", *files])

    def _set_aside(self, before: Mapping[restore.Name, object]) -> None:
        for name in self._disturbing:
            if before.get(name) is not None:
                self._transcript.note("set aside what another exercise, or an earlier run, left")
                self._delete(name)

    def _wait_for_proxies(self, names: Sequence[restore.Name]) -> None:
        """Waits until the proxies know what is there, and what a run before removed."""
        if self._target.synchronous:
            return
        now = restore.record(self._target, names)
        propagation.wait(
            self._target,
            [name for name, item in now.items() if item is not None],
            [name for name, item in now.items() if item is None],
        )
        propagation.drain(self._target)

    def _restore(self, before: restore.Record, healthy: bool) -> list[str]:
        """Puts everything back; returns what went wrong."""
        tries_again = f"`guestbook exercise clean --target {self._target.name}` tries again"
        try:
            for text in restore.restore(self._target, before):
                self._transcript.note(text)
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
        """Waits until the guestbook is as healthy as it was, so that the next run is not misled."""
        deadline = time.monotonic() + _SETTLE
        while True:
            found = self._target.get_json("deployments.apps", "-n", "default") or {"items": []}
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
            time.sleep(PAUSE)


def _wait_for_page(base_url: str) -> None:
    deadline = time.monotonic() + _START
    while _page(base_url) is None:
        if time.monotonic() > deadline:
            raise ExerciseError(
                f"the guestbook does not answer at {base_url}: is it deployed? "
                "(lab: `guestbook up`; cluster: `kubectl apply -k k8s/overlays/kind` and "
                "istio/install/README.md)"
            )
        time.sleep(PAUSE)


def _page(base_url: str) -> str | None:
    """Returns the text of the page; None when it does not answer with 200."""
    try:
        answer = httpx.get(f"{base_url}/", trust_env=False, timeout=10)
    except httpx.HTTPError:
        return None
    return answer.text if answer.status_code == 200 else None


def _page_works(base_url: str) -> bool:
    page = _page(base_url)
    return page is not None and _UNAVAILABLE not in page
