"""Every lesson, typed from its page into a shell, line by line, in a real lab."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time
from pathlib import Path

import pytest

from lab.exercises import load
from tests.support.lab import COMMAND, Lab, picture, running
from tests.support.repository import LESSONS, ROOT

BLOCK = re.compile(r"^```(bash|text)\n(.*?)^```", re.MULTILINE | re.DOTALL)

ELSEWHERE = re.compile(r"istioctl dashboard|kubectl .*(mutatingwebhook|istiod)")
"""Lines that the page says are for a cluster."""

ENDLESS = re.compile(r"^while |port-forward")
"""Lines for another terminal."""

DEFECT = re.compile(r"No such (command|option)|This is a defect|Traceback|internal error|\[IST")
"""Output that no lesson may show."""

REFUSED = {
    # Under STRICT the server shows its certificate, and then asks for one that openssl has not.
    "kubectl exec curl -c istio-proxy -- openssl s_client -showcerts -alpn istio "
    "-connect message-service.default:80 > $chain",
    "curl -sS $INGRESS",
    "kubectl exec curl -n noistio -- curl -sS "
    "http://message-service.default.svc.cluster.local/hello/test",
    "kubectl exec curl -c curl -- curl -sS -m 5 dict://redis:6379/PING",
    "kubectl exec curl -c curl -- curl -sS -k --resolve google.com:443:$IP https://google.com/",
    "kubectl exec curl -c curl -- curl -sS -k --resolve www.google.com:443:$IP "
    "https://www.google.com/",
}
"""Lines that a rule of the lesson may make fail."""


class Shell:
    """A person's terminal: a bash in the lab, as istio/README.md says."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.said = ""
        self._bash = subprocess.Popen(
            ["bash"],
            cwd=ROOT,
            env=os.environ | {"TMPDIR": str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.type(f'eval "$({shlex.join([*COMMAND, "--state", str(lab.folder), "env"])})"')

    def type(self, line: str) -> tuple[int, str]:
        """The exit status of a line, and what it printed."""
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        self._bash.stdin.write(f"{{ :\n{line}\n}} </dev/null\nprintf '\\n\\001%s\\n' $?\n")
        self._bash.stdin.flush()
        printed = ""
        for said in self._bash.stdout:
            if said.startswith("\001"):
                self.said += f"$ {line}\n{printed}"
                return int(said[1:]), printed
            printed += said
        raise AssertionError(f"the shell ended at {line}\n{self.said}")

    def close(self) -> None:
        self._bash.communicate()


def sure(text: str) -> list[str]:
    """The words of a sample that are the same for everybody: no names of pods, no times."""
    words = re.findall(r"(?<![\w.-])[A-Za-z{}/:+?!_][A-Za-z{}/:+?!_' ]*(?![\w.-])", text)
    return [word.strip() for word in words if len(word.strip()) > 4]


ALONE = ("03-fault-abort", "08-header-routing")
"""Lessons that are typed in a lab of their own too: one that needs no other, and one that the table
puts after another. A lab for each lesson would take minutes."""


@pytest.mark.timeout(420)
@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
def test_a_lesson_can_be_typed(lab: Lab, tmp_path: Path, lesson: load.Lesson) -> None:
    """In the order of the pages, each in a new shell."""
    typed(lab, tmp_path, lesson)


@pytest.mark.timeout(420)
@pytest.mark.parametrize("name", ALONE)
def test_a_lesson_can_be_typed_in_a_lab_that_has_seen_no_other(tmp_path: Path, name: str) -> None:
    (lesson,) = [one for one in LESSONS if one.name == name]
    with running(tmp_path / "state") as lab:
        typed(lab, tmp_path, lesson)


def typed(lab: Lab, tmp_path: Path, lesson: load.Lesson) -> None:
    """Its commands work, it shows what the page says, and afterwards all is as before."""
    before = picture(lab)
    shell = Shell(lab, tmp_path)
    printed = last = ""
    lines: list[str] = []
    try:
        for language, text in BLOCK.findall((lesson.folder / "README.md").read_text()):
            if language == "text" and text.replace("\n", "").isdigit():
                # All of it, and nothing else; a policy may need a second for open connections.
                deadline = time.monotonic() + 20
                while printed.split() != text.split():
                    assert time.monotonic() < deadline, f"{text} never came\n{shell.said}"
                    time.sleep(1)
                    printed = "".join(shell.type(line)[1] for line in lines)
                continue
            if language == "text":
                wanted = [word for word in sure(text) if word]
                deadline = time.monotonic() + 90
                while missing := [word for word in wanted if word not in printed]:
                    assert time.monotonic() < deadline, f"{missing} never came\n{shell.said}"
                    time.sleep(1)
                    printed += shell.type(last)[1]
                continue
            printed, lines = "", text.splitlines()
            for line in lines:
                if ELSEWHERE.search(line) or ENDLESS.search(line):
                    continue
                status, said = shell.type(line)
                assert status == 0 or line in REFUSED, shell.said
                assert not DEFECT.search(said), shell.said
                printed, last = printed + said, line
    finally:
        shell.close()
        print(shell.said)
    assert picture(lab) == before
