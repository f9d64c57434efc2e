"""analyze: faults across resources, as `istioctl analyze` finds them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from lab.cli.client import FailureError
from lab.cli.context import AllNamespaces, Files, Namespace, namespace, settings
from lab.cli.output import write
from lab.cli.route import from_files, from_lab, running_objects

if TYPE_CHECKING:
    from lab.explain.analyze.finding import Finding
    from lab.model import Snapshot


def analyze(
    context: typer.Context,
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FILE]...", help="Manifests to look at as if they were applied."),
    ] = None,
    filename: Files = None,
    use_kube: Annotated[
        str, typer.Option(metavar="BOOL", help="false: FILEs alone, as -f has it.")
    ] = "true",
    output: Annotated[str, typer.Option("--output", "-o", help="log or json.")] = "log",
    all_namespaces: AllNamespaces = False,
    namespace_: Namespace = None,
) -> None:
    """Find what is wrong across resources: hosts, subsets, gateways that are not there, and more.

    Codes and texts are those of `istioctl analyze`, but for the lab's own
    findings, which have the code lab; places are file and line.
    With -f no lab has to run: the manifests alone are the mesh. The exit status
    is 1 when there is an error.

    Examples:
      guestbook analyze
      guestbook analyze istio/07-traffic-shifting/20-80.yaml
      guestbook analyze -f k8s/base -f istio/02-ingress -f istio/05-retries/virtual-service.yaml
    """
    from lab.explain.analyze import analyze as analyses

    if output not in ("log", "json"):
        raise FailureError(f"unknown output {output}: log or json")
    alone = [*(filename or ()), *((files or ()) if use_kube == "false" else ())]
    if alone:
        if len(alone) < len([*(filename or ()), *(files or ())]):
            raise FailureError(
                "FILE and -f FILE do not go together: give one of",
                "  guestbook analyze FILE...        the lab's mesh, with FILE as if applied",
                "  guestbook analyze -f FILE ...    the mesh of the manifests alone",
            )
        found = analyses.analyze(_of_files(alone))
        looked_at = f"analyzing {' '.join(alone)}"
    else:
        where = None if all_namespaces else namespace(context, namespace_)
        found = [
            finding
            for finding in analyses.analyze(_of_lab(context, files or ()))
            if where in (None, finding.namespace or finding.name)
        ]
        looked_at = f"analyzing namespace: {where}" if where else "analyzing all namespaces"
    _print(found, output, looked_at)
    if any(finding.level == "Error" for finding in found):
        raise typer.Exit(1)


def _of_files(files: Sequence[str]) -> Snapshot:
    from lab.cluster import snapshots

    return snapshots.snapshot(from_files(files))


def _of_lab(context: typer.Context, files: Sequence[str]) -> Snapshot:
    """Returns the mesh of the lab, running or not, with manifests as if they were applied."""
    from dataclasses import replace

    from lab.cluster import snapshots

    chosen = settings(context)
    resources = from_lab(chosen.state_folder())
    if not files:
        return snapshots.snapshot(resources, running=running_objects(chosen.client()))
    added = from_files(files, gateway=False)
    found = snapshots.snapshot([*resources, *added], running=running_objects(chosen.client()))
    return replace(found, pods=(*found.pods, *snapshots.snapshot(added).pods))


def _print(found: Sequence[Finding], output: str, looked_at: str) -> None:
    if output == "json":
        write(json.dumps([finding.json() for finding in found], indent=2))
    elif found:
        write("\n".join(finding.line() for finding in found))
    else:
        write(f"✔ No validation issues found when {looked_at}.")
