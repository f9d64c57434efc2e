"""The objects of the cluster, in memory and on disk: YAML, in the order they were applied."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from lab.cluster.events import now
from lab.files import write_atomically
from lab.manifests import load
from lab.manifests.read import ManifestError
from lab.resources.document import written
from lab.resources.resource import Resource

Key = tuple[str, str, str]
"""Kind, namespace (empty for cluster-scoped kinds) and name."""

Verb = Literal["created", "configured", "unchanged"]

_HEADER = "# lab: "


@dataclass(frozen=True, slots=True)
class Record:
    """A resource with the metadata that the API server adds."""

    resource: Resource
    uid: str
    created: str
    generation: int = 1
    applied_labels: tuple[str, ...] = ()
    """The labels of the manifest: a later apply without them removes them, but no others."""
    applied_annotations: tuple[str, ...] = ()


def key(resource: Resource) -> Key:
    return resource.kind, resource.namespace, resource.name


class Store:
    """Every object, by key, in the order of first apply."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._records: dict[Key, Record] = {}
        self._order = 0

    def __contains__(self, key_: Key) -> bool:
        return key_ in self._records

    def get(self, kind: str, namespace: str, name: str) -> Record | None:
        return self._records.get((kind, namespace, name))

    def body(self, kind: str, namespace: str, name: str) -> Any:
        record = self.get(kind, namespace, name)
        return None if record is None else record.resource.body

    def of(self, kind: str, namespace: str | None = None) -> list[Record]:
        return [
            record
            for (found, where, _), record in self._records.items()
            if found == kind and namespace in (None, where)
        ]

    def all(self) -> Iterator[Record]:
        yield from list(self._records.values())

    def _merged(self, resource: Resource) -> Resource:
        """Returns the result of applying a resource to the one there is.

        Labels and annotations set by others stay, and so do the replicas when the manifest
        doesn't give them, and the time of a restart.
        """
        record = self._records.get(key(resource))
        if record is None:
            return resource
        old = record.resource
        labels = _keep(old.labels, record.applied_labels) | dict(resource.labels)
        notes = _keep(old.annotations, record.applied_annotations) | dict(resource.annotations)
        spec = resource.raw.get("spec")
        scaled = old.raw.get("spec", {}) if isinstance(spec, dict) else {}
        raw: dict[str, Any] = dict(resource.raw)
        body = resource.body
        if isinstance(spec, dict) and "replicas" in scaled and "replicas" not in spec:
            raw["spec"] = spec | {"replicas": scaled["replicas"]}
            body = body.model_copy(
                update={"spec": body.spec.model_copy(update={"replicas": scaled["replicas"]})}
            )
        if (when := _restarted(old.raw)) and not _restarted(raw):
            template = raw["spec"]["template"]
            own = template.get("metadata") or {}
            notes_ = {**(own.get("annotations") or {}), RESTARTED: when}
            template = {**template, "metadata": {**own, "annotations": notes_}}
            raw["spec"] = raw["spec"] | {"template": template}
            body = type(body).model_validate({"spec": raw["spec"]})
        return replace(resource, labels=labels, annotations=notes, raw=raw, body=body)

    def verb(self, resource: Resource) -> Verb:
        """Returns the outcome of applying a resource."""
        old = self._records.get(key(resource))
        if old is None:
            return "created"
        merged = self._merged(resource)
        same = (
            content(merged) == content(old.resource)
            and merged.labels == old.resource.labels
            and merged.annotations == old.resource.annotations
        )
        return "unchanged" if same else "configured"

    def apply(self, resource: Resource) -> Verb:
        """Puts an object in, and on disk."""
        verb = self.verb(resource)
        old = self._records.get(key(resource))
        applied = tuple(resource.labels), tuple(resource.annotations)
        if old is None:
            self._order += 1
            new = replace(resource, order=self._order)
            record = Record(new, str(uuid.uuid4()), now(), 1, *applied)
        else:
            merged = replace(self._merged(resource), order=old.resource.order)
            # One that is unchanged may have other lines, and errors should name those.
            record = replace(old, resource=merged)
            if verb == "configured":
                generation = old.generation + (content(merged) != content(old.resource))
                record = Record(merged, old.uid, old.created, generation, *applied)
        self._put(record)
        return verb

    def update(self, resource: Resource) -> None:
        """Changes an object in place (label, scale); the labels of its manifest stay known."""
        old = self._records[key(resource)]
        changed = content(resource) != content(old.resource)
        self._put(replace(old, resource=resource, generation=old.generation + changed))

    def delete(self, key_: Key) -> None:
        record = self._records.pop(key_)
        self._file(record).unlink(missing_ok=True)

    def restore(self) -> Iterable[str]:
        """Reads the objects of an earlier lab; those that can't be used stay on disk.

        Returns a reason for each of these.
        """
        problems = []
        for file in sorted(self._folder.glob("*.yaml")):
            try:
                record = _read(file)
            except (ManifestError, ValueError, KeyError) as error:
                problems.append(f"{file}: {error}")
                continue
            self._records[key(record.resource)] = record
            self._order = max(self._order, record.resource.order)
        return problems

    def _file(self, record: Record) -> Path:
        kind, namespace, name = key(record.resource)
        parts = [f"{record.resource.order:05}", kind, namespace, name]
        return self._folder / ("-".join(part for part in parts if part) + ".yaml")

    def _put(self, record: Record) -> None:
        write_atomically(self._file(record), _text(record).encode())
        self._records[key(record.resource)] = record


