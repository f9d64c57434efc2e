"""What the command line asks of the cluster: apply, delete, get, label, scale, restart."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lab.cluster import kubectl_objects, selector
from lab.cluster.cluster import Cluster
from lab.cluster.events import now
from lab.cluster.store import Record, content, document, key
from lab.manifests import load, registry
from lab.resources.metadata import label_problems
from lab.resources.resource import Kind, Resource

PROTECTED = ("default", "istio-system")
"""Namespaces that the API server, or the lab, would miss."""

ALL = ("pods", "services", "deployments", "statefulsets")
"""What `get all` shows."""


class RefusedError(Exception):
    """A request that can't be done; the message says why. `missing` when an object isn't there."""

    def __init__(self, reason: str, *, missing: bool = False) -> None:
        super().__init__(reason)
        self.missing = missing


@dataclass(frozen=True, slots=True)
class Applied:
    """What `apply` did to each object, in order, and what it has to say about them."""

    results: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]
    resources: tuple[Resource, ...] = ()


def reference(resource: Resource) -> str:
    """`deployment.apps/ui`, as kubectl prints it."""
    group = resource.api_version.rpartition("/")[0]
    kind = resource.kind.lower()
    return f"{kind}.{group}/{resource.name}" if group else f"{kind}/{resource.name}"


def kind_named(name: str) -> Kind:
    kind = registry.find(name)
    if kind is None:
        raise RefusedError(f'the server doesn\'t have a resource type "{name}"')
    return kind


def apply(
    cluster: Cluster,
    files: Iterable[tuple[str, str]],
    namespace: str | None = None,
    *,
    create: bool = False,
    dry_run: bool = False,
) -> Applied:
    """Validate everything, then apply everything.

    Raises ManifestError, and then nothing has changed.
    """
    loaded = load.parse(files, namespace)
    store = cluster.store
    named = {r.name for r in loaded.resources if r.kind == "Namespace"}
    errors = []
    for resource in loaded.resources:
        where = resource.namespace
        if where and where not in named and ("Namespace", "", where) not in store:
            path = ("metadata", "namespace")
            errors.append(resource.describe(path, f'namespaces "{where}" not found'))
        if (problem := cluster.image_problem(resource)) is not None:
            errors.append(resource.describe(*problem))
        old = store.get(*key(resource))
        if old is not None and create:
            errors.append(f"{reference(resource)} already exists")
        elif old is not None:
            errors.extend(_immutable(old.resource, resource))
    if errors:
        raise load.ManifestError(errors)
    if dry_run:
        return Applied(
            tuple((reference(r), "checked (dry run)") for r in loaded.resources), loaded.warnings
        )
    results = tuple((reference(r), str(store.apply(r))) for r in loaded.resources)
    if any(verb != "unchanged" for _, verb in results):
        cluster.objects_changed()
    said = cluster.mesh.warnings(loaded.resources) if cluster.mesh is not None else []
    return Applied(results, (*loaded.warnings, *said), tuple(loaded.resources))


def _immutable(old: Resource, new: Resource) -> Iterable[str]:
    if new.kind == "Pod" and _pod_core(content(old)) != _pod_core(content(new)):
        yield new.describe(("spec",), "a pod's spec can't be changed: delete the pod first")
    if new.kind in ("Deployment", "StatefulSet") and old.spec.selector != new.spec.selector:
        yield new.describe(("spec", "selector"), "the field is immutable: delete it first")


def _pod_core(body: dict[str, Any]) -> dict[str, Any]:
    """A pod's spec without what the server adds when it shows one."""
    spec = dict(body.get("spec", {}))
    for name in ("nodeName", "initContainers"):
        spec.pop(name, None)
    if spec.get("serviceAccountName") == "default":
        spec.pop("serviceAccountName")
    return spec


