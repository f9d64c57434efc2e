"""create namespace."""

from __future__ import annotations

import typer

from lab.cli.context import client
from lab.cli.output import write

create = typer.Typer(help="Create an object.", no_args_is_help=True)


@create.command("ns", hidden=True)
@create.command("namespace")
def namespace(context: typer.Context, name: str) -> None:
    """Create a namespace.

    Example:
      guestbook create namespace playground
    """
    text = f"apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name!r}\n"
    client(context).call("apply", files=[("-", text)], create=True)
    write(f"namespace/{name} created")
