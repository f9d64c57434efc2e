"""analyze: faults across resources, as `istioctl analyze` finds them."""

from __future__ import annotations

import fnmatch
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from lab.cli.client import FailureError
from lab.cli.context import AllNamespaces, Files, Namespace, asked_namespace, namespace, settings
from lab.cli.output import warn, write
from lab.cli.route import from_files, from_lab, running_objects

if TYPE_CHECKING:
    from lab.explain.analyze.finding import Finding, Level
    from lab.model import Snapshot
    from lab.resources.resource import Resource

FOUND = 79
"""istioctl's exit status when there are findings of the failure threshold."""

_LEVEL = "info|warning|error"
_COLOURS = {"Error": "\033[1;31m", "Warning": "\033[33m", "Info": ""}


def _refused(reason: str, *names: str) -> Any:
    """Returns an option of istioctl's that is refused with the reason."""

    def refuse(value: object) -> None:
        if value:
            raise FailureError(f"{names[0]} is not in the lab: {reason}")

    return typer.Option(*names, hidden=True, callback=refuse)


def analyze(
    context: typer.Context,
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FILE]...", help="Manifests to look at as if they were applied."),
    ] = None,
    filename: Files = None,
    use_kube: Annotated[
        bool, typer.Option("--use-kube/--no-use-kube", "-k", help="The lab's mesh, or FILEs alone.")
    ] = True,
    output: Annotated[str, typer.Option("--output", "-o", help="log, json or yaml.")] = "log",
    suppress: Annotated[
        list[str] | None,
        typer.Option("--suppress", "-S", help='Leave out, as "IST0102=Namespace shop*".'),
    ] = None,
    output_threshold: Annotated[
        str, typer.Option(metavar=_LEVEL, help="The least level to print.")
    ] = "info",
    failure_threshold: Annotated[
        str, typer.Option(metavar=_LEVEL, help="The least level of status 79.")
    ] = "error",
    color: Annotated[
        bool | None, typer.Option(help="Colours; by default on a terminal.", show_default=False)
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say what was read.")] = False,
    _list_analyzers: Annotated[
        bool, _refused("docs/lab.md lists the codes", "--list-analyzers", "-L")
    ] = False,
    _analyzer: Annotated[
        list[str] | None, _refused("-S leaves out findings by code", "--analyzer")
    ] = None,
    _recursive: Annotated[
        bool, _refused("istioctl has removed it; FILE may be a folder", "--recursive", "-R")
    ] = False,
    _mesh_config_file: Annotated[
        str, _refused("give the IstioOperator as a FILE", "--meshConfigFile")
    ] = "",
    all_namespaces: AllNamespaces = False,
    namespace_: Namespace = None,
) -> None:
    """Find what is wrong across resources: hosts, subsets, gateways that are not there, and more.

    Codes and texts are those of `istioctl analyze`, but for the lab's own
    findings, which have the code lab; places are file and line. With -f no lab
    has to run: the manifests alone are the mesh, with all their namespaces
    unless -n names one. The exit status is 79 when there is an error, but not
    with -o json and yaml, as istioctl has it. The annotation
    galley.istio.io/analyze-suppress (codes, or *) leaves out findings.

    Examples:
      guestbook analyze
      guestbook analyze istio/07-traffic-shifting/20-80.yaml
      guestbook analyze -S "IST0173=DestinationRule *" --failure-threshold warning
      guestbook analyze -f k8s/base -f istio/02-ingress -f istio/05-retries/virtual-service.yaml
    """
    from lab.explain.analyze import analyze as analyses

    if output.lower() not in ("log", "json", "yaml"):
        raise FailureError(f"{output} not a valid option for format: log, json or yaml")
    worst, least = _level(failure_threshold), _level(output_threshold)
    suppressed = list(map(_suppression, suppress or ()))
    alone = [*(filename or ()), *(() if use_kube else _below(files or ()))]
    if alone and files and (filename or use_kube):
        raise FailureError(
            "FILE and -f FILE do not go together: give one of",
            "  guestbook analyze FILE...        the lab's mesh, with FILE as if applied",
            "  guestbook analyze -f FILE ...    the mesh of the manifests alone",
        )
    where = None if all_namespaces else namespace(context, namespace_)
    target = f"namespace: {where}" if where else "all namespaces"
    if alone:
        target = " ".join(alone)
        mesh = _of_files(alone, namespace(context, namespace_))
        where = None if all_namespaces else asked_namespace(context, namespace_)
    else:
        added = list(_below(files or ()))
        target = " ".join(added) or target
        mesh = _of_lab(context, added, namespace(context, namespace_))
        if where and where not in [item.name for item in mesh.of("Namespace")]:
            sys.stderr.write(f'namespace "{where}" not found\n')
            return
    found = [
        finding
        for finding in analyses.analyze(mesh)
        if where in (None, finding.namespace or finding.name)
        and not any(_is_suppressed(finding, *one) for one in suppressed)
    ]
    if verbose:
        sys.stderr.write(f"Analyzed resources in {target}\n\n")
    _print([one for one in found if one.is_as_bad_as(least)], output.lower(), target, color)
    if output.lower() == "log" and any(finding.is_as_bad_as(worst) for finding in found):
        _fail(target)


