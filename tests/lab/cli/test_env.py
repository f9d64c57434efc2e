"""`guestbook env` and `guestbook shell`: the lab's kubectl in real shells, and never another."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import shlex
import shutil
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from lab.cli.env import MARK
from tests.support.lab import COMMAND, Lab
from tests.support.repository import ROOT

SHELLS = ("bash", "dash", "zsh")


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """The variables of a machine whose kubectl and istioctl reach a real cluster."""
    for name in ("kubectl", "istioctl"):
        program = tmp_path / "real" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\necho "$0 $*" >> {tmp_path}/reached\n')
        program.chmod(0o755)
    return {
        "PATH": f"{tmp_path}/real:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "KUBECONFIG": "/mine",
        "INGRESS": "http://real.example",
        "TERM": "dumb",
    }


def command(folder: Path, *words: str) -> str:
    return shlex.join([*COMMAND, "--state", str(folder), *words])


def installed(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def typed(shell: str, text: str, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs a script in a shell, as a file."""
    script = Path(environ["HOME"]) / "script"
    script.write_text(text)
    return subprocess.run(
        [installed(shell), str(script)],
        env=environ,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("shell", SHELLS)
def test_everything_that_looks_on_the_path_meets_the_lab(
    shell: str, lab: Lab, environ: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "inner").write_text("#!/bin/sh\nkubectl get pod curl -o name\n")
    (tmp_path / "inner").chmod(0o755)
    done = typed(
        shell,
        f"""set -eu
alias kubectl='{tmp_path}/real/kubectl --context real'
istioctl() {{ {tmp_path}/real/istioctl "$@"; }}
eval "$({command(lab.folder, "env")})"
eval "$({command(lab.folder, "env")})"
kubectl get pod curl -o name
{tmp_path}/inner
echo curl | xargs kubectl get -o name pod
env kubectl get pod curl -o name
istioctl get pod curl -o name
guestbook get pod curl -o name
cd /
kubectl get pod curl -o name
echo "$INGRESS $GUESTBOOK_STATE"
cd {ROOT}
eval "$(guestbook env --off)"
echo "$INGRESS $KUBECONFIG ${{GUESTBOOK_STATE-none}} ${{GUESTBOOK_ENV-none}} $PATH"
""",
        environ,
    )
    assert (done.returncode, done.stderr) == (0, "")
    *pods, inside, outside = done.stdout.splitlines()
    assert pods == ["pod/curl"] * 7
    assert inside == f"{lab.url()} {lab.folder}"
    assert outside == f"http://real.example /mine none none {environ['PATH']}"
    assert not (tmp_path / "reached").exists()


def test_fish(lab: Lab, environ: dict[str, str], tmp_path: Path) -> None:
    done = typed(
        "fish",
        f"""{command(lab.folder, "env")} | source
kubectl get pod curl -o name
echo curl | xargs kubectl get -o name pod
sh -c 'kubectl get pod curl -o name'
fish_prompt
echo $INGRESS
guestbook env --off | source
echo (fish_prompt)
echo $INGRESS $KUBECONFIG (set -q GUESTBOOK_ENV; echo $status) (string join : $PATH)
""",
        environ,
    )
    assert (done.returncode, done.stderr) == (0, "")
    *pods, inside, prompt, outside = done.stdout.splitlines()
    assert pods == ["pod/curl"] * 3
    assert inside.startswith(MARK)
    assert inside.endswith(lab.url())
    assert MARK not in prompt
    assert outside == f"http://real.example /mine 1 {environ['PATH']}"
    assert not (tmp_path / "reached").exists()


def test_a_lab_that_does_not_run_is_said(environ: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "state"
    off = f"no lab is running in {folder}; start one with: guestbook --state {folder} up"
    done = typed(
        "bash",
        f"""eval "$({command(folder, "env")})"
kubectl delete --all pods
echo "${{INGRESS-none}}"
guestbook down --clean
kubectl apply -f istio
""",
        environ,
    )
    assert done.returncode == 1
    warning, first, second = done.stderr.splitlines()
    assert warning.startswith(f"Warning: {off}, and then set INGRESS with: ")
    assert first == second == f"Error: {off}"
    assert done.stdout.splitlines()[0] == "none"
    assert not (tmp_path / "reached").exists()


def test_another_program_finds_no_cluster(lab: Lab, environ: dict[str, str]) -> None:
    done = typed("bash", f'eval "$({command(lab.folder, "env")})"\ncat "$KUBECONFIG"\n', environ)
    clusters = yaml.safe_load(done.stdout)["clusters"]
    assert [item["cluster"]["server"] for item in clusters] == ["https://guestbook-lab.invalid"]


def test_exercises_are_not_run_on_a_cluster_from_a_shell_of_the_lab(
    lab: Lab, environ: dict[str, str], tmp_path: Path
) -> None:
    text = f'eval "$({command(lab.folder, "env")})"\nguestbook exercise clean --target kubectl\n'
    done = typed("bash", text, environ)
    assert done.returncode == 2
    assert done.stderr == ('kubectl is the lab\'s here; first: eval "$(guestbook env --off)"\n')
    assert not (tmp_path / "reached").exists()


class Terminal:
    """A shell on a terminal, and a person."""

    def __init__(self, argv: list[str], environ: dict[str, str]) -> None:
        self._end, theirs = pty.openpty()
        self._process = subprocess.Popen(
            argv,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environ,
            cwd=ROOT,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # For Ctrl-C.
        )
        os.close(theirs)

    def type(self, text: str) -> None:
        os.write(self._end, text.encode())

    def until(self, text: str) -> str:
        """Returns what appears up to a text."""
        seen, deadline = "", time.monotonic() + 30
        while text not in seen:
            ready, _, _ = select.select([self._end], [], [], deadline - time.monotonic())
            assert ready, f"{text!r} did not come: {seen!r}"
            seen += os.read(self._end, 65536).decode(errors="replace")
        return seen

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._end)


@contextmanager
def terminal(argv: list[str], environ: dict[str, str]) -> Iterator[Terminal]:
    opened = Terminal(argv, environ)
    try:
        yield opened
    finally:
        opened.close()


@pytest.mark.parametrize("shell", ["bash", "dash", "zsh", "fish"])
def test_a_shell_of_the_lab(shell: str, lab: Lab, environ: dict[str, str], tmp_path: Path) -> None:
    """Its own files come first: a PATH that they set doesn't lead past the lab."""
    own = f"PATH={tmp_path}/real:$PATH\nPS1='ready> '\n"
    for name in (".bashrc", ".zshrc"):
        (tmp_path / name).write_text(own)
    argv = [*COMMAND, "--state", str(lab.folder), "shell"]
    with terminal(argv, environ | {"SHELL": installed(shell), "TERM": "dumb"}) as person:
        person.until(MARK)
        person.type("kubectl get pod curl -o name\n")
        person.until("pod/curl")
        if shutil.which("watch"):
            person.type("TERM=xterm watch kubectl get pods\n")
            person.until("READY")
            person.type("\x03")
        person.type("kubectl exec curl -- echo on-my-files\n")
        person.until("a container's files are this machine's")
        person.until("on-my-files")
        (lab.folder / "told-exec").unlink()
        off = "guestbook env --off | source" if shell == "fish" else 'eval "$(guestbook env --off)"'
        person.type(f"{off}; kubectl anything\n")
        person.type("echo la''st\n")
        person.until("last")
    assert (tmp_path / "reached").read_text() == f"{tmp_path}/real/kubectl anything\n"


def test_exec_says_it_once(lab: Lab, environ: dict[str, str]) -> None:
    argv = [*COMMAND, "--state", str(lab.folder), "shell"]
    with terminal(argv, environ | {"SHELL": installed("bash")}) as person:
        person.until(MARK)
        person.type("kubectl exec curl -- echo first\n")
        person.until("This is said once")
        person.type("kubectl exec curl -- echo sec''ond\n")
        assert "said once" not in person.until("second\r\n")


def test_an_unknown_shell_is_named(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    answer = lab.run("shell")
    assert answer.status == 1
    assert answer.err == "Error: SHELL=/bin/tcsh: there are bash, zsh, fish, sh, dash and ksh\n"
