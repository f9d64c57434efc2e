"""replace."""

from __future__ import annotations

from typing import Annotated

import typer

from lab.cli.apply import put
from lab.cli.client import FailureError
from lab.cli.context import (
    DryRun,
    Files,
    Kustomize,
    Namespace,
    Recursive,
    asked_namespace,
    client,
)
from lab.cli.manifests import texts
from lab.cli.output import write


def replace(
    context: typer.Context,
    filename: Files = None,
    kustomize: Kustomize = None,
    recursive: Recursive = False,
    namespace_: Namespace = None,
    force: Annotated[
        bool, typer.Option("--force", help="Delete the objects first, and make them anew.")
    ] = False,
    dry_run: DryRun = "none",
) -> None:
    """Replace objects by those of files; they must be there, unless with --force.

    Unlike `apply` it keeps nothing that the file doesn't say, such as a label.

    Examples:
      guestbook replace -f istio/05-retries/virtual-service.yaml
      guestbook get deploy ui -o yaml | sed s/v1/v2/ | guestbook replace -f -
    """
    if force and dry_run != "none":
        raise FailureError("--dry-run can not be used when --force is set")
    files = texts(filename, kustomize, recursive=recursive)
    where = asked_namespace(context, namespace_)
    warned: list[str] = []
    if force:
        lab, query = client(context), {"files": files, "namespace": where}
        warned = lab.call("apply", **query, manner="create", dry_run=True)["warnings"]
        answer = lab.call("delete_files", **query, grace=1)
        write("".join(f"{line}\n" for line in answer["deleted"]), end="")
    put(context, files, where, dry_run, "replace", anew=force, warned=warned)
