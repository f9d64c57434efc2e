"""shell: a new shell in the lab."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import typer

from lab.cli.client import FailureError
from lab.cli.context import settings
from lab.cli.env import install


def shell(context: typer.Context) -> None:
    """Open a shell whose `kubectl`, `istioctl` and INGRESS are the lab's; `exit` leaves it.

    It is your own shell ($SHELL) with your own settings: bash, zsh, fish or sh.

    Example:
      guestbook shell
    """
    programs = install(settings(context).state_folder())
    program = os.environ.get("SHELL") or "/bin/sh"
    argv, environ = _started(program, programs)
    try:
        os.execvpe(argv[0], argv, os.environ | environ)  # noqa: S606 - a shell is what is wanted
    except OSError as error:
        raise FailureError(f"SHELL={program}: {error.strerror}") from None


def _started(program: str, programs: Path) -> tuple[list[str], dict[str, str]]:
    """Returns a shell's command line and further variables.

    It evaluates `guestbook env` after its own files, which may have changed PATH.
    """
    guestbook = shlex.quote(str(programs / "guestbook"))
    line = f'eval "$({guestbook} env --shell sh)"'
    match Path(program).name:
        case "fish":
            return [program, "--init-command", f"{guestbook} env --shell fish | source"], {}
        case "bash":
            return [program, "--rcfile", _file(programs / "bashrc", _own("~/.bashrc"), line)], {}
        case "sh" | "dash" | "ksh":
            own = _own(shlex.quote(os.environ.get("ENV") or "/dev/null"))
            return [program], {"ENV": _file(programs / "shrc", own, line)}
        case "zsh":
            # zsh reads its files from $ZDOTDIR, which the first of them may change.
            home, own = "GUESTBOOK_ZDOTDIR", os.environ.get("ZDOTDIR") or str(Path.home())
            _file(
                programs / ".zshenv",
                f"ZDOTDIR={shlex.quote(own)}",
                _own('"$ZDOTDIR/.zshenv"'),
                f"{home}=$ZDOTDIR ZDOTDIR={shlex.quote(str(programs))}",
            )
            _file(programs / ".zshrc", f"ZDOTDIR=${home}", _own('"$ZDOTDIR/.zshrc"'), line)
            return [program], {"ZDOTDIR": str(programs)}
    raise FailureError(f"SHELL={program}: there are bash, zsh, fish, sh, dash and ksh")


def _own(path: str) -> str:
    """Returns a line that reads a file of the user's, if it is there."""
    return f"[ ! -r {path} ] || . {path}"


def _file(path: Path, *lines: str) -> str:
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)
