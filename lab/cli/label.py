"""label and annotate."""

from __future__ import annotations

from typing import Annotated

import typer

from lab.cli import complete, references
from lab.cli.client import FailureError
from lab.cli.context import AllOfKind, Namespace, Selector, client, namespace
from lab.cli.output import write

Words = Annotated[
    list[str],
    typer.Argument(
        metavar="KIND NAME KEY=VALUE... KEY-...",
        show_default=False,
        autocompletion=complete.objects,
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a value.")]


def label(
    context: typer.Context,
    names: Words,
    namespace_: Namespace = None,
    selector: Selector = "",
    overwrite: Overwrite = False,
    all_: AllOfKind = False,
) -> None:
    """Set labels, or remove them with `key-`.

    Example:
      guestbook label namespace default istio-injection=enabled
    """
    where = namespace(context, namespace_)
    _change(context, "labels", names, where, selector, overwrite, all_)


def annotate(
    context: typer.Context,
    names: Words,
    namespace_: Namespace = None,
    selector: Selector = "",
    overwrite: Overwrite = False,
    all_: AllOfKind = False,
) -> None:
    """Set annotations, or remove them with `key-`.

    Example:
      guestbook annotate service ui team=frontend
    """
    where = namespace(context, namespace_)
    _change(context, "annotations", names, where, selector, overwrite, all_)


def _change(
    context: typer.Context,
    field: str,
    words: list[str],
    where: str,
    selector: str,
    overwrite: bool,
    every: bool,
) -> None:
    kind = field.removesuffix("s")
    objects, values = references.assignments(words, kind)
    if not values:
        raise FailureError(f"at least one {kind} update is required, such as key=value or key-")
    done = "labeled" if field == "labels" else "annotated"
    if None in values.values():
        done = f"un{done}"
    for kind, some in references.split(objects):
        if not some and not selector and not every:
            raise FailureError("one or more resources must be named, or use -l or --all")
        changed = client(context).call(
            "change",
            field=field,
            kind=kind,
            namespace=where,
            names=some,
            values=values,
            selector=selector,
            overwrite=overwrite,
        )
        for name in changed:
            write(f"{name} {done}")