RESTARTED = "kubectl.kubernetes.io/restartedAt"
"""The annotation of a template by which `rollout restart` makes it another."""


def _restarted(raw: Mapping[str, Any]) -> str | None:
    """The time of the restart in a workload's template, if any."""
    spec = raw.get("spec")
    template = spec.get("template") if isinstance(spec, dict) else None
    metadata = template.get("metadata") if isinstance(template, dict) else None
    notes = metadata.get("annotations") if isinstance(metadata, dict) else None
    return notes.get(RESTARTED) if isinstance(notes, dict) else None


def _keep(values: Mapping[str, str], applied: Iterable[str]) -> dict[str, str]:
    return {name: value for name, value in values.items() if name not in set(applied)}


def content(resource: Resource) -> dict[str, Any]:
    """Returns a resource's document without apiVersion, kind, metadata and status."""
    left_out = ("apiVersion", "kind", "metadata", "status")
    return {name: value for name, value in resource.raw.items() if name not in left_out}


def document(resource: Resource) -> dict[str, Any]:
    """Returns a resource as a manifest, with its labels and annotations of now."""
    metadata: dict[str, Any] = {"name": resource.name}
    if resource.namespace:
        metadata["namespace"] = resource.namespace
    if resource.labels:
        metadata["labels"] = dict(resource.labels)
    if resource.annotations:
        metadata["annotations"] = dict(resource.annotations)
    head = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata}
    return head | content(resource)


def _text(record: Record) -> str:
    resource = record.resource
    source = resource.source
    lab = {
        "uid": record.uid,
        "created": record.created,
        "generation": record.generation,
        "order": resource.order,
        "labels": record.applied_labels,
        "annotations": record.applied_annotations,
        "file": source.file,
        "line": source.line,
        "lines": [[*path, line] for path, line in source.lines.items()],
    }
    return f"{_HEADER}{json.dumps(lab)}\n{written(document(resource))}"


def _read(file: Path) -> Record:
    text = file.read_text(encoding="utf-8")
    header, _, _ = text.partition("\n")
    lab = json.loads(header.removeprefix(_HEADER))
    resource = load.parse([(str(file), text)]).resources[0]
    lines = {tuple(path): line for *path, line in lab["lines"]}
    source = replace(resource.source, file=lab["file"], line=lab["line"], lines=lines)
    return Record(
        replace(resource, source=source, order=lab["order"]),
        lab["uid"],
        lab["created"],
        lab["generation"],
        tuple(lab["labels"]),
        tuple(lab["annotations"]),
    )
