"""Options that many commands have, and the settings given before the verb."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lab.cli import complete
from lab.cli.client import Client, FailureError, lab_client

if TYPE_CHECKING:
    from lab.exercises.target import Command

PROGRAMS = ("kubectl", "istioctl", "guestbook")
"""Names under which a shell of the lab finds this command."""


def program() -> str:
    """Returns the name that was typed; `guestbook` where the commands run in another program."""
    name = Path(sys.argv[0]).name
    return name if name in PROGRAMS else "guestbook"


Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace",
        "-n",
        help="The namespace.",
        show_default="default",
        autocompletion=complete.namespaces,
    ),
]
Selector = Annotated[
    str, typer.Option("--selector", "-l", help="Labels to select by, such as app=ui,version!=1.0.")
]
AllNamespaces = Annotated[
    bool, typer.Option("--all-namespaces", "-A", help="All namespaces instead of one.")
]
AllOfKind = Annotated[bool, typer.Option("--all", help="All objects of the kind.")]
IgnoreNotFound = Annotated[
    bool, typer.Option("--ignore-not-found", help="A missing object is no error.")
]
Files = Annotated[
    list[str] | None,
    typer.Option("--filename", "-f", help="A file, a folder, a URL, or - for standard input."),
]
Recursive = Annotated[
    bool, typer.Option("--recursive", "-R", help="The folders below those of -f as well.")
]
Kustomize = Annotated[
    str | None, typer.Option("--kustomize", "-k", help="A folder with a kustomization.yaml.")
]
DryRun = Annotated[
    str, typer.Option(metavar="client|server|none", help="Check, print, and change nothing.")
]
Timeout = Annotated[str, typer.Option(help="How long to wait at most.")]

Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="KIND [NAME]... | KIND/NAME...", autocompletion=complete.objects),
]
Workloads = Annotated[
    list[str],
    typer.Argument(
        metavar="KIND NAME | KIND/NAME", show_default=False, autocompletion=complete.objects
    ),
]
PodTarget = Annotated[str, typer.Argument(metavar="POD | KIND/NAME", autocompletion=complete.pods)]
ContainerName = Annotated[str | None, typer.Option("--container", "-c", help="The container.")]


@dataclass(frozen=True, slots=True)
class Settings:
    """The options given before the verb; a command's own options win."""

    command: Command
    """The application itself, for commands that run others."""
    namespace: str | None = None
    folder: Path | None = None

    def client(self) -> Client:
        return lab_client(self.folder)

    def state_folder(self) -> Path:
        return self.client().folder


def settings(context: typer.Context) -> Settings:
    found = context.find_object(Settings)
    assert found is not None  # noqa: S101 - the application's callback made it
    return found


def client(context: typer.Context) -> Client:
    return settings(context).client()


DRY_RUNS = {"none": "", "client": " (dry run)", "server": " (server dry run)"}
"""The end of the line about an object, by the value of `--dry-run`."""


def dry(mode: str) -> bool:
    """Returns whether `--dry-run` asks for no change. Raises FailureError for a bad value."""
    if mode not in DRY_RUNS:
        raise FailureError(
            f'Invalid dry-run value ({mode}). Must be "none", "server", or "client".'
        )
    return mode != "none"


def asked_namespace(context: typer.Context, own: str | None) -> str | None:
    """Returns the namespace given with `-n`, before or after the verb, if any."""
    return own or settings(context).namespace


def namespace(context: typer.Context, own: str | None) -> str:
    return asked_namespace(context, own) or "default"
