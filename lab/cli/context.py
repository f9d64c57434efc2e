"""The options every command has, and what they lead to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from lab.cli import complete
from lab.cli.client import Client, Settings

Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace",
        "-n",
        help="The namespace.",
        show_default="default",
        autocompletion=complete.namespaces,
    ),
]
Selector = Annotated[
    str, typer.Option("--selector", "-l", help="Labels to select by, such as app=ui,version!=1.0.")
]
PodTarget = Annotated[str, typer.Argument(metavar="POD | KIND/NAME", autocompletion=complete.pods)]
AllNamespaces = Annotated[
    bool, typer.Option("--all-namespaces", "-A", help="All namespaces instead of one.")
]
Files = Annotated[
    list[str] | None,
    typer.Option("--filename", "-f", help="A file, a folder, or - for standard input."),
]
Kustomize = Annotated[
    str | None, typer.Option("--kustomize", "-k", help="A folder with a kustomization.yaml.")
]


def settings(context: typer.Context) -> Settings:
    found = context.find_object(Settings)
    assert found is not None  # noqa: S101 - the top command made it
    return found


def client(context: typer.Context) -> Client:
    return settings(context).client()


def asked_namespace(context: typer.Context, own: str | None) -> str | None:
    """The namespace given with `-n`, before or after the verb, if any."""
    return own or settings(context).namespace


def namespace(context: typer.Context, own: str | None) -> str:
    return asked_namespace(context, own) or "default"


def split_references(words: Sequence[str]) -> list[tuple[str, list[str]]]:
    """`pods a b`, `pod/a deploy/b` or `pods,svc` as kinds with their names."""
    if words and all("/" in word for word in words):
        grouped: dict[str, list[str]] = {}
        for word in words:
            kind, _, name = word.partition("/")
            grouped.setdefault(kind, []).append(name)
        return list(grouped.items())
    if not words:
        return []
    return [(words[0], list(words[1:]))]


def chosen_pods(
    client_: Client, namespace_: str, target: str, labels: str = ""
) -> list[dict[str, Any]]:
    """The pods behind `NAME`, `pod/NAME`, `deploy/NAME`, `svc/NAME` or a selector, ready first."""
    kind, _, name = target.rpartition("/")
    if kind and kind not in ("pod", "pods", "po"):
        owner = client_.call("objects", kinds=[kind], namespace=namespace_, names=[name])
        spec = owner["items"][0]["spec"]
        selector = spec["selector"].get("matchLabels", spec["selector"])
        labels = ",".join(f"{key}={value}" for key, value in selector.items())
        name = ""
    found: list[dict[str, Any]] = client_.call(
        "objects",
        kinds=["pods"],
        namespace=namespace_,
        names=[name] if name else [],
        selector=labels,
    )["items"]
    return sorted(found, key=lambda pod: (not _serves(pod), pod["metadata"]["name"]))


def _serves(pod: dict[str, Any]) -> bool:
    ready = [c for c in pod["status"]["conditions"] if c["type"] == "Ready"]
    return ready[0]["status"] == "True" and "deletionTimestamp" not in pod["metadata"]
