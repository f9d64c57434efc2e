"""apply and install."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import typer

from lab.cli.client import FailureError
from lab.cli.context import (
    DRY_RUNS,
    DryRun,
    Files,
    Kustomize,
    Namespace,
    Recursive,
    Selector,
    asked_namespace,
    client,
    dry,
)
from lab.cli.manifests import Texts, errors, texts
from lab.cli.output import warn, write
from lab.cli.overrides import operator


def apply(
    context: typer.Context,
    filename: Files = None,
    kustomize: Kustomize = None,
    recursive: Recursive = False,
    selector: Selector = "",
    namespace_: Namespace = None,
    dry_run: DryRun = "none",
    record: Annotated[bool, typer.Option("--record", hidden=True)] = False,
) -> None:
    """Create or change objects from manifests.

    All manifests are checked first: when one has a problem, nothing is changed.

    Examples:
      guestbook apply -f istio/05-retries/virtual-service.yaml
      guestbook apply -k k8s/base
      cat pod.yaml | guestbook apply -f -
    """
    if record:
        sys.stderr.write("Flag --record has been deprecated, --record will be removed\n")
    files = texts(filename, kustomize, recursive=recursive)
    _apply(context, files, asked_namespace(context, namespace_), dry_run, selector)


def install(
    context: typer.Context,
    filename: Files = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", "-s", metavar="PATH=VALUE", help="A value, after those of the files."
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--skip-confirmation", "-y", help="As istioctl's.")] = False,  # noqa: ARG001 - the lab never asks
) -> None:
    """Set the mesh's configuration, as `istioctl install` does with IstioOperators.

    It is that of these files and values alone: what an earlier install had set
    is gone.

    Examples:
      guestbook install -f istio/install/istio.yaml
      guestbook install --set meshConfig.accessLogFile=/dev/stdout
    """
    from lab.manifests.load import parse

    if not filename and not set_:
        raise FailureError(
            "the lab installs no profile: guestbook install -f istio/install/istio.yaml"
        )
    files: list[tuple[str, Any]] = [*texts(filename)] if filename else []
    if set_:
        if files and (lists := [word for word in set_ if "[" in word.partition("=")[0]]):
            raise FailureError(f"--set {lists[0]}: beside -f a list belongs into the file")
        files.append(("--set", operator(set_, files)))
    _apply(context, files, None)
    with errors():
        given = {(item.namespace, item.name) for item in parse(files).resources}
    lab = client(context)
    for item in lab.call("objects", kinds=["istiooperators"], namespace=None)["items"]:
        where, name = item["metadata"]["namespace"], item["metadata"]["name"]
        if (where, name) not in given:
            lab.call("delete", kind="istiooperator", namespace=where, names=[name])


def _apply(
    context: typer.Context,
    files: Sequence[tuple[str, Any]],
    namespace: str | None,
    dry_run: str = "none",
    selector: str = "",
) -> None:
    query = {"files": files, "namespace": namespace, "selector": selector}
    answer = client(context).call("apply", **query, dry_run=dry(dry_run))
    if not answer["results"]:
        raise FailureError("no objects passed to apply")
    told(answer, DRY_RUNS[dry_run])


def told(answer: Mapping[str, Any], suffix: str = "", words: Mapping[str, str] = {}) -> None:
    """Prints what the lab did with each object, `words` in place of the lab's own.

    Raises FailureError when an Envoy refused it.
    """
    for line in answer["warnings"]:
        warn(line)
    for reference, verb in answer["results"]:
        write(f"{reference} {words.get(verb, verb)}{suffix}")
    if rejected := answer.get("rejected"):
        raise FailureError(*rejected)


def put(
    context: typer.Context,
    files: Texts,
    namespace: str | None,
    dry_run: str,
    verb: Literal["create", "replace"],
    *,
    anew: bool = False,
    warned: Sequence[str] = (),
) -> None:
    """Creates the objects of manifests, none of which may be there, or replaces those there are.

    With `anew` those to replace must be gone. `warned` are the warnings of a dry run before; the
    lab gives some of them only once.
    """
    lab, manner = client(context), "create" if anew else verb
    query = {"files": files, "namespace": namespace, "manner": manner}
    answer = lab.call("apply", **query, dry_run=dry(dry_run))
    answer["warnings"] = list(dict.fromkeys([*warned, *answer["warnings"]]))
    words = dict.fromkeys(("created", "configured", "unchanged"), f"{verb}d")
    told(answer, DRY_RUNS[dry_run], words)
    if refused := answer["refused"]:
        lines = [
            f'error when {verb[:-1]}ing "{"STDIN" if file == "-" else file}": {reason}'
            for file, reason in refused
        ]
        raise FailureError(*lines, missing=manner == "replace", existing=manner == "create")
    if not answer["results"]:
        raise FailureError(f"no objects passed to {verb}")