def objects(
    cluster: Cluster,
    kind_names: Sequence[str],
    namespace: str | None,
    names: Sequence[str] = (),
    labels: str = "",
) -> list[dict[str, Any]]:
    """Objects as the API server shows them. A name that isn't there raises RefusedError."""
    matches = _selector(labels)
    wanted = [n for name in kind_names for n in (ALL if name == "all" else (name,))]
    found: list[dict[str, Any]] = []
    for kind in map(kind_named, wanted):
        shown = (
            {
                item["metadata"]["name"]: item
                for item in _of_kind(cluster, kind, namespace)
                if matches(item["metadata"].get("labels") or {})
            }
            if names
            else {}
        )
        if names:
            for name in names:
                if name not in shown:
                    raise RefusedError(
                        f'{kind.plural}{_group(kind)} "{name}" not found', missing=True
                    )
                found.append(shown[name])
        else:
            found.extend(
                item
                for item in _of_kind(cluster, kind, namespace)
                if matches(item["metadata"].get("labels") or {})
            )
    return found


def _group(kind: Kind) -> str:
    return f".{kind.group}" if kind.group else ""


def _selector(labels: str) -> selector.Matches:
    try:
        return selector.parse(labels)
    except ValueError as error:
        raise RefusedError(str(error)) from None


def _of_kind(cluster: Cluster, kind: Kind, namespace: str | None) -> Iterable[dict[str, Any]]:
    where = namespace if kind.namespaced else None
    if kind.kind == "Pod":
        for runner in list(cluster.runners.values()):
            if where in (None, runner.model.namespace):
                record = cluster.store.get("Pod", *runner.key)
                yield kubectl_objects.pod(runner, record.uid if record else "-".join(runner.key))
        return
    for record in cluster.store.of(kind.kind, where):
        yield show(cluster, record)


def show(cluster: Cluster, record: Record) -> dict[str, Any]:
    """One object that isn't a Pod."""
    resource = record.resource
    namespace, name = resource.namespace, resource.name
    if resource.kind in ("Deployment", "StatefulSet"):
        pods = cluster.owned(resource.kind, namespace, name)
        return kubectl_objects.workload(record, pods, cluster.template_of(record))
    if resource.kind == "Service":
        address = cluster.cluster_ip(namespace, name)
        service = next(s for s in cluster.services() if (s.namespace, s.name) == (namespace, name))
        public = any(cluster.published(service, port.port) for port in service.ports)
        return kubectl_objects.service(record, address, "127.0.0.1" if public else None)
    if resource.kind == "Namespace":
        return kubectl_objects.namespace(record, name in cluster.terminating)
    return kubectl_objects.plain(record)


async def delete(
    cluster: Cluster,
    kind_name: str,
    namespace: str,
    names: Sequence[str],
    labels: str = "",
    *,
    wait: bool = True,
    grace: float | None = None,
) -> list[str]:
    """Delete objects by name, or by selector; returns what was deleted.

    Pods (and Namespaces) are waited for. Raises RefusedError, and then nothing was deleted.
    """
    kind = kind_named(kind_name)
    shown = objects(cluster, [kind_name], namespace if kind.namespaced else None, names, labels)
    chosen = [item["metadata"]["name"] for item in shown]
    if kind.kind == "Namespace" and (kept := [n for n in chosen if n in PROTECTED]):
        raise RefusedError(f'namespace "{kept[0]}" may not be deleted')
    ends = []
    for name in chosen:
        if kind.kind == "Namespace":
            ends.append(_delete_namespace(cluster, name, grace))
        elif kind.kind == "Pod":
            if ("Pod", namespace, name) in cluster.store:
                cluster.store.delete(("Pod", namespace, name))
            ends.append(cluster.stop_pod(cluster.runners[namespace, name], grace))
        else:
            cluster.store.delete((kind.kind, namespace if kind.namespaced else "", name))
    cluster.objects_changed()
    work = asyncio.gather(*ends)
    if wait:
        await work
    else:
        cluster.spawn(work)
    return [f'{kind.kind.lower()}{_group(kind)} "{name}"' for name in chosen]


