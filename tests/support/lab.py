"""A real lab for tests: `guestbook up` as a process, its commands called in this one."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lab.cli import main
from lab.cluster.process import marked
from lab.exercises import restore
from tests.support.repository import ISTIO, LESSONS, ROOT
from tests.support.wait import wait

SMALL = ROOT / "tests" / "lab" / "cluster" / "small.yaml"
"""Two message services and a client, for tests that need few pods."""

COMMAND = (sys.executable, "-m", "lab.cli")

START = 90.0
"""Seconds a lab may take to start beside other tests on a small machine."""


@dataclass(frozen=True)
class Answer:
    """Output of a command, and its exit status."""

    status: int
    out: str
    err: str


@dataclass
class Lab:
    """A running `guestbook up`."""

    folder: Path
    process: subprocess.Popen[str]
    log: Path

    def run(self, *argv: str, stdin: str = "") -> Answer:
        """One command, called as the exercise runner calls it."""
        out, err = io.StringIO(), io.StringIO()
        old = sys.stdin
        sys.stdin = io.StringIO(stdin)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                status = main(["--state", str(self.folder), *argv])
        finally:
            sys.stdin = old
        return Answer(status, out.getvalue(), err.getvalue())

    def ok(self, *argv: str, stdin: str = "") -> str:
        """The output of a command that must succeed."""
        answer = self.run(*argv, stdin=stdin)
        assert answer.status == 0, answer
        return answer.out

    def apply(self, text: str) -> str:
        return self.ok("apply", "-f", "-", stdin=text)

    def json(self, *argv: str) -> Any:
        return json.loads(self.ok("get", *argv, "-o", "json"))

    def pods(self, labels: str, namespace: str = "default") -> list[Any]:
        items = self.json("pods", "-l", labels, "-n", namespace)["items"]
        return [item for item in items if "deletionTimestamp" not in item["metadata"]]

    def ready(self, labels: str, count: int, namespace: str = "default") -> list[Any]:
        """The pods with these labels, once `count` of them are ready and there are no others."""

        def check() -> list[Any]:
            pods = self.pods(labels, namespace)
            serving = [pod for pod in pods if condition(pod)]
            return pods if len(serving) == len(pods) == count else []

        found: list[Any] = wait(check, f"{count} ready pods {labels}", 60)
        return found

    def url(self) -> str:
        return str(json.loads(self.ok("status", "-o", "json"))["ingress"])

    def stop(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


def condition(pod: Any, name: str = "Ready") -> bool:
    return any(c["type"] == name and c["status"] == "True" for c in pod["status"]["conditions"])


def container_statuses(pod: Any) -> list[Any]:
    """Of all containers, the sidecar last."""
    status = pod["status"]
    return [*status["containerStatuses"], *status.get("initContainerStatuses", ())]


def process_of(pod: Any, container: str) -> int:
    """The process id of a container; 0 while it has none."""
    for item in container_statuses(pod):
        if item["name"] == container:
            return int(item.get("containerID", "process://0").removeprefix("process://"))
    raise AssertionError(f"no container {container}")


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie doesn't."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def left_behind(folder: Path) -> list[str]:
    """The command lines of processes that carry a lab's mark."""
    lines = []
    for pid in marked(str(folder)):
        with contextlib.suppress(OSError):
            lines.append(Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " "))
    return [line for line in lines if line]


def spawn(folder: Path, *options: str, env: dict[str, str] | None = None) -> Lab:
    """Start `guestbook up --port 0` and don't wait for it."""
    log = folder.with_name(folder.name + ".log")
    with log.open("w") as output:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "lab.cli",
                "--state",
                str(folder),
                "up",
                "--port",
                "0",
                *options,
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **(env or {})},
        )
    return Lab(folder, process, log)


@contextlib.contextmanager
def running(folder: Path, *options: str, env: dict[str, str] | None = None) -> Iterator[Lab]:
    """A lab that is ready; stopped, with all it started, at the end."""
    lab = spawn(folder, *options, env=env)
    try:
        wait_until_ready(lab)
        yield lab
    finally:
        if lab.process.poll() is None:
            lab.process.send_signal(signal.SIGINT)
            try:
                lab.process.wait(30)
            except subprocess.TimeoutExpired:
                lab.process.kill()
                lab.process.wait()


def wait_until_ready(lab: Lab) -> None:
    def check() -> bool:
        text = lab.log.read_text()
        assert lab.process.poll() is None, text
        return "is ready: http" in text

    try:
        wait(check, "the lab is ready", START)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{lab.log.read_text()}") from None


@cache
def touched_kinds() -> list[str]:
    """Returns the kinds of objects that an exercise may change; pods change by themselves."""
    kinds = {name.kind for lesson in LESSONS for name in restore.touched(lesson, ISTIO)}
    return sorted(kinds - {"pod"})


def picture(lab: Lab) -> dict[str, Any]:
    """Returns everything that an exercise could change: objects, pods, the record."""
    objects = lab.json(",".join(touched_kinds()), "-A")["items"]
    seen: dict[str, Any] = {
        f"{restore.name_of(item)}": (
            item.get("spec"),
            item.get("data"),
            item["metadata"].get("labels"),
        )
        for item in objects
    }
    pods = [p for p in lab.json("pods", "-A")["items"] if "deletionTimestamp" not in p["metadata"]]
    seen["pods"] = sorted((p["metadata"]["name"], condition(p)) for p in pods)
    seen["records"] = [path.name for path in lab.folder.glob("exercise-*")]
    return seen


def behaves(lab: Lab) -> bool:
    """Whether each pod of message-service answers, and at once."""
    form = "%{http_code} %{time_total}"
    for pod in lab.pods("app=message-service"):
        url = "http://localhost:8080/hello/test"
        asked = ("curl", "-s", "-m", "20", "-o", "/dev/null", "-w", form, url)
        status, seconds = in_pod(lab, pod, *asked).split()
        if status != "200" or float(seconds) >= 0.9:
            return False
    return True


def in_pod(lab: Lab, pod: Any, *argv: str) -> str:
    """The output of a command in the first container of a pod, whatever its status."""
    container = pod["spec"]["containers"][0]["name"]
    return lab.run("exec", pod["metadata"]["name"], "-c", container, "--", *argv).out
