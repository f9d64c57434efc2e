"""delete."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Annotated

import typer

from lab.cli import manifests, references
from lab.cli.client import FailureError
from lab.cli.context import (
    AllOfKind,
    Files,
    IgnoreNotFound,
    Kustomize,
    Names,
    Namespace,
    Selector,
    asked_namespace,
    client,
    namespace,
)
from lab.cli.output import write


def delete(
    context: typer.Context,
    names: Names = None,
    filename: Files = None,
    kustomize: Kustomize = None,
    namespace_: Namespace = None,
    selector: Selector = "",
    all_: AllOfKind = False,
    ignore_not_found: IgnoreNotFound = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is gone.")] = True,
    now: Annotated[bool, typer.Option("--now", help="Give pods one second to end.")] = False,
    force: Annotated[bool, typer.Option("--force", help="End pods at once.")] = False,
    grace_period: Annotated[
        int | None, typer.Option(help="Seconds that pods get to end.", min=-1)
    ] = None,
) -> None:
    """Delete objects by file, by name or by label.

    Examples:
      guestbook delete -f istio/05-retries/virtual-service.yaml
      guestbook delete pod -l app=message-service
      guestbook delete virtualservice message
    """
    grace = grace_period
    if grace is None and (force or now):
        grace = 0 if force else 1
    how = {"wait": wait, "grace": None if grace is None or grace < 0 else grace}
    lab = client(context)
    missing: list[str] = []
    if filename or kustomize:
        files, where = manifests.texts(filename, kustomize), asked_namespace(context, namespace_)
        answer = lab.call("delete_files", files=files, namespace=where, **how)
        _print(answer["deleted"])
        missing = answer["missing"]
    elif names:
        query = {"namespace": namespace(context, namespace_), "selector": selector, **how}
        for kinds, some in references.split(names):
            references.require_names(some, selector, all_)
            for kind, name in itertools.product(kinds.split(","), some or [""]):
                deleted = lab.call_or_note(
                    missing, "delete", kind=kind.strip(), names=[name] if name else [], **query
                )
                _print(deleted if deleted or name else ["No resources found"])
    else:
        raise FailureError("say what to delete: a kind and names, or -f FILE")
    if missing and not ignore_not_found:
        raise FailureError(*missing, missing=True)


def _print(lines: Iterable[str] | None) -> None:
    for line in lines or ():
        write(line)
