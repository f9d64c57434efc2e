"""delete."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Annotated

import typer

from lab.cli import manifests, references
from lab.cli.client import FailureError
from lab.cli.context import (
    DRY_RUNS,
    AllNamespaces,
    AllOfKind,
    DryRun,
    Files,
    IgnoreNotFound,
    Kustomize,
    Names,
    Namespace,
    Recursive,
    Selector,
    asked_namespace,
    client,
    dry,
    namespace,
)
from lab.cli.output import write


def delete(
    context: typer.Context,
    names: Names = None,
    filename: Files = None,
    kustomize: Kustomize = None,
    recursive: Recursive = False,
    namespace_: Namespace = None,
    all_namespaces: AllNamespaces = False,
    selector: Selector = "",
    all_: AllOfKind = False,
    ignore_not_found: IgnoreNotFound = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is gone.")] = True,
    now: Annotated[bool, typer.Option("--now", help="Give pods one second to end.")] = False,
    force: Annotated[bool, typer.Option("--force", help="End pods at once.")] = False,
    grace_period: Annotated[
        int | None, typer.Option(help="Seconds that pods get to end.", min=-1)
    ] = None,
    dry_run: DryRun = "none",
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
    grace = None if grace is None or grace < 0 else grace
    how = {"wait": wait, "grace": grace, "selector": selector, "dry_run": dry(dry_run)}
    suffix = DRY_RUNS[dry_run]
    lab = client(context)
    missing: list[str] = []
    if filename or kustomize:
        files = manifests.texts(filename, kustomize, recursive=recursive)
        given = asked_namespace(context, namespace_)
        answer = lab.call("delete_files", files=files, namespace=given, **how)
        _print(answer["deleted"], suffix)
        missing = answer["missing"]
    elif names:
        where = None if all_namespaces else namespace(context, namespace_)
        for kinds, some in references.split(names):
            if all_namespaces and some:
                raise FailureError("a resource cannot be retrieved by name across all namespaces")
            references.require_names(some, selector, all_)
            for kind, name in itertools.product(kinds.split(","), some or [""]):
                query = {"kind": kind.strip(), "names": [name] if name else []}
                deleted = lab.call_or_note(missing, "delete", namespace=where, **query, **how)
                if deleted or name:
                    _print(deleted, suffix)
                else:
                    write("No resources found")
    else:
        raise FailureError("say what to delete: a kind and names, or -f FILE")
    if missing and not ignore_not_found:
        raise FailureError(*missing, missing=True)


def _print(lines: Iterable[str] | None, suffix: str) -> None:
    for line in lines or ():
        write(f"{line}{suffix}")