async def _delete_namespace(cluster: Cluster, name: str, grace: float | None) -> None:
    cluster.terminating.add(name)
    for record in list(cluster.store.all()):
        if record.resource.namespace == name:
            cluster.store.delete(key(record.resource))
    runners = [runner for (where, _), runner in cluster.runners.items() if where == name]
    await asyncio.gather(*(cluster.stop_pod(runner, grace) for runner in runners))
    cluster.terminating.discard(name)
    cluster.store.delete(("Namespace", "", name))
    cluster.objects_changed()


def change(
    cluster: Cluster,
    field: str,
    kind_name: str,
    namespace: str,
    names: Sequence[str],
    values: dict[str, str | None],
    *,
    labels: str = "",
    overwrite: bool = False,
) -> list[str]:
    """Set (or with None remove) labels or annotations; `field` is which. Returns who changed."""
    kind = kind_named(kind_name)
    shown = objects(cluster, [kind_name], namespace if kind.namespaced else None, names, labels)
    given = {name: value for name, value in values.items() if value is not None}
    for problem in label_problems(given, ()) if field == "labels" else ():
        raise RefusedError(problem.reason)
    done = []
    for item in shown:
        name = item["metadata"]["name"]
        old = dict(item["metadata"].get(field) or {})
        for label, value in values.items():
            taken = old.get(label) not in (None, value)
            if value is not None and taken and not overwrite:
                raise RefusedError(
                    f"'{label}' already has a value ({old[label]}), and --overwrite is false"
                )
        new = {k: v for k, v in (old | values).items() if v is not None}
        changes: dict[str, Any] = {field: new}
        where = namespace if kind.namespaced else ""
        record = cluster.store.get(kind.kind, where, name)
        if record is not None:
            cluster.store.update(dataclasses.replace(record.resource, **changes))
        if kind.kind == "Pod":
            cluster.runners[where, name].update(**changes)
        done.append(f"{kind.kind.lower()}{_group(kind)}/{name}")
    cluster.objects_changed()
    return done


def _workload(cluster: Cluster, kind_name: str, namespace: str, name: str) -> Record:
    kind = kind_named(kind_name)
    record = cluster.store.get(kind.kind, namespace, name)
    if kind.kind not in ("Deployment", "StatefulSet"):
        raise RefusedError(f"{kind.plural} have no replicas")
    if record is None:
        raise RefusedError(f'{kind.plural}{_group(kind)} "{name}" not found', missing=True)
    return record


def scale(cluster: Cluster, kind_name: str, namespace: str, name: str, replicas: int) -> None:
    """Change how many pods a Deployment or a StatefulSet has."""
    if replicas < 0:
        raise RefusedError("--replicas must not be negative")
    resource = _workload(cluster, kind_name, namespace, name).resource
    _replace(cluster, resource, resource.raw["spec"] | {"replicas": replicas})


def restart(cluster: Cluster, kind_name: str, namespace: str, name: str) -> None:
    """Roll all pods, by an annotation on the template, as kubectl does."""
    resource = _workload(cluster, kind_name, namespace, name).resource
    spec = resource.raw["spec"]
    template = dict(spec["template"])
    metadata = dict(template.get("metadata", {}))
    metadata["annotations"] = (metadata.get("annotations") or {}) | {
        "kubectl.kubernetes.io/restartedAt": f"{now()}#{cluster.revision}"
    }
    template["metadata"] = metadata
    _replace(cluster, resource, spec | {"template": template})


def _replace(cluster: Cluster, resource: Resource, spec: dict[str, Any]) -> None:
    kind = kind_named(resource.kind.lower())
    raw = document(resource) | {"spec": spec}
    body = kind.body.model_validate({"spec": spec})
    cluster.store.update(dataclasses.replace(resource, raw=raw, body=body))
    cluster.objects_changed()
