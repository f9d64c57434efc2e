"""apply, delete, create, get, describe, label, annotate: the verbs about objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from lab.cli import complete
from lab.cli.client import Client, FailureError
from lab.cli.context import (
    AllNamespaces,
    Files,
    Kustomize,
    Namespace,
    Selector,
    asked_namespace,
    client,
    namespace,
    split_references,
)
from lab.cli.output import render, row, warn, write

Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="KIND [NAME]... | KIND/NAME...", autocompletion=complete.objects),
]
Output = Annotated[
    str | None,
    typer.Option("--output", "-o", help="json, yaml, wide, name or jsonpath=TEMPLATE."),
]


def register(app: typer.Typer) -> None:
    app.command()(apply)
    app.command()(delete)
    app.command()(get)
    app.command()(describe)
    app.command()(label)
    app.command()(annotate)
    app.command()(install)
    app.command(name="api-resources")(api_resources)
    create = typer.Typer(help="Create an object.", no_args_is_help=True)
    create.command(name="namespace")(create_namespace)
    create.command(name="ns", hidden=True)(create_namespace)
    app.add_typer(create, name="create")


def _texts(files: list[str] | None, kustomize: str | None) -> list[tuple[str, str]]:
    from lab.manifests.kustomize import kustomization
    from lab.manifests.load import ManifestError, read

    if bool(files) == bool(kustomize):
        raise FailureError("must specify one of -f and -k")
    try:
        if kustomize:
            return kustomization(kustomize)
        return [text for name in files or () for text in read(name)]
    except ManifestError as error:
        raise FailureError(*error.lines) from None


def apply(
    context: typer.Context,
    filename: Files = None,
    kustomize: Kustomize = None,
    namespace_: Namespace = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the manifests and change nothing.")
    ] = False,
) -> None:
    """Create or change objects from manifests.

    All manifests are checked first: when one has a problem, nothing is changed.

    Examples:
      guestbook apply -f istio/05-retries/virtual-service.yaml
      guestbook apply -k k8s/base
      cat pod.yaml | guestbook apply -f -
    """
    _apply(context, _texts(filename, kustomize), asked_namespace(context, namespace_), dry_run)


def _apply(
    context: typer.Context,
    files: list[tuple[str, str]],
    namespace_: str | None,
    dry_run: bool = False,
) -> None:
    answer = client(context).call("apply", files=files, namespace=namespace_, dry_run=dry_run)
    if not answer["results"]:
        raise FailureError("no objects passed to apply")
    for line in answer["warnings"]:
        warn(line)
    for reference, verb in answer["results"]:
        write(f"{reference} {verb}")
    if rejected := answer.get("rejected"):
        raise FailureError(*rejected)


def install(
    context: typer.Context,
    filename: Files = None,
) -> None:
    """Set the mesh's configuration, as `istioctl install -f` does with an IstioOperator.

    Example:
      guestbook install -f istio/install/istio.yaml
    """
    _apply(context, _texts(filename, None), None)


def create_namespace(context: typer.Context, name: str) -> None:
    """Create a namespace.

    Example:
      guestbook create namespace playground
    """
    text = f"apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name!r}\n"
    client(context).call("apply", files=[("-", text)], create=True)
    write(f"namespace/{name} created")


def delete(
    context: typer.Context,
    names: Names = None,
    filename: Files = None,
    kustomize: Kustomize = None,
    namespace_: Namespace = None,
    selector: Selector = "",
    all_: Annotated[bool, typer.Option("--all", help="All objects of the kind.")] = False,
    ignore_not_found: Annotated[
        bool, typer.Option("--ignore-not-found", help="An object that isn't there is no error.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is gone.")] = True,
    force: Annotated[bool, typer.Option("--force", help="Accepted, as by kubectl.")] = False,
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
    lab = client(context)
    if filename or kustomize:
        targets = _in_files(filename, kustomize, asked_namespace(context, namespace_))
    else:
        if not names:
            raise FailureError("say what to delete: a kind and names, or -f FILE")
        where = namespace(context, namespace_)
        targets = [
            (kind.strip(), where, some)
            for kinds, some in split_references(names)
            for kind in kinds.split(",")
        ]
        if not all_ and not selector and not all(some for _, _, some in targets):
            raise FailureError("resource(s) were provided, but no name: use -l or --all")
    grace = 0 if force and grace_period is None else grace_period
    missing: list[str] = []
    for kind, where, some in targets:
        for name in some or [""]:
            try:
                deleted = lab.call(
                    "delete",
                    kind=kind,
                    namespace=where,
                    names=[name] if name else [],
                    selector=selector,
                    wait=wait,
                    grace=None if grace is None or grace < 0 else grace,
                )
            except FailureError as error:
                if not error.missing:
                    raise
                if not ignore_not_found:
                    missing.extend(error.lines)
                continue
            for line in deleted:
                write(f"{line} deleted")
            if not deleted and not name:
                write("No resources found")
    if missing:
        raise FailureError(*missing, missing=True)


def _in_files(
    filename: list[str] | None, kustomize: str | None, where: str | None
) -> list[tuple[str, str, list[str]]]:
    from lab.manifests.load import ManifestError, parse

    try:
        resources = parse(_texts(filename, kustomize), where).resources
    except ManifestError as error:
        raise FailureError(*error.lines) from None
    return [(resource.kind, resource.namespace, [resource.name]) for resource in resources]


def get(
    context: typer.Context,
    names: Names = None,
    output: Output = None,
    namespace_: Namespace = None,
    all_namespaces: AllNamespaces = False,
    selector: Selector = "",
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Then keep printing what changes.")
    ] = False,
    ignore_not_found: Annotated[
        bool, typer.Option("--ignore-not-found", help="An object that isn't there is no error.")
    ] = False,
    no_headers: Annotated[bool, typer.Option("--no-headers", help="No column titles.")] = False,
    show_labels: Annotated[bool, typer.Option("--show-labels", help="Print the labels.")] = False,
) -> None:
    """Print objects.

    Examples:
      guestbook get pods
      guestbook get deploy,svc -o wide
      guestbook get pod -l app=ui -o jsonpath='{.items[0].metadata.name}'
      guestbook get virtualservices -A
    """
    if not names:
        raise FailureError("say what to get: a kind, such as pods, services or virtualservices")
    lab = client(context)
    where = None if all_namespaces else namespace(context, namespace_)
    if names[0] in ("events", "event", "ev"):
        _events(lab, where)
        return
    requests = [
        (kinds.split(","), some, {"namespace": where, "selector": selector})
        for kinds, some in split_references(names)
    ]
    items: list[dict[str, Any]] = []
    revision = 0
    missing: list[str] = []
    for kinds, some, options in requests:
        for name in some or [""]:
            try:
                answer = lab.call("objects", kinds=kinds, names=[name] if name else [], **options)
            except FailureError as error:
                if not error.missing:
                    raise
                if not ignore_not_found:
                    missing.extend(error.lines)
                continue
            items += answer["items"]
            revision = answer["revision"]
    single = sum(len(some) for _, some, _ in requests) == 1
    if items or (output and output != "name" and not (single or missing)):
        text = render(
            items,
            output,
            single=single,
            namespaces=all_namespaces,
            headers=not no_headers,
            labels=show_labels,
        )
        write(text, end="" if (output or "").startswith("jsonpath") else "\n")
    elif not output and not missing and not single:
        place = "" if all_namespaces else f" in {where} namespace"
        warn_empty = f"No resources found{place}."
        import sys

        sys.stderr.write(warn_empty + "\n")
    if missing:
        raise FailureError(*missing, missing=True)
    if watch:
        kinds, some, options = requests[0]
        _watch(lab, revision, {"kinds": kinds, "names": some, **options}, items, all_namespaces)


def _watch(
    lab: Client,
    revision: int,
    request: dict[str, Any],
    items: list[dict[str, Any]],
    namespaces: bool,
) -> None:
    """A line for each object that looks different, until interrupted."""
    import sys

    def cells(item: dict[str, Any]) -> tuple[str, ...]:
        # The age changes all the time and is no news.
        return tuple(row(item, wide=False)[:-1])

    seen = {_key(item): cells(item) for item in items}
    sys.stdout.flush()  # Of what was listed first; a reader of a pipe would wait for it.
    while True:
        answer = lab.call("objects", after=revision, timeout=30, **request)
        revision = answer["revision"]
        for item in answer["items"]:
            if seen.get(_key(item)) != cells(item):
                seen[_key(item)] = cells(item)
                write(render([item], None, single=True, namespaces=namespaces, headers=False))
                sys.stdout.flush()


def _key(item: dict[str, Any]) -> tuple[str, str, str]:
    metadata = item["metadata"]
    return item["kind"], metadata.get("namespace", ""), metadata["name"]


def _events(lab: Client, where: str | None) -> None:
    from lab.cli.output import age, columns

    found = lab.call("events", namespace=where)
    rows = [
        [
            age(event["last"]),
            event["type"],
            event["reason"],
            f"{event['kind'].lower()}/{event['name']}",
            event["message"],
        ]
        for event in found
    ]
    write("\n".join(columns(["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"], rows)))


def describe(
    context: typer.Context,
    names: Names = None,
    namespace_: Namespace = None,
    selector: Selector = "",
) -> None:
    """Print an object in full, and what happened to it.

    Example:
      guestbook describe pod ui-7d5c9b7f4-x2x8k
    """
    from lab.cli.describe import description

    if not names:
        raise FailureError("say what to describe: a kind and a name")
    lab = client(context)
    where = namespace(context, namespace_)
    texts = []
    for kinds, some in split_references(names):
        answer = lab.call(
            "objects", kinds=kinds.split(","), names=some, namespace=where, selector=selector
        )
        for item in answer["items"]:
            metadata = item["metadata"]
            events = lab.call(
                "events",
                kind=item["kind"],
                name=metadata["name"],
                namespace=metadata.get("namespace", ""),
            )
            texts.append(description(item, events))
    write("\n\n\n".join(texts) if texts else "No resources found")


def _set(field: str, verb: str) -> Callable[..., None]:
    def command(
        context: typer.Context,
        names: Annotated[
            list[str],
            typer.Argument(
                metavar="KIND NAME KEY=VALUE... KEY-...",
                show_default=False,
                autocompletion=complete.objects,
            ),
        ],
        namespace_: Namespace = None,
        selector: Selector = "",
        overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a value.")] = False,
        all_: Annotated[bool, typer.Option("--all", help="All objects of the kind.")] = False,
    ) -> None:
        values: dict[str, str | None] = {}
        references: list[str] = []
        for word in names:
            key, equals, value = word.partition("=")
            if equals:
                values[key] = value
            elif word.endswith("-") and references:
                values[word[:-1]] = None
            else:
                references.append(word)
        if not values:
            raise FailureError(f"at least one {verb} update is required, such as key=value or key-")
        for kind, some in split_references(references):
            if not some and not selector and not all_:
                raise FailureError("one or more resources must be named, or use -l or --all")
            done = client(context).call(
                "change",
                field=field,
                kind=kind,
                namespace=namespace(context, namespace_),
                names=some,
                values=values,
                selector=selector,
                overwrite=overwrite,
            )
            for name in done:
                write(f"{name} {'un' if None in values.values() else ''}{verb}ed")

    return command


label = _set("labels", "label")
label.__name__ = "label"
label.__doc__ = """Set labels, or remove them with `key-`.

    Example:
      guestbook label namespace default istio-injection=enabled
    """
annotate = _set("annotations", "annotat")
annotate.__name__ = "annotate"
annotate.__doc__ = """Set annotations, or remove them with `key-`.

    Example:
      guestbook annotate service ui team=frontend
    """


def api_resources() -> None:
    """List the kinds the lab supports, with their short names and versions.

    Example:
      guestbook api-resources
    """
    from lab.cli.output import columns
    from lab.manifests.registry import KINDS

    rows = [
        [
            kind.plural,
            ",".join(kind.short_names),
            ",".join(f"{kind.group}/{v}".lstrip("/") for v in kind.versions),
            str(kind.namespaced).lower(),
            kind.kind,
        ]
        for kind in KINDS
    ]
    write("\n".join(columns(["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"], rows)))
