"""down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lab.cli.client import FailureError
from lab.cli.context import client
from lab.cli.output import short_path, write, write_now

if TYPE_CHECKING:
    from lab.cluster.state import State


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
    from lab.cluster.state import AlreadyRunningError, State, locked, wait_until_unlocked

    lab = client(context)
    try:
        lab.call("down")
        write_now("Stopping the pods")
        wait_until_unlocked(State(lab.folder))
        write("The lab is stopped")
    except FailureError as error:
        if not clean:
            raise
        write(error.lines[0])
    if clean:
        try:
            with locked(State(lab.folder)):
                _empty(State(lab.folder))
        except AlreadyRunningError as error:
            raise FailureError(str(error)) from None
        write(f"Deleted {short_path(lab.folder)}")


def _empty(state: State) -> None:
    """Deletes a state folder, but for the programs of `env`: a shell would find others then."""
    import shutil

    for path in state.folder.iterdir():
        if path.is_dir() and path != state.commands:
            shutil.rmtree(path)
        elif path != state.commands:
            path.unlink()
    if not state.commands.exists():
        state.folder.rmdir()
