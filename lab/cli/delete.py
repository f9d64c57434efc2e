"""delete."""

from __future__ import annotations

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
    if filename or kustomize:
        targets = _in_files(filename, kustomize, asked_namespace(context, namespace_))
    elif names:
        where = namespace(context, namespace_)
        targets = []
        for kinds, some in references.split(names):
            references.require_names(some, selector, all_)
            targets += [(kind.strip(), where, some) for kind in kinds.split(",")]
    else:
        raise FailureError("say what to delete: a kind and names, or -f FILE")
    grace = grace_period
    if grace is None and (force or now):
        grace = 0 if force else 1
    missing: list[str] = []
    for kind, where, some in targets:
        for name in some or [""]:
            deleted = client(context).call_or_note(
                missing,
                "delete",
                kind=kind,
                namespace=where,
                names=[name] if name else [],
                selector=selector,
                wait=wait,
                grace=None if grace is None or grace < 0 else grace,
            )
            for line in deleted or ():
                write(line)
            if deleted == [] and not name:
                write("No resources found")
    if missing and not ignore_not_found:
        raise FailureError(*missing, missing=True)


def _in_files(
    filename: list[str] | None, kustomize: str | None, where: str | None
) -> list[tuple[str, str, list[str]]]:
    """Returns kind, namespace and name of each object in the manifests."""
    from lab.manifests.load import parse

    with manifests.errors():
        resources = parse(manifests.texts(filename, kustomize), where).resources
    found = [(resource.kind, resource.namespace, [resource.name]) for resource in resources]
    # A namespace takes what is in it along, and that would then be missing.
    return sorted(found, key=lambda target: target[0] == "Namespace")
