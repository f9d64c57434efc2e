"""Words that name objects (`pods a b`, `deploy/ui`), and the pods behind them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

from lab.cli.client import Client, FailureError
from lab.cli.output import reference


def split(words: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Returns `pods a b`, `pod/a deploy/b` or `pods,svc` as kinds with their names."""
    if words and all("/" in word for word in words):
        grouped: dict[str, list[str]] = {}
        for word in words:
            kind, _, name = word.partition("/")
            grouped.setdefault(kind, []).append(name)
        return list(grouped.items())
    return [(words[0], list(words[1:]))] if words else []


def assignments(words: Sequence[str], what: str) -> tuple[list[str], dict[str, str | None]]:
    """Returns `deploy/ui a=1 b-` as the words of objects, and values; None for one to remove.

    Raises FailureError in kubectl's words; `what` is what the values are.
    """
    objects: list[str] = []
    values: dict[str, str | None] = {}
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise FailureError(f"{word!r} is not UTF-8") from None
        key, equals, value = word.partition("=")
        removes = not equals and word.endswith("-") and bool(objects)
        if not equals and not removes:
            if values:
                raise FailureError(f"all resources must be specified before {what} changes: {word}")
            objects.append(word)
            continue
        key = word[:-1] if removes else key
        if key in values and (values[key] is None) != removes:
            raise FailureError(
                f"can not both modify and remove the same {what} in the same command"
            )
        values[key] = None if removes else value
    return objects, values


def each(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yields the kind and the name of each object. Raises FailureError without a name."""
    for kind, names in split(words):
        if not any(names):
            raise FailureError("resource(s) were provided, but no name was specified")
        for name in names:
            yield kind, name


def present(
    lab: Client, namespace: str, words: Sequence[str], selector: str
) -> Iterator[tuple[str, str]]:
    """Yields the kind and the name of each object; of a kind alone those there are.

    Says so on standard error when there are none.
    """
    for kinds, names in split(words):
        if names and selector:
            raise FailureError("name cannot be provided when a selector is specified")
        if names:
            yield from ((kinds, name) for name in names)
            continue
        query = {"kinds": kinds.split(","), "namespace": namespace, "selector": selector}
        items = lab.call("objects", **query)["items"]
        if not items:
            sys.stderr.write(f"No resources found in {namespace} namespace.\n")
        yield from ((item["kind"], item["metadata"]["name"]) for item in items)


def full(lab: Client, kind: str, namespace: str, name: str) -> str:
    """Returns `deployment.apps/ui` for `deploy` and `ui`."""
    answer = lab.call("objects", kinds=[kind], namespace=namespace, names=[name])
    return reference(answer["items"][0])


def require_names(names: Sequence[str], selector: str, every: bool) -> None:
    """Raises FailureError when it takes a name, a selector or --all to say which objects."""
    if not names and not selector and not every:
        raise FailureError("resource(s) were provided, but no name: use -l or --all")


_WITH_PODS = ("Deployment", "StatefulSet", "ReplicaSet", "Service")


def chosen_pods(lab: Client, namespace: str, target: str, labels: str = "") -> list[dict[str, Any]]:
    """Returns the pods behind `NAME`, `pod/NAME`, `deploy/NAME`, `svc/NAME` or a selector.

    Ready ones come first. Raises FailureError when the named object isn't there.
    """
    kind, _, name = target.rpartition("/")
    if kind and kind not in ("pod", "pods", "po"):
        owner = lab.call("objects", kinds=[kind], namespace=namespace, names=[name])["items"][0]
        if owner["kind"] not in _WITH_PODS:
            raise FailureError(
                f"{reference(owner)} has no pods; name a pod, a Deployment, a StatefulSet or a "
                "Service"
            )
        selector = owner["spec"].get("selector", {})
        selector = selector.get("matchLabels", selector)
        labels = ",".join(f"{key}={value}" for key, value in selector.items())
        name = ""
    found: list[dict[str, Any]] = lab.call(
        "objects",
        kinds=["pods"],
        namespace=namespace,
        names=[name] if name else [],
        selector=labels,
    )["items"]
    return sorted(found, key=lambda pod: (not _serves(pod), pod["metadata"]["name"]))


def _serves(pod: dict[str, Any]) -> bool:
    ready = [c for c in pod["status"]["conditions"] if c["type"] == "Ready"]
    return ready[0]["status"] == "True" and "deletionTimestamp" not in pod["metadata"]
