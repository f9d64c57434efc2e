"""create: objects from files, and some kinds of objects from words."""

from __future__ import annotations

import base64
import dataclasses
from typing import Annotated, Any

import typer

from lab.cli.apply import put
from lab.cli.client import FailureError
from lab.cli.context import (
    DryRun,
    Files,
    Kustomize,
    Namespace,
    Recursive,
    asked_namespace,
    settings,
)
from lab.cli.create_secret import secret
from lab.cli.made import EnvFiles, Literals, Output, Sources, data, make
from lab.cli.manifests import texts

create = typer.Typer(no_args_is_help=True)
create.add_typer(secret, name="secret")


@create.callback(invoke_without_command=True)
def files(
    context: typer.Context,
    filename: Files = None,
    kustomize: Kustomize = None,
    recursive: Recursive = False,
    namespace_: Namespace = None,
    dry_run: DryRun = "none",
) -> None:
    """Create an object from words, or objects from files.

    With -f, those that are there already are an error, and the others are
    created; `apply -f` changes them.

    Examples:
      guestbook create -f istio/05-retries/virtual-service.yaml
      guestbook create -n istio-system secret tls shop --cert=shop.crt --key=shop.key
    """
    where = asked_namespace(context, namespace_)
    if context.invoked_subcommand is None:
        put(context, texts(filename, kustomize, recursive=recursive), where, dry_run, "create")
    elif filename or kustomize:
        raise FailureError(f"-f creates what a file says: without {context.invoked_subcommand}")
    context.obj = dataclasses.replace(settings(context), namespace=where)


@create.command("ns", hidden=True)
@create.command("namespace")
def namespace(
    context: typer.Context, name: str, dry_run: DryRun = "none", output: Output = None
) -> None:
    """Create a namespace.

    Example:
      guestbook create namespace playground
    """
    item = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    context.obj = dataclasses.replace(settings(context), namespace=None)
    make(context, item, dry_run, output)


@create.command("sa", hidden=True)
@create.command("serviceaccount")
def service_account(
    context: typer.Context,
    name: str,
    dry_run: DryRun = "none",
    output: Output = None,
    namespace_: Namespace = None,
) -> None:
    """Create a service account.

    Example:
      guestbook create serviceaccount sleep
    """
    item = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}
    failed = "failed to create serviceaccount: "
    make(context, item, dry_run, output, namespace=namespace_, failed=failed)


@create.command("cm", hidden=True)
@create.command("configmap")
def config_map(
    context: typer.Context,
    name: str,
    from_literal: Literals = None,
    from_file: Sources = None,
    from_env_file: EnvFiles = None,
    dry_run: DryRun = "none",
    output: Output = None,
    namespace_: Namespace = None,
) -> None:
    """Create a ConfigMap from literals and files.

    Examples:
      guestbook create configmap shop --from-literal=colour=blue
      guestbook create configmap pages --from-file=index.html --from-file=css=style.css
    """
    item: dict[str, Any] = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
    for key, value in data("ConfigMap", from_literal, from_file, from_env_file).items():
        try:
            item.setdefault("data", {})[key] = value.decode()
        except UnicodeDecodeError:
            item.setdefault("binaryData", {})[key] = base64.b64encode(value).decode()
    failed = "failed to create configmap: "
    make(context, item, dry_run, output, namespace=namespace_, failed=failed)


@create.command("deploy", hidden=True)
@create.command("deployment")
def deployment(
    context: typer.Context,
    name: str,
    image: Annotated[list[str], typer.Option(help="The image of a container.")],
    words: Annotated[list[str] | None, typer.Argument(metavar="[-- COMMAND...]")] = None,
    replicas: Annotated[int, typer.Option("--replicas", "-r", help="The number of pods.")] = 1,
    port: Annotated[int | None, typer.Option(help="The port of the first container.")] = None,
    dry_run: DryRun = "none",
    output: Output = None,
    namespace_: Namespace = None,
) -> None:
    """Create a Deployment, with the label app=NAME.

    Examples:
      guestbook create deployment cache --image=redis:8 --port=6379
      guestbook create deployment sleep --image=curlimages/curl -- sleep infinity
    """
    images = [one for given in image for one in given.split(",")]
    if words and len(images) > 1:
        raise FailureError("cannot specify multiple --image options and command")
    containers = [_container(one, words) for one in images]
    if port is not None:
        containers[0]["ports"] = [{"containerPort": port}]
    labels = {"app": name}
    item = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": dict(labels)},
            "template": {"metadata": {"labels": dict(labels)}, "spec": {"containers": containers}},
        },
    }
    failed = "failed to create deployment: "
    make(context, item, dry_run, output, namespace=namespace_, failed=failed)


def _container(image: str, words: list[str] | None) -> dict[str, Any]:
    """Returns a container that is called as its image."""
    name = image.rpartition("/")[2].partition(":")[0].partition("@")[0]
    made: dict[str, Any] = {"name": name.replace("_", "-").replace(".", "-"), "image": image}
    return made | ({"command": words} if words else {})
