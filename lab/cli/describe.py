"""describe."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from lab.cli import references
from lab.cli.client import Client, FailureError
from lab.cli.context import Names, Namespace, Selector, client, namespace
from lab.cli.describe_kinds import WITHOUT_EVENTS, described
from lab.cli.describe_lines import aligned
from lab.cli.events import events, last_seen
from lab.cli.output import Json, write


def describe(
    context: typer.Context,
    names: Names = None,
    namespace_: Namespace = None,
    selector: Selector = "",
) -> None:
    """Print an object in full, with its events.

    Example:
      guestbook describe pod ui-7d5c9b7f4-x2x8k
    """
    if not names:
        raise FailureError("say what to describe: a kind and a name")
    lab = client(context)
    where = namespace(context, namespace_)
    texts = []
    for kinds, some in references.split(names):
        query = {"kinds": kinds.split(","), "namespace": where, "selector": selector}
        for item in _found(lab, query, some):
            metadata = item["metadata"]
            lines = described(item, _parts(lab, item))
            found = events(
                lab, metadata.get("namespace") or "default", item["kind"], metadata["name"]
            )
            if not found and item["kind"] not in WITHOUT_EVENTS:
                lines.append("Events:\t<none>")
            texts.append(aligned(lines) + (f"\n{_events(found)}" if found else ""))
    if texts:
        write("\n\n\n".join(texts))
    else:
        sys.stderr.write(f"No resources found in {where} namespace.\n")


def _found(lab: Client, query: Json, names: Sequence[str]) -> list[Json]:
    """Returns the objects of these names; for one that is not there those that begin with it."""
    try:
        found: list[Json] = lab.call("objects", names=names, **query)["items"]
    except FailureError as error:
        every = lab.call("objects", **query)["items"] if error.missing else []
        found = [
            item for name in names for item in every if item["metadata"]["name"].startswith(name)
        ]
        if not found:
            raise
    return found


def _parts(lab: Client, item: Json) -> list[Json]:
    """Returns the `parts` of an object that `described` takes."""
    metadata, kind = item["metadata"], item["kind"]
    if kind == "Service":
        label = f"kubernetes.io/service-name={metadata['name']}"
        return _listed(lab, "endpointslices", metadata, label)
    if kind not in ("Deployment", "ReplicaSet", "StatefulSet"):
        return []
    found = _listed(lab, "replicasets" if kind == "Deployment" else "pods", metadata)
    return [one for one in found if _owned(one, item)]


def _listed(lab: Client, kind: str, metadata: Json, selector: str = "") -> list[Json]:
    query = {"kinds": [kind], "namespace": metadata["namespace"], "selector": selector}
    found: list[Json] = lab.call("objects", **query)["items"]
    return found


def _owned(item: Json, owner: Json) -> bool:
    owners = item["metadata"].get("ownerReferences", ())
    return (owner["kind"], owner["metadata"]["name"]) in {(o["kind"], o["name"]) for o in owners}


def _events(events: list[Json]) -> str:
    rows = ["  Type\tReason\tAge\tFrom\tMessage", "  ----\t------\t----\t----\t-------"]
    for one in events:
        cells = [one["type"], one["reason"], last_seen(one), one["source"]["component"]]
        rows.append("\t".join([f"  {cells[0]}", *cells[1:], one["message"].strip()]))
    return aligned(["Events:", *rows])
