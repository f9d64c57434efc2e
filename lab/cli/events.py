"""events: of a namespace or of one object, the newest last."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from lab.cli.client import Client, FailureError
from lab.cli.context import AllNamespaces, Namespace, client, namespace
from lab.cli.output import Json, age, columns, write, write_now


def events_(
    context: typer.Context,
    about: Annotated[
        str, typer.Option("--for", metavar="KIND/NAME", help="Only those about this object.")
    ] = "",
    types: Annotated[str, typer.Option(help="Only these types: Normal, Warning or both.")] = "",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Keep printing new ones.")] = False,
    no_headers: Annotated[bool, typer.Option("--no-headers", help="No column titles.")] = False,
    output: Annotated[
        str, typer.Option("--output", "-o", help="json, yaml, name or jsonpath=TEMPLATE.")
    ] = "",
    namespace_: Namespace = None,
    all_namespaces: AllNamespaces = False,
) -> None:
    """Print events, the newest last.

    Examples:
      guestbook events --types=Warning
      guestbook events --for pod/ui-7d5c9b7f4-x2x8k --watch
    """
    from lab.cli.get import formatted

    kinds = [kind.capitalize() for kind in types.split(",") if kind]
    if not {*kinds} <= {"Normal", "Warning"}:
        raise FailureError("valid --types are Normal or Warning")
    kind, slash, name = about.partition("/")
    if about and not (kind and slash and name):
        raise FailureError("--for must be in resource/name form")
    lab = client(context)
    where = None if all_namespaces else namespace(context, namespace_)
    of = _kind(kind)
    shown: set[tuple[str, int]] = set()
    headers = not no_headers
    revision = None
    while True:
        told, revision = _newer(lab, revision, where, of, name)
        found = [
            event
            for event in told
            if (not kinds or event["type"] in kinds)
            and (event["metadata"]["name"], event["count"]) not in shown
        ]
        shown |= {(event["metadata"]["name"], event["count"]) for event in found}
        if found and output:
            write(formatted(found, output, single=False, headers=True))
        elif found:
            lines = _table(found, namespaces=all_namespaces)
            write_now("\n".join(lines if headers else lines[1:]))
            headers = False
        elif not watch:
            place = "" if all_namespaces else f" in {where} namespace"
            sys.stderr.write(f"No events found{place}.\n")
        if not watch:
            return


def _kind(word: str) -> str:
    """Returns the kind that a word (`deploy`) names. Raises FailureError."""
    from lab.cluster import derived
    from lab.manifests import registry

    found = (registry.find(word) or derived.find(word)) if word else None
    if word and found is None:
        raise FailureError(registry.unknown(word, derived.KINDS))
    return found.kind if found is not None else ""


def _table(found: list[Json], *, namespaces: bool) -> list[str]:
    rows = [
        [
            *([event["metadata"]["namespace"]] if namespaces else []),
            last_seen(event),
            event["type"],
            event["reason"],
            f"{event['involvedObject']['kind']}/{event['involvedObject']['name']}",
            event["message"].strip(),
        ]
        for event in found
    ]
    head = ["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]
    return columns([*(["NAMESPACE"] if namespaces else []), *head], rows)


def events(lab: Client, where: str | None, kind: str = "", name: str = "") -> list[Json]:
    """Returns the events of a namespace, those about one object or all, the newest last."""
    return _newer(lab, None, where, kind, name)[0]


def _newer(
    lab: Client, after: int | None, where: str | None, kind: str, name: str
) -> tuple[list[Json], int]:
    """Returns the events and their revision, when it is newer than `after` or half a minute on."""
    fields = {"involvedObject.kind": kind, "involvedObject.name": name}
    selector = ",".join(f"{field}={value}" for field, value in fields.items() if value)
    query = {"kinds": ["events"], "namespace": where, "field_selector": selector}
    answer = lab.call("objects", after=after, timeout=30, **query)
    found = sorted(answer["items"], key=lambda event: str(event["lastTimestamp"]))
    return found, answer["revision"]


def last_seen(event: Json) -> str:
    """Returns the age of an event, and how often it came in which time."""
    if event["count"] == 1:
        return age(event["lastTimestamp"])
    return f"{age(event['lastTimestamp'])} (x{event['count']} over {age(event['firstTimestamp'])})"
