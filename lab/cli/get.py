"""get: objects in every form, and watches."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from lab.cli import get_tables, references
from lab.cli.client import Client, FailureError
from lab.cli.context import (
    AllNamespaces,
    IgnoreNotFound,
    Names,
    Namespace,
    Selector,
    client,
    namespace,
)
from lab.cli.output import Json, columns, reference, write, write_now, yaml_text


def get(
    context: typer.Context,
    names: Names = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="json, yaml, wide, name, jsonpath=TEMPLATE or custom-columns=TITLE:PATH,...",
        ),
    ] = None,
    namespace_: Namespace = None,
    all_namespaces: AllNamespaces = False,
    selector: Selector = "",
    field_selector: Annotated[
        str,
        typer.Option(
            help="Fields to select by, such as status.phase!=Running,metadata.name=ui; of Pods "
            "metadata.name, metadata.namespace, spec.nodeName and status.phase, of Events "
            "involvedObject.name, type, reason, …"
        ),
    ] = "",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Keep printing changes.")] = False,
    ignore_not_found: IgnoreNotFound = False,
    no_headers: Annotated[bool, typer.Option("--no-headers", help="No column titles.")] = False,
    show_labels: Annotated[bool, typer.Option("--show-labels", help="Print the labels.")] = False,
    label_columns: Annotated[
        list[str] | None,
        typer.Option("--label-columns", "-L", help="A column for a label."),
    ] = None,
    sort_by: Annotated[
        str, typer.Option(metavar="PATH", help="The field to sort by, such as .metadata.name.")
    ] = "",
) -> None:
    """Print objects.

    Examples:
      guestbook get pods
      guestbook get deploy,svc -o wide
      guestbook get pod -l app=ui -o jsonpath='{.items[0].metadata.name}'
      guestbook get virtualservices -A
      guestbook get events --field-selector type=Warning --sort-by=.lastTimestamp
    """
    if not names:
        raise FailureError("say what to get: a kind, such as pods, services or virtualservices")
    lab = client(context)
    where = None if all_namespaces else namespace(context, namespace_)
    if (selector or field_selector) and any(some for _, some in references.split(names)):
        raise FailureError("name cannot be provided when a selector is specified")
    if all_namespaces and any(some for _, some in references.split(names)):
        raise FailureError("a resource cannot be retrieved by name across all namespaces")
    query = {"namespace": where, "selector": selector, "field_selector": field_selector}
    asked = [
        ({"kinds": kinds.split(","), **query}, some) for kinds, some in references.split(names)
    ]
    items: list[Json] = []
    revision = 0
    missing: list[str] = []
    for request, some in asked:
        for name in some or [""]:
            named = {**request, "names": [name] if name else []}
            if (answer := lab.call_or_note(missing, "objects", **named)) is not None:
                items += answer["items"]
                revision = revision or answer["revision"]
    if ignore_not_found:
        missing = []
    if sort_by:
        items.sort(key=lambda item: _sorting(item, sort_by))
    single = sum(len(some) for _, some in asked) == 1
    if items or (output and output != "name" and not (single or missing)):
        if output in (None, "", "wide"):
            text = get_tables.table(
                items,
                wide=output == "wide",
                namespaces=all_namespaces,
                headers=not no_headers,
                labels=show_labels,
                label_columns=[name for names in label_columns or () for name in names.split(",")],
            )
        else:
            text = formatted(items, str(output), single=single, headers=not no_headers)
        write(text, end="" if (output or "").startswith("jsonpath") else "\n")
    elif not output and not missing and not single:
        place = "" if all_namespaces else f" in {where} namespace."
        sys.stderr.write(f"No resources found{place}\n")
    if missing:
        raise FailureError(*missing, missing=True)
    if watch:
        request, some = asked[0]
        _watch(lab, revision, {**request, "names": some}, items, all_namespaces)


def _sorting(item: Json, path: str) -> tuple[bool, float, str]:
    """Returns the place of an object by one of its fields: numbers by size, before texts."""
    from lab.cli.jsonpath import evaluate

    text = evaluate(path, item)
    number = text.removeprefix("-").replace(".", "", 1).isdigit()
    return not number, float(text) if number else 0, text


def _custom_columns(items: Sequence[Json], columns_: str, *, headers: bool) -> str:
    from lab.cli.jsonpath import evaluate

    pairs = [column.partition(":") for column in columns_.split(",")]
    if not all(path for _, _, path in pairs):
        raise FailureError("custom-columns format must be TITLE:PATH,TITLE:PATH, ...")
    rows = [[evaluate(path, item) or "<none>" for _, _, path in pairs] for item in items]
    lines = columns([title for title, _, _ in pairs], rows)
    return "\n".join(lines if headers else lines[1:])


def formatted(items: Sequence[Json], form: str, *, single: bool, headers: bool) -> str:
    """Returns objects in the form of `-o`. Raises FailureError for an unknown one."""
    listed = {"apiVersion": "v1", "kind": "List", "items": list(items)}
    value = items[0] if single and items else listed
    if form == "json":
        return json.dumps(value, indent=4, ensure_ascii=False)
    if form == "yaml":
        return yaml_text(value)
    if form == "name":
        return "\n".join(reference(item) for item in items)
    kind, _, template = form.partition("=")
    if kind == "jsonpath":
        from lab.cli.jsonpath import evaluate

        return evaluate(template, value)
    if kind == "custom-columns":
        return _custom_columns(items, template, headers=headers)
    raise FailureError(
        f"unable to match a printer suitable for the output format {form!r}; "
        "allowed: json, yaml, name, wide, jsonpath=TEMPLATE, custom-columns=TITLE:PATH"
    )


def _watch(
    lab: Client, revision: int, request: Json, items: Sequence[Json], namespaces: bool
) -> None:
    """Prints a line for each object whose cells change (its age is none), until interrupted."""
    seen = {_key(item): get_tables.cells(item) for item in items}
    sys.stdout.flush()  # The list: a reader of a pipe would wait for it.
    while True:
        answer = lab.call("objects", after=revision, timeout=30, **request)
        revision = answer["revision"]
        for item in answer["items"]:
            cells = get_tables.cells(item)
            if seen.get(_key(item)) != cells:
                seen[_key(item)] = cells
                write_now(
                    get_tables.table([item], wide=False, namespaces=namespaces, headers=False)
                )


def _key(item: Json) -> tuple[str, str, str]:
    metadata = item["metadata"]
    return item["kind"], metadata.get("namespace", ""), metadata["name"]
