"""patch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lab.cli import references
from lab.cli.client import FailureError
from lab.cli.context import DryRun, Namespace, Workloads, client, dry, namespace
from lab.cli.made import Output, content, tell


def patch(
    context: typer.Context,
    target: Workloads,
    patch_: Annotated[str, typer.Option("--patch", "-p", help="The patch, JSON or YAML.")] = "",
    patch_file: Annotated[str, typer.Option(help="A file with the patch.")] = "",
    type_: Annotated[
        str,
        typer.Option(
            "--type", metavar="strategic|merge|json", help="Istio's kinds take no strategic."
        ),
    ] = "strategic",
    dry_run: DryRun = "none",
    output: Output = None,
    namespace_: Namespace = None,
) -> None:
    """Change fields of an object.

    A strategic patch merges lists such as containers and env by name, a merge
    patch replaces lists, a JSON patch is a list of operations.

    Examples:
      guestbook patch deploy/ui -p '{"spec": {"replicas": 2}}'
      guestbook patch vs message --type=merge --patch-file=timeout.yaml
      guestbook patch svc ui --type=json -p '[{"op": "remove", "path": "/spec/ports/1"}]'
    """
    if patch_ and patch_file:
        raise FailureError("cannot specify --patch and --patch-file together")
    if not patch_ and not patch_file:
        raise FailureError(
            "must specify --patch or --patch-file containing the contents of the patch"
        )
    if type_.lower() not in ("strategic", "merge", "json"):
        raise FailureError(f'--type must be one of [json merge strategic], not "{type_}"')
    if patch_file:
        failed = "unable to read patch file: open {path}: {reason}"
        patch_ = content(Path(patch_file), failed).decode(errors="replace")
    query = {"patch": patch_, "type_": type_.lower(), "namespace": namespace(context, namespace_)}
    for kind, name in references.each(target):
        answer = client(context).call("patch", kind=kind, name=name, dry_run=dry(dry_run), **query)
        tell(answer, ("patched", "patched (no change)"), dry_run, output)
