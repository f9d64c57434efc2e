"""down."""

from __future__ import annotations

from typing import Annotated

import typer

from lab.cli.client import FailureError
from lab.cli.context import client
from lab.cli.output import short_path, write


def down(
    context: typer.Context,
    clean: Annotated[
        bool, typer.Option("--clean", help="Also delete the state folder: resources and data.")
    ] = False,
) -> None:
    """Stop the running lab; its resources and data stay for the next `up`.

    Examples:
      guestbook down
      guestbook down --clean
    """
    import shutil

    from lab.cluster.state import AlreadyRunningError, State, locked, wait_until_unlocked

    lab = client(context)
    try:
        lab.call("down")
        wait_until_unlocked(State(lab.folder))
        write("The lab is stopped")
    except FailureError as error:
        if not clean:
            raise
        write(error.lines[0])
    if clean:
        try:
            with locked(State(lab.folder)):
                shutil.rmtree(lab.folder)
        except AlreadyRunningError as error:
            raise FailureError(str(error)) from None
        write(f"Deleted {short_path(lab.folder)}")
