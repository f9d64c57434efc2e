"""set image and set env."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Any

import typer

from lab.cli import complete, references
from lab.cli.client import Client, FailureError
from lab.cli.context import AllOfKind, DryRun, Namespace, Selector, client, dry, namespace
from lab.cli.made import Output, require_variable, tell
from lab.cli.output import Json, reference, warn, write

set_ = typer.Typer(help="Set images and variables of containers.", no_args_is_help=True)


def _words(metavar: str) -> Any:
    metavar = f"KIND NAME | KIND/NAME {metavar}"
    return typer.Argument(metavar=metavar, show_default=False, autocompletion=complete.objects)


@set_.command()
def image(
    context: typer.Context,
    names: Annotated[list[str], _words("CONTAINER=IMAGE...")],
    namespace_: Namespace = None,
    selector: Selector = "",
    all_: AllOfKind = False,
    dry_run: DryRun = "none",
    output: Output = None,
) -> None:
    """Set the images of containers, which rolls a workload; * means each container.

    Examples:
      guestbook set image deploy/message-service message-service=guestbook/message:v2
      guestbook set image deployments --all '*=redis:8'
    """
    objects, images = references.assignments(names, "image")
    if not images:
        raise FailureError("at least one image update is required")
    if "*" in images and len(images) > 1:
        raise FailureError(
            "all containers are already specified by *, but saw more than one "
            "container_name=container_image pairs"
        )
    lab, where = client(context), namespace(context, namespace_)
    missing: set[str] = set()
    for item in list(_chosen(lab, where, objects, selector, all_)):
        found = [(part, one["name"]) for part, one in _containers(item)]
        missing |= images.keys() - {name for _, name in found} - {"*"}
        changes = [
            (part, {"name": name, "image": images.get(name, images.get("*"))})
            for part, name in found
            if {name, "*"} & images.keys()
        ]
        _change(lab, where, item, changes, "image updated", dry_run, output)
    if missing:
        raise FailureError(*(f'unable to find container named "{one}"' for one in sorted(missing)))


@set_.command()
def env(
    context: typer.Context,
    names: Annotated[list[str], _words("NAME=VALUE... NAME-...")],
    containers: Annotated[
        str, typer.Option("--containers", "-c", help="The containers, such as web*.")
    ] = "*",
    list_: Annotated[bool, typer.Option("--list", help="Print the variables.")] = False,
    namespace_: Namespace = None,
    selector: Selector = "",
    all_: AllOfKind = False,
    dry_run: DryRun = "none",
    output: Output = None,
) -> None:
    """Set variables of containers, or remove them with `NAME-`, which rolls a workload.

    Examples:
      guestbook set env deploy/message-service GREETING=Hi
      guestbook set env deploy/message-service -c message-service GREETING-
      guestbook set env deploy/ui --list
    """
    objects, values = references.assignments(names, "environment variable")
    for name, value in values.items():
        if value is not None:
            require_variable(name)
    if objects and not values and not list_:
        raise FailureError("at least one environment variable must be provided")
    lab, where = client(context), namespace(context, namespace_)
    for item in list(_chosen(lab, where, objects, selector, all_)):
        kind, of = item["kind"], item["metadata"]["name"]
        found = [pair for pair in _containers(item) if fnmatchcase(pair[1]["name"], containers)]
        if not found:
            warn(f'{kind}/{of} does not have any containers matching "{containers}"')
        changes = []
        for part, one in found:
            old = one.get("env") or []
            variables = [*_updated(old, values)]
            if list_:
                lines = [f"# {kind} {of}, container {one['name']}", *map(_shown, variables)]
                write("\n".join(lines))
            elif variables != old:
                whole = [{"$patch": "replace"}, *variables] if variables else None
                changes.append((part, {"name": one["name"], "env": whole}))
        _change(lab, where, item, changes, "env updated", dry_run, output)


def _updated(variables: list[Json], values: Mapping[str, str | None]) -> Iterator[Json]:
    """Yields variables with new values, without those that are None, and then the added ones."""
    for one in variables:
        name = one["name"]
        if (value := values.get(name, "")) is not None:
            yield {"name": name, "value": value} if name in values else one
    known = {one["name"] for one in variables}
    for name, value in values.items():
        if value is not None and name not in known:
            yield {"name": name, "value": value}


def _shown(variable: Json) -> str:
    """Returns a variable as kubectl lists it: its value, or where that is from."""
    source = variable.get("valueFrom")
    if source is None:
        return f"{variable['name']}={variable.get('value', '')}"
    for field, kind in (("configMapKeyRef", "configmap"), ("secretKeyRef", "secret")):
        if field in source:
            of = source[field]
            return f"# {variable['name']} from {kind} {of['name']}, key {of['key']}"
    path = source.get("fieldRef", {}).get("fieldPath")
    told = f"field path {path}" if path else f"resource field {json.dumps(source)}"
    return f"# {variable['name']} from {told}"


def _chosen(
    lab: Client, where: str, objects: list[str], selector: str, every: bool
) -> Iterator[Json]:
    if not objects:
        raise FailureError(
            "one or more resources must be specified as <resource> <name> or <resource>/<name>"
        )
    for kinds, names in references.split(objects):
        references.require_names(names, selector, every)
        query = {"namespace": where, "names": names, "selector": selector}
        yield from lab.call("objects", kinds=kinds.split(","), **query)["items"]


def _containers(item: Json) -> list[tuple[str, Json]]:
    """Returns each container with the list it is in. Raises FailureError where there is none."""
    spec: Json = item.get("spec") or {}
    spec = spec if item["kind"] == "Pod" else spec.get("template", {}).get("spec", {})
    if "containers" not in spec:
        raise FailureError(
            f"{reference(item)} the object is not a pod or does not have a pod template"
        )
    # A pod is shown with its sidecar among the init containers, which nobody wrote there.
    parts = ("containers",) if item["kind"] == "Pod" else ("containers", "initContainers")
    return [(part, one) for part in parts for one in spec.get(part, ())]


def _change(
    lab: Client,
    where: str,
    item: Json,
    changes: Sequence[tuple[str, Json]],
    word: str,
    dry_run: str,
    output: str | None,
) -> None:
    """Patches containers of an object; prints nothing about one that stays as it is."""
    dry(dry_run)
    given: Json = {}
    for part, change in changes:
        given.setdefault(part, []).append(change)
    patch = {"spec": given if item["kind"] == "Pod" else {"template": {"spec": given}}}
    kind, name = reference(item).split("/")
    query = {"kind": kind, "namespace": where, "name": name, "patch": patch}
    if given:
        answer = lab.call("patch", dry_run=dry(dry_run), **query)
        if answer["results"] != [[reference(item), "unchanged"]]:
            tell(answer, (word, word), dry_run, output)
