"""diff: what an apply would change."""

from __future__ import annotations

import difflib
import sys
from typing import Any

import typer

from lab.cli.client import Client, FailureError
from lab.cli.context import Files, Kustomize, Namespace, Recursive, asked_namespace, client
from lab.cli.manifests import errors, texts
from lab.cli.output import Json, reference, write, yaml_text

SET_BY_THE_SERVER = ("uid", "creationTimestamp", "generation")


def diff(
    context: typer.Context,
    filename: Files = None,
    kustomize: Kustomize = None,
    recursive: Recursive = False,
    namespace_: Namespace = None,
) -> None:
    """Print what `apply` would change, in unified form.

    The exit status is 0 when it would change nothing, 1 when it would, and 2
    when that can't be said.

    Examples:
      guestbook diff -f istio/07-traffic-shifting/20-80.yaml
      guestbook diff -k k8s/base
    """
    from lab.cluster.store import document
    from lab.manifests.load import parse

    lab = client(context)
    try:
        files = texts(filename, kustomize, recursive=recursive)
        where = asked_namespace(context, namespace_)
        answer = lab.call("apply", files=files, namespace=where, dry_run=True)
        with errors():
            resources = parse(files, where).resources
        lines = [
            line
            for resource, (_, verb) in zip(resources, answer["results"], strict=True)
            if verb != "unchanged"
            for line in _lines(lab, document(resource))
        ]
    except FailureError as error:
        sys.stderr.write("".join(f"error: {line}\n" for line in error.lines))
        raise typer.Exit(2) from None
    if lines:
        write("\n".join(lines))
        raise typer.Exit(1)


def _lines(lab: Client, wanted: Json) -> list[str]:
    metadata = wanted["metadata"]
    where, name = metadata.get("namespace", ""), metadata["name"]
    kind, _, group = wanted["kind"].lower(), "", wanted["apiVersion"].rpartition("/")[0]
    missing: list[str] = []
    found = lab.call_or_note(
        missing, "objects", kinds=[f"{kind}.{group}".rstrip(".")], namespace=where, names=[name]
    )
    live = _plain(found["items"][0]) if found is not None else {}
    if wanted["kind"] == "Service":
        given = {key: live["spec"][key] for key in ("type", "clusterIP") if live}
        wanted = {**wanted, "spec": {**given, **wanted["spec"]}}
    title = reference(wanted)
    return list(
        difflib.unified_diff(
            _text(live), _text(wanted), f"live/{title}", f"applied/{title}", lineterm=""
        )
    )


def _plain(item: Json) -> Json:
    """An object without what the server adds."""
    metadata = {k: v for k, v in item["metadata"].items() if k not in SET_BY_THE_SERVER}
    return {key: value for key, value in item.items() if key != "status"} | {"metadata": metadata}


def _text(value: Any) -> list[str]:
    return yaml_text(_sorted(value)).splitlines() if value else []


def _sorted(value: Any) -> Any:
    """A value with its keys in order, so that only what they hold differs."""
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value