def _level(name: str) -> Level:
    from lab.explain.analyze.finding import LEVELS

    for level in LEVELS:
        if level.lower() == name.lower():
            return level
    raise FailureError(f"invalid level option {name}: {', '.join(LEVELS)}")


def _suppression(given: str) -> tuple[str, str]:
    from lab.explain.analyze.finding import CODES

    code, equals, name = given.partition("=")
    if not equals or "=" in name:
        raise FailureError(f"{given} is not a valid suppression value: CODE=KIND NAMESPACE/NAME")
    if code not in CODES:
        what = f"Supplied message code '{code}' is an unknown message code"
        warn(f"{what} and will not have any effect.")
    return code, name


def _is_suppressed(finding: Finding, code: str, name: str) -> bool:
    """Returns whether a finding is left out; its object is `KIND NAMESPACE/NAME`.

    istioctl's help has `KIND NAME.NAMESPACE`, which istioctl itself does not know.
    """
    dotted = f"{finding.kind} {finding.name}.{finding.namespace}"
    return code == finding.code and any(
        fnmatch.fnmatchcase(known, name.replace("[", "[[]")) for known in (finding.origin, dotted)
    )


def _below(names: Sequence[str]) -> Iterator[str]:
    """Yields the files, with the manifests in folders at any depth."""
    from lab.manifests.read import SUFFIXES

    for name in names:
        if not Path(name).is_dir():
            yield name
            continue
        for file in sorted(Path(name).rglob("*")):
            if file.suffix not in SUFFIXES or file.name == "kustomization.yaml":
                continue
            if b"apiVersion" in file.read_bytes():
                yield str(file)
            else:
                sys.stderr.write(f"Skipping file {file}: it has no apiVersion\n")


def _of_files(files: Sequence[str], where: str) -> Snapshot:
    from lab.cluster import snapshots

    return snapshots.snapshot(_placed(from_files(files), where))


def _of_lab(context: typer.Context, files: Sequence[str], where: str) -> Snapshot:
    """Returns the mesh of the lab, running or not, with manifests as if they were applied."""
    from lab.cluster import snapshots

    chosen = settings(context)
    resources = from_lab(chosen.state_folder())
    if not files:
        return snapshots.snapshot(resources, running=running_objects(chosen.client()))
    added = _placed(from_files(files, gateway=False), where)
    found = snapshots.snapshot([*resources, *added], running=running_objects(chosen.client()))
    return replace(found, pods=(*found.pods, *snapshots.snapshot(added).pods))


def _placed(resources: Sequence[Resource], namespace: str) -> list[Resource]:
    """Returns the resources, those that name no namespace in this one."""
    return [
        replace(item, namespace=namespace)
        if item.namespace and not item.raw.get("metadata", {}).get("namespace")
        else item
        for item in resources
    ]


def _print(found: Sequence[Finding], output: str, target: str, color: bool | None) -> None:
    if output == "log":
        colours = color if color is not None else _is_colourful()
        for one in found:
            colour = _COLOURS[one.level] if colours else ""
            write(f"{colour}{one.level}{colour and _END}{one.line().removeprefix(one.level)}")
    else:
        _write_data(list(map(_data, found)), output)
    if not found:
        sys.stderr.write(f"✔ No validation issues found when analyzing {target}.\n")


_END = "\033[0m"


def _is_colourful() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM", "").lower() != "dumb"


def _documentation() -> str:
    from lab import versions

    minor = versions.istio().rpartition(".")[0]
    return f"https://istio.io/v{minor}/docs/reference/config/analysis"


def _data(finding: Finding) -> dict[str, Any]:
    from lab.explain.analyze.finding import LAB

    page = f"{_documentation()}/{finding.code.lower()}/?ref=istioctl-analyze"
    return finding.json() | ({} if finding.code == LAB else {"documentationUrl": page})


def _write_data(found: list[dict[str, Any]], output: str) -> None:
    if output == "json":
        write(json.dumps(found, indent="\t", sort_keys=True, ensure_ascii=False))
    else:
        import yaml

        write(yaml.safe_dump(found, allow_unicode=True, width=1_000_000), end="")


def _fail(target: str) -> NoReturn:
    sys.stderr.write(
        f"Error: Analyzers found issues when analyzing {target}.\n"
        f"See {_documentation()} for more information about causes and resolutions.\n"
    )
    raise typer.Exit(FOUND)
