"""image: programs of this machine that play container images."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from lab.cli.client import FailureError
from lab.cli.context import client
from lab.cli.output import columns, write


def image(
    context: typer.Context,
    pairs: Annotated[list[str] | None, typer.Argument(metavar="[NAME=COMMAND | NAME-]...")] = None,
) -> None:
    """Have a program of this machine play a container image, or list those that do.

    NAME is the image without its registry and its tag. The program starts as the
    image's entry point, in the pod's network; NAME- takes it away again. The lab
    keeps it for its next starts.

    Examples:
      guestbook image
      guestbook image kong/httpbin='python3 -m httpbin.core --host 0.0.0.0 --port 80'
      guestbook image kong/httpbin-
    """
    wanted: dict[str, list[str] | None] = {}
    for text in pairs or ():
        name, equals, command = text.partition("=")
        if not equals and not text.endswith("-"):
            raise FailureError(f"not NAME=COMMAND or NAME-: {text!r}")
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise FailureError(f"{text!r}: {error}") from None
        if equals and not words:
            raise FailureError(f"no command: {text!r}")
        wanted[name if equals else text[:-1]] = words if equals else None
    shown = client(context).call("images", own=wanted)
    rows = [[name, "own" if own else "lab", command] for name, own, command in shown]
    write("\n".join(columns(("IMAGE", "FROM", "COMMAND"), rows)))
