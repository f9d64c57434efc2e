"""The commands of the mesh, as `lab.cli.app` mounts them."""

from __future__ import annotations

import typer

from lab.mesh import commands


def register(app: typer.Typer) -> None:
    commands.register(app)
