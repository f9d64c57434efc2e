"""All commands in one application; what a command needs is imported when it runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from lab.cli import complete, inject, lifecycle, mesh, objects, pods, route, workloads
from lab.cli.client import FailureError, Settings

TRACE = "GUESTBOOK_TRACE"
"""If set, internal errors print a traceback."""

app = typer.Typer(
    name="guestbook",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
)


@app.callback()
def top(
    context: typer.Context,
    namespace: Annotated[
        str | None,
        typer.Option(
            "--namespace",
            "-n",
            help="The namespace of what follows.",
            autocompletion=complete.namespaces,
        ),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(help="The lab's state folder.", envvar="GUESTBOOK_STATE"),
    ] = None,
) -> None:
    """The guestbook's lab: a cluster with Istio on this machine, in kubectl's words.

    Start it with `guestbook up`, then use the verbs you know: apply, get, logs, exec, delete.
    """
    settings = Settings(run)
    settings.namespace = namespace
    settings.folder = state.absolute() if state is not None else None
    context.obj = settings


for module in (lifecycle, objects, workloads, pods, inject, mesh, route):
    module.register(app)


def _mount_exercises(argv: list[str]) -> None:
    """Mounts `exercise` when it is asked for, or for help: importing the runner takes time."""
    general = argv[:1] in ([], ["-h"], ["--help"]) or "_GUESTBOOK_COMPLETE" in os.environ
    if general or "exercise" in argv[:4]:
        from lab.cli import exercise

        app.add_typer(exercise.app, name="exercise")


def _see(error: typer.TyperException) -> str:
    """The command whose help says more."""
    context = getattr(error, "ctx", None)
    return context.command_path if context is not None else "guestbook"


def run(argv: list[str]) -> int:
    """Run one command; the exit status."""
    _mount_exercises(argv)
    command = typer.main.get_command(app)
    try:
        status = command.main(args=argv, prog_name="guestbook", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has seen enough. Without this, Python would say so when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except FailureError as error:
        for line in error.lines:
            prefix = "Error from server (NotFound): " if error.missing else "Error: "
            sys.stderr.write(f"{prefix}{line}\n")
        return 1
    except typer.TyperException as error:
        # A group of commands without a command has printed its help; there is no message.
        if message := error.format_message():
            sys.stderr.write(f"Error: {message}\nSee: {_see(error)} --help\n")
        return 1
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        sys.stderr.write(f"Error: {place}{error.strerror or error}\n")
        return 1
    except Exception as error:
        if os.environ.get(TRACE):
            raise
        sys.stderr.write(f"Error: {error!r}\nThis is a defect; {TRACE}=1 shows where\n")
        return 1
    return status if isinstance(status, int) else 0
