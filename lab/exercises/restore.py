"""The objects that an exercise may change: recorded before it, put back afterwards.

The record is a file that exists from before the first change until everything is back, so that
`guestbook exercise clean` (and the next run) can finish the work of a run that was killed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from lab.exercises.load import ExerciseError, Lesson, files, objects
from lab.exercises.target import Target
from lab.files import write_atomically

BASELINE = ("02-ingress/gateway.yaml", "02-ingress/virtual-service.yaml")
"""The ingress that every exercise but 01 and 02 begins with."""

_SET_ASIDE = frozenset(
    {
        "VirtualService",
        "DestinationRule",
        "ServiceEntry",
        "WorkloadEntry",
        "Sidecar",
        "EnvoyFilter",
        "PeerAuthentication",
        "ProxyConfig",
        "RequestAuthentication",
        "AuthorizationPolicy",
        "Deployment",
    }
)
"""Kinds that another exercise leaves behind and that would disturb this one."""

_FIRST = ("virtualservice",)
"""Kinds that go first: a route goes before the subsets it names."""

_LAST = ("deployment", "pod", "service", "configmap", "serviceaccount", "namespace")
"""Kinds that go after all others, in this order: rules first, then what they refer to."""

_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


@dataclass(frozen=True, slots=True, order=True)
class Name:
    """The name of an object: its kind as kubectl takes it, its namespace (or ""), its name."""

    kind: str
    namespace: str
    name: str

    @property
    def argument(self) -> str:
        return f"{self.kind}/{self.name}"

    @property
    def where(self) -> list[str]:
        return ["-n", self.namespace] if self.namespace else []


Record = dict[Name, dict[str, Any] | None]
"""Objects as they are at one moment; None for those that are not there."""


def name_of(document: dict[str, Any]) -> Name:
    """Returns the name of an object of a manifest."""
    group, _, _ = document["apiVersion"].rpartition("/")
    kind = document["kind"].lower()
    metadata = document["metadata"]
    namespace = "" if kind == "namespace" else metadata.get("namespace", "default")
    return Name(f"{kind}.{group}" if group else kind, namespace, metadata["name"])


def touched(lesson: Lesson, istio: Path) -> list[Name]:
    """Returns every object an exercise may create, change or delete."""
    paths = [lesson.folder / file for file in files(lesson)]
    paths += [istio / file for file in BASELINE]
    labelled = {
        Name("namespace", "", namespace)
        for step in lesson.exercise.steps
        for namespace in step.label
    }
    return sorted(labelled | _names_in(paths))


def disturbing(lessons: Iterable[Lesson], istio: Path) -> list[Name]:
    """Returns the objects of any exercise that must not be there when one begins."""
    kinds = {kind.lower() for kind in _SET_ASIDE}
    return [n for n in leftovers(lessons, istio) if n.kind.partition(".")[0] in kinds]


def leftovers(lessons: Iterable[Lesson], istio: Path) -> list[Name]:
    """Returns everything exercises create but the baseline, in the order of removal."""
    paths = [
        lesson.folder / file
        for lesson in lessons
        for file in files(lesson)
        if "../install/" not in file
    ]
    baseline = _names_in(istio / file for file in BASELINE)
    return sorted(_names_in(paths) - baseline, key=_removal_order)


def _names_in(paths: Iterable[Path]) -> set[Name]:
    return {name_of(document) for path in paths for document in objects(path)}


def record(target: Target, names: Sequence[Name]) -> Record:
    """Returns the objects of these names as they are now."""
    seen: Record = dict.fromkeys(names)
    for namespace in sorted({name.namespace for name in names}):
        kinds = sorted({name.kind for name in names if name.namespace == namespace})
        where = ["-n", namespace] if namespace else []
        found = target.get_json(",".join(kinds), *where) or {"items": []}
        for item in found["items"]:
            if (name := name_of(item)) in seen:
                seen[name] = item
    return seen


def manifest(item: dict[str, Any]) -> dict[str, Any]:
    """Returns a manifest that makes a recorded object again."""
    applied = item["metadata"].get("annotations", {}).get(_APPLIED)
    if applied:
        return dict(json.loads(applied))
    keep = ("name", "namespace", "labels", "annotations")
    metadata = {key: value for key, value in item["metadata"].items() if key in keep}
    return {**{k: v for k, v in item.items() if k != "status"}, "metadata": metadata}


def restore(target: Target, before: Record) -> list[str]:
    """Puts changed objects back and removes new ones; returns what was done, in words."""
    now = record(target, list(before))
    done = []
    changed = [
        item
        for name, item in before.items()
        if item is not None and _essence(item) != _essence(now[name])
    ]
    if changed:
        listed = {"apiVersion": "v1", "kind": "List", "items": [manifest(i) for i in changed]}
        target.run(["kubectl", "apply", "-f", "-"], stdin=json.dumps(listed))
        done += [f"put back {i['kind']} {i['metadata']['name']}" for i in changed]
        done += _drop_labels(target, before, now)
    new = [name for name, item in before.items() if item is None and now[name] is not None]
    for name in sorted(new, key=_removal_order):
        target.run(["kubectl", "delete", name.argument, *name.where, "--ignore-not-found"])
        done.append(f"removed {name.argument}")
    return done


def _removal_order(name: Name) -> tuple[int, Name]:
    """Returns a key to sort by: an object that refers to another goes before it."""
    kind = name.kind.partition(".")[0]
    if kind in _FIRST:
        return -1, name
    return (_LAST.index(kind) + 1 if kind in _LAST else 0), name


def _drop_labels(target: Target, before: Record, now: Record) -> list[str]:
    """Removes labels that `kubectl label` added: applying the manifest doesn't drop them."""
    done = []
    for name, item in before.items():
        current = now[name]
        if name.kind != "namespace" or item is None or current is None:
            continue
        new = set(current["metadata"].get("labels", {})) - set(item["metadata"].get("labels", {}))
        for label in sorted(new):
            target.run(["kubectl", "label", "namespace", name.name, f"{label}-"])
            done.append(f"removed label {label} of namespace {name.name}")
    return done


def _essence(item: dict[str, Any] | None) -> Any:
    if item is None:
        return None
    body = {k: v for k, v in item.items() if k not in ("metadata", "status")}
    return body, item["metadata"].get("labels", {})


class Journal:
    """The record on disk, which one run at a time holds."""

    def __init__(self, folder: Path, identity: str) -> None:
        """`identity` is the target's: each has a record of its own."""
        self._path = folder / f"exercise-{re.sub(r'[^A-Za-z0-9.-]+', '_', identity)}.json"

    def begin(self, before: Record) -> None:
        """Writes the record; it must be there before the first change."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        entries = [
            {"kind": n.kind, "namespace": n.namespace, "name": n.name, "object": item}
            for n, item in before.items()
        ]
        data = {"process": os.getpid(), "objects": entries}
        write_atomically(self._path, json.dumps(data).encode())

    def unfinished(self) -> Record | None:
        """Returns the record of a run that never ended; raises when that run is still going."""
        try:
            data = json.loads(self._path.read_text())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ExerciseError(f"{self._path}: {error}; delete it when it is no use") from error
        process = int(data["process"])
        if process != os.getpid() and psutil.pid_exists(process):
            raise ExerciseError(
                f"exercises are being run already, by process {process}; wait for it to end"
            )
        return {Name(e["kind"], e["namespace"], e["name"]): e["object"] for e in data["objects"]}

    def end(self) -> None:
        self._path.unlink(missing_ok=True)
