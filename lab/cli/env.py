"""env: kubectl, istioctl and INGRESS of the lab in the present shell, and back."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lab.cli.client import FailureError
from lab.cli.context import PROGRAMS, settings
from lab.cli.output import warn, write

ON = "GUESTBOOK_ENV"
"""Set in a shell that is in the lab: the folder of the programs."""
BEFORE = "GUESTBOOK_ENV_BEFORE"
"""The variables as they were, in JSON, for `--off`."""
CHANGED = ("INGRESS", "KUBECONFIG", "GUESTBOOK_STATE")
"""Variables that are set, besides PATH."""
MARK = "(guestbook) "

KUBECONFIG = """\
# Written by `guestbook env`. Programs that are not the lab's, such as helm or k9s, find no cluster.
apiVersion: v1
kind: Config
current-context: guestbook-lab
contexts: [{name: guestbook-lab, context: {cluster: guestbook-lab, user: guestbook-lab}}]
clusters: [{name: guestbook-lab, cluster: {server: "https://guestbook-lab.invalid"}}]
users: [{name: guestbook-lab, user: {token: none}}]
"""


class Dialect(StrEnum):
    """Kinds of shells: sh is for bash, zsh, dash and ksh too."""

    sh = "sh"
    fish = "fish"


def env(
    context: typer.Context,
    off: Annotated[bool, typer.Option("--off", help="Print what takes it all back.")] = False,
    dialect: Annotated[
        Dialect | None,
        typer.Option("--shell", help="sh (bash, zsh, dash, ksh) or fish; else found out."),
    ] = None,
) -> None:
    """Print what makes `kubectl` and `istioctl` the lab's, for this shell to evaluate.

    They are programs on PATH, so scripts, xargs and watch meet the lab too, and
    no other cluster: KUBECONFIG names none. INGRESS is the page's address, and
    the prompt says (guestbook). `guestbook shell` opens a shell that has it.

    Examples:
      eval "$(guestbook env)"
      eval "$(guestbook env --off)"
      guestbook env | source    # fish
    """
    if off:
        variables = taken_back(os.environ)
    else:
        folder = settings(context).state_folder()
        variables = changes(os.environ, folder, install(folder), _ingress(context))
    shell = dialect or _dialect()
    lines = (_fish if shell is Dialect.fish else _posix)(variables, on=not off)
    # With `;` they are a program even for who forgets the quotes of `eval`.
    write("".join(f"{line};\n" for line in lines), end="")
    write(f"# To have your shell run this: {typed(off=off, dialect=shell)}")


def install(folder: Path) -> Path:
    """Writes the programs of a lab into its state folder; returns their folder."""
    import lab
    from lab.cluster.state import State

    state = State(folder)
    if os.pathsep in str(state.commands):
        raise FailureError(f"{folder}: a folder with {os.pathsep!r} in its name can't be on PATH")
    state.create()
    state.commands.mkdir(mode=0o700, exist_ok=True)
    root = str(Path(lab.__file__).resolve().parents[1])
    for name in PROGRAMS:
        start = (
            f"import sys; sys.path[0] = {root!r}; sys.argv[0] = {name!r}; "
            "from lab.cli import main; sys.exit(main())"
        )
        words = shlex.join([sys.executable, "-c", start, "--state", str(folder)])
        text = f'#!/bin/sh\n# Written by `guestbook env`.\nexec {words} "$@"\n'
        _write(state.commands / name, text.encode())
    _write(state.commands / "kubeconfig", KUBECONFIG.encode())
    return state.commands


def _write(path: Path, content: bytes) -> None:
    from lab.files import write_atomically

    if not path.exists() or path.read_bytes() != content:
        write_atomically(path, content, mode=0o700)


def changes(
    environ: Mapping[str, str], folder: Path, programs: Path, ingress: str | None
) -> dict[str, str | None]:
    """Returns the variables of a shell in the lab; None for one that is not set."""
    before = environ.get(BEFORE) or json.dumps({name: environ.get(name) for name in CHANGED})
    return {
        "PATH": os.pathsep.join([str(programs), *_others(environ)]),
        ON: str(programs),
        BEFORE: before,
        "INGRESS": ingress,
        "KUBECONFIG": str(programs / "kubeconfig"),
        "GUESTBOOK_STATE": str(folder),
    }


def taken_back(environ: Mapping[str, str]) -> dict[str, str | None]:
    """Returns the variables as they were before; nothing when the shell is in no lab."""
    if ON not in environ:
        return {}
    before: dict[str, str | None] = json.loads(environ.get(BEFORE) or "{}")
    return {"PATH": os.pathsep.join(_others(environ)), ON: None, BEFORE: None, **before}


def _others(environ: Mapping[str, str]) -> list[str]:
    """Returns the folders of PATH but a lab's."""
    folders = environ.get("PATH", os.defpath).split(os.pathsep)
    return [folder for folder in folders if folder != environ.get(ON)]


