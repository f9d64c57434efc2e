"""The commands of the mesh, as `lab.cli.app` mounts them."""

from __future__ import annotations

import typer

from lab.mesh import commands, route_command


def register(app: typer.Typer) -> None:
    commands.register(app)
    route_command.register(app)
