"""Completion in the shell: kinds, and the names of the running lab's objects."""

from __future__ import annotations

from collections.abc import Iterable

import typer

from lab.cli.client import Client, FailureError, lab_client

WORKLOADS = ("deployment", "statefulset", "service")


def _lab(context: typer.Context) -> tuple[Client, str]:
    """Returns the lab and the namespace of the words before the cursor."""
    given = context.find_root().params
    where = context.params.get("namespace_") or given.get("namespace") or "default"
    return lab_client(given.get("state")), str(where)


def _names(context: typer.Context, kind: str) -> list[str]:
    """Returns the names of a kind; none when no lab runs."""
    client, where = _lab(context)
    try:
        items = client.call("objects", kinds=[kind], namespace=where)["items"]
    except (FailureError, OSError):
        return []
    return [str(item["metadata"]["name"]) for item in items]


def _starting(words: Iterable[str], incomplete: str) -> list[str]:
    return [word for word in words if word.startswith(incomplete)]


def namespaces(context: typer.Context, incomplete: str) -> list[str]:
    """Completes `-n`."""
    return _starting(_names(context, "namespaces"), incomplete)


def objects(context: typer.Context, incomplete: str) -> list[str]:
    """Completes a kind, and after it the names of that kind; or KIND/NAME."""
    from lab.manifests.registry import KINDS

    given = context.params.get("names") or context.params.get("target") or []
    kind, slash, _ = incomplete.rpartition("/")
    if slash:
        return _starting((f"{kind}/{name}" for name in _names(context, kind)), incomplete)
    if not given:
        return _starting((known.plural for known in KINDS), incomplete)
    return [name for name in _starting(_names(context, given[0]), incomplete) if name not in given]


def pods(context: typer.Context, incomplete: str) -> list[str]:
    """Completes the name of a pod, or KIND/NAME of a workload or Service."""
    kind, slash, _ = incomplete.rpartition("/")
    if slash:
        return _starting((f"{kind}/{name}" for name in _names(context, kind)), incomplete)
    words = [*_names(context, "pods"), *(f"{known}/" for known in WORKLOADS)]
    return _starting(words, incomplete)
