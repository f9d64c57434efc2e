"""scale."""

from __future__ import annotations

from typing import Annotated

import typer

from lab.cli import references
from lab.cli.context import Namespace, Workloads, client, namespace
from lab.cli.output import write


def scale(
    context: typer.Context,
    target: Workloads,
    replicas: Annotated[int, typer.Option(help="The number of pods.")],
    namespace_: Namespace = None,
) -> None:
    """Change the number of pods of a Deployment or a StatefulSet.

    Example:
      guestbook scale deployment/message-service --replicas=3
    """
    lab, where = client(context), namespace(context, namespace_)
    for kind, name in references.each(target):
        lab.call("scale", kind=kind, namespace=where, name=name, replicas=replicas)
        write(f"{references.full(lab, kind, where, name)} scaled")
