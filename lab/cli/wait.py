"""wait."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from lab.cli import complete, references
from lab.cli.client import Client, FailureError
from lab.cli.context import AllOfKind, Namespace, Selector, Timeout, client, namespace
from lab.cli.durations import seconds
from lab.cli.output import Json, reference, write


def wait(
    context: typer.Context,
    target: Annotated[
        list[str],
        typer.Argument(metavar="KIND [NAME]... | KIND/NAME...", autocompletion=complete.objects),
    ],
    for_: Annotated[
        str, typer.Option("--for", help="condition=NAME, delete or jsonpath='{...}'=VALUE.")
    ],
    namespace_: Namespace = None,
    selector: Selector = "",
    all_: AllOfKind = False,
    timeout: Timeout = "30s",
) -> None:
    """Wait until objects meet a condition.

    Examples:
      guestbook wait --for=condition=Ready pod -l app=ui --timeout=60s
      guestbook wait --for=delete pod/curl
    """
    where = namespace(context, namespace_)
    deadline = time.monotonic() + seconds(timeout)
    for kind, names in references.split(target):
        references.require_names(names, selector, all_)
        query: Json = {"kinds": [kind], "names": names, "namespace": where, "selector": selector}
        _wait(client(context), query, for_, deadline)


def _wait(lab: Client, query: Json, condition: str, deadline: float) -> None:
    (kind,), names = query["kinds"], query["names"]
    revision = -1
    while True:
        options = {"after": revision, "timeout": 0.5, "in_effect": True}
        missing: list[str] = []
        answer = lab.call_or_note(missing, "objects", **query, **options)
        items: list[Json] = answer["items"] if answer is not None else []
        revision = answer["revision"] if answer is not None else revision
        if condition == "delete":
            if not items:
                for name in names:
                    write(f"{kind}/{name} condition met")
                return
        elif not items and names:
            raise FailureError(*missing, missing=True)
        elif not items:
            raise FailureError("no matching resources found")
        elif all(_meets(item, condition) for item in items):
            for item in items:
                write(f"{reference(item)} condition met")
            return
        if time.monotonic() > deadline:
            unmet = [reference(item) for item in items if not _meets(item, condition)]
            raise FailureError(
                *(f"timed out waiting for the condition on {name}" for name in unmet or [kind])
            )


def _meets(item: Json, condition: str) -> bool:
    kind, _, rest = condition.partition("=")
    if kind == "condition":
        name, _, wanted = rest.partition("=")
        conditions = item.get("status", {}).get("conditions", [])
        return any(
            c["type"].lower() == name.lower() and c["status"].lower() == (wanted or "true").lower()
            for c in conditions
        )
    if kind == "jsonpath":
        from lab.cli.jsonpath import evaluate

        path, _, value = rest.rpartition("=")
        return evaluate(path.strip("'"), item) == value
    if kind == "delete":
        return False
    raise FailureError(f"unrecognized condition: {condition!r}")