def _ingress(context: typer.Context) -> str | None:
    """Returns the page's address; None, with a warning, when the lab does not run."""
    try:
        address: str | None = settings(context).client().call("status")["ingress"]
    except FailureError as error:
        warn(f"{error.lines[0]}, and then set INGRESS with: {typed()}")
        return None
    return address.rstrip("/") if address else None


def typed(*, off: bool = False, dialect: Dialect | None = None) -> str:
    """Returns the line to type in the present shell."""
    command = "guestbook env --off" if off else "guestbook env"
    fish = (dialect or _dialect()) is Dialect.fish
    return f"{command} | source" if fish else f'eval "$({command})"'


def _dialect() -> Dialect:
    """Returns the dialect of the shell that called: the nearest process that is a shell."""
    import psutil

    known = {"sh", "bash", "dash", "zsh", "ksh", "fish"}
    names = [process.name() for process in psutil.Process().parents()]
    nearest = next((name for name in names if name in known), "sh")
    return Dialect.fish if nearest == "fish" else Dialect.sh


def _posix(variables: Mapping[str, str | None], *, on: bool) -> list[str]:
    lines: list[str] = []
    if on:
        # An alias or a function of these names would come before PATH.
        lines.append(f"unalias {' '.join(PROGRAMS)} 2>/dev/null || :")
        lines.append(f"unset -f {' '.join(PROGRAMS)} 2>/dev/null || :")
    for name, value in variables.items():
        lines.append(f"unset {name}" if value is None else f"export {name}={shlex.quote(value)}")
    if on:
        lines.append(f'case "${{PS1-}}" in *"{MARK}"*|"") :;; *) PS1="{MARK}${{PS1}}";; esac')
    else:
        lines.append(
            f'case "${{PS1-}}" in *"{MARK}"*) PS1="${{PS1%%"{MARK}"*}}${{PS1#*"{MARK}"}}";; esac'
        )
    return lines


def _fish(variables: Mapping[str, str | None], *, on: bool) -> list[str]:
    lines: list[str] = []
    for name, value in variables.items():
        if value is None:
            lines.append(f"set -e {name}")
        else:
            words = value.split(os.pathsep) if name == "PATH" else [value]
            lines.append(f"set -gx {name} {shlex.join(words)}")
    if on:
        lines += [f"functions -e {name}" for name in PROGRAMS]
        lines += [
            "if functions -q fish_prompt; and not functions -q __guestbook_prompt",
            "functions -c fish_prompt __guestbook_prompt",
            f"function fish_prompt; echo -n '{MARK}'; __guestbook_prompt; end",
            "end",
        ]
    else:
        lines += [
            "if functions -q __guestbook_prompt",
            "functions -e fish_prompt",
            "functions -c __guestbook_prompt fish_prompt",
            "functions -e __guestbook_prompt",
            "end",
        ]
    return lines
