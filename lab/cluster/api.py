"""Operations on objects, as kubectl has them: apply, get, delete, label, scale, rollouts, images.

The parameters are called as in the requests of the command line (`server`).
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import shlex
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lab.cluster import derived, injection, kubectl_objects, patches, programs
from lab.cluster.controllers import WORKLOADS, stop_pod
from lab.cluster.events import now
from lab.cluster.programs import INJECTED, UnknownImageError, split
from lab.cluster.rollout import CAUSE, template_hash
from lab.cluster.running import Cluster
from lab.cluster.selector import Matches, parse_fields
from lab.cluster.selector import parse as parse_selector
from lab.cluster.store import RESTARTED, Key, Record, content, document, key
from lab.files import write_atomically
from lab.kinds.kubernetes.core import WITH_NODE_PORTS
from lab.manifests import load, registry
from lab.manifests.read import ManifestError
from lab.resources.checks import WITHOUT_EFFECT
from lab.resources.document import DocumentError, documents
from lab.resources.metadata import label_problems
from lab.resources.resource import Kind, Resource, object_name

PROTECTED = ("default", "istio-system")
"""Namespaces that can't be deleted."""

ALL = ("pods", "services", "deployments", "replicasets", "statefulsets")
"""The kinds of `get all`."""


class RefusedError(Exception):
    """A request that can't be done; the message says why. `missing` when an object isn't there."""

    def __init__(self, reason: str, *, missing: bool = False) -> None:
        super().__init__(reason)
        self.missing = missing


@dataclass(frozen=True, slots=True)
class Applied:
    """The outcome for each object, in order, and warnings about them.

    `refused` has the file of each object that was there before, or that was not, and the reason.
    """

    results: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]
    resources: tuple[Resource, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()


Manner = Literal["apply", "create", "replace"]
"""Of objects put in: `create` takes only those not there yet, `replace` only those there are."""


def reference(resource: Resource) -> str:
    """Returns `deployment.apps/ui`, as kubectl prints it."""
    group = resource.api_version.rpartition("/")[0]
    kind = resource.kind.lower()
    return f"{kind}.{group}/{resource.name}" if group else f"{kind}/{resource.name}"


def kind_named(name: str, *, stored: bool = True) -> Kind:
    """Returns the kind called so; with `stored` only one whose objects can be changed."""
    kind = registry.find(name)
    if kind is None and (kind := derived.find(name)) is not None and stored:
        raise RefusedError(f"{kind.plural} are made by the lab itself, and can't be changed")
    if kind is None:
        raise RefusedError(registry.unknown(name, derived.KINDS))
    return kind


def apply(
    cluster: Cluster,
    files: Iterable[tuple[str, str | dict[str, Any]]],
    namespace: str | None = None,
    *,
    manner: Manner = "apply",
    selector: str = "",
    dry_run: bool = False,
) -> Applied:
    """Validates everything, then applies, creates or replaces what a selector of labels selects.

    Raises ManifestError, and then nothing has changed.
    """
    loaded = _selected(load.parse(files, namespace), selector)
    return _put(cluster, loaded, manner, dry_run=dry_run)


def _selected(loaded: load.Loaded, selector: str) -> load.Loaded:
    matches = _matches(selector)
    chosen = tuple(resource for resource in loaded.resources if matches(resource.labels))
    return dataclasses.replace(loaded, resources=chosen)


def _matches(selector: str) -> Matches:
    try:
        return parse_selector(selector)
    except ValueError as error:
        raise RefusedError(str(error)) from None


def _put(cluster: Cluster, loaded: load.Loaded, manner: Manner, *, dry_run: bool) -> Applied:
    store = cluster.store
    named = {r.name for r in loaded.resources if r.kind == "Namespace"}
    errors: list[str] = []
    refused: list[tuple[str, str]] = []
    resources: list[Resource] = []
    for resource in loaded.resources:
        where = resource.namespace
        if where and where not in named and ("Namespace", "", where) not in store:
            path = ("metadata", "namespace")
            errors.append(resource.describe(path, f'namespaces "{where}" not found'))
        errors.extend(_unknown_images(resource))
        if resource.kind == "Service":
            problems = cluster.services.node_port_problems(resource)
            errors += [resource.describe(("spec", *path), reason) for path, reason in problems]
        old = _present(cluster, key(resource))
        twice = manner == "create" and any(key(one) == key(resource) for one in resources)
        if twice or (manner != "apply" and (old is None) == (manner == "replace")):
            named_ = _named(kind_named(resource.kind), resource.name)
            why = "not found" if manner == "replace" else "already exists"
            refused.append((resource.source.file, f"{named_} {why}"))
            continue
        if old is not None:
            errors.extend(_immutable(old, resource))
            if manner == "apply" and _owned(cluster, key(resource)):
                labels = {**old.labels, **resource.labels}
                notes = {**old.annotations, **resource.annotations}
                resource = dataclasses.replace(resource, labels=labels, annotations=notes)
        resources.append(resource)
    if errors:
        raise ManifestError(errors)
    verbs = [
        _verb(cluster, one)
        if manner == "replace" or _owned(cluster, key(one))
        else str(store.verb(one))
        for one in resources
    ]
    results = tuple(zip(map(reference, resources), verbs, strict=True))
    told = tuple(_untold(cluster, loaded.warnings))
    if dry_run:
        return Applied(results, told, (), tuple(refused))
    # Reports of requests tell lines: those that moved are a change as well.
    before = [store.get(*key(r)) for r in resources]
    kept = [_citable(resource) for resource in resources]
    moved = any(
        old is not None and _lines(old.resource) != _lines(new)
        for old, new in zip(before, kept, strict=True)
    )
    for resource, there in zip(kept, before, strict=True):
        if manner != "replace" and not _owned(cluster, key(resource)):
            store.apply(resource)
        elif there is not None:
            store.update(dataclasses.replace(resource, order=there.resource.order))
        if resource.kind == "Pod" and (runner := cluster.runners.get(key(resource)[1:])):
            record = store.get(*key(resource))
            now_ = record.resource if record is not None else resource
            runner.update(labels=now_.labels, annotations=now_.annotations)
    if moved or any(verb != "unchanged" for verb in verbs):
        cluster.objects_changed()
    warnings = cluster.mesh.warnings(resources) if cluster.mesh is not None else []
    return Applied(results, (*told, *warnings), tuple(resources), tuple(refused))


def patch(
    cluster: Cluster,
    kind: str,
    namespace: str,
    name: str,
    patch: str | dict[str, Any],
    type_: Literal["strategic", "merge", "json"] = "strategic",
    *,
    dry_run: bool = False,
) -> tuple[Applied, dict[str, Any]]:
    """Changes an object by a patch; returns the outcome and the patched object.

    The patch is a text, JSON or YAML, or its value.

    Its fields keep the lines of the file it came from, which is then called patched.
    """
    found = kind_named(kind)
    where = namespace if found.namespaced else ""
    _must_be_written(cluster, found, where, name)
    if (old := _present(cluster, (found.kind, where, name))) is None:
        raise _not_found(found, name)
    if type_ == "strategic" and found.group.endswith(".istio.io"):
        raise RefusedError(
            f"application/strategic-merge-patch+json is not supported by {old.api_version}, "
            f"Kind={found.kind}: the body of the request was in an unknown format - accepted media "
            "types include: application/json-patch+json, application/merge-patch+json; "
            "try --type merge"
        )
    try:
        given = _one_value(patch) if isinstance(patch, str) else patch
        after = patches.patched(type_, found.kind, document(old), given)
    except patches.PatchError as error:
        raise RefusedError(f"The request is invalid: {error}") from None
    if found.kind == "Service":
        _drop_node_ports(after, old)
    loaded = load.parse([("(patch)", after)])
    if [key(resource) for resource in loaded.resources] != [(found.kind, where, name)]:
        raise RefusedError("a patch can't change the kind, the name or the namespace of an object")
    if old.source.line:
        file = f"{old.source.file.removesuffix(_PATCHED)}{_PATCHED}"
        source = dataclasses.replace(old.source, file=file)
        resource = dataclasses.replace(loaded.resources[0], source=source)
        loaded = dataclasses.replace(loaded, resources=(resource,))
    return _put(cluster, loaded, "replace", dry_run=dry_run), after


_PATCHED = " (patched)"


def _drop_node_ports(service: dict[str, Any], old: Resource) -> None:
    """Takes the node ports that a Service had from one of a type without them."""
    had = {port.node_port for port in old.spec.ports}
    match service:
        case {"spec": {"type": kind}} if kind in WITH_NODE_PORTS:
            return
        case {"spec": {"ports": [*ports]}}:
            for port in ports:
                if isinstance(port, dict) and port.get("nodePort") in had:
                    port.pop("nodePort", None)


def _one_value(patch: str) -> Any:
    """Returns the value of a patch's text. Raises RefusedError."""
    try:
        values = [one.value for one in documents(patch)]
    except DocumentError as error:
        raise RefusedError(f'unable to parse "{patch}": {error}') from None
    except UnicodeEncodeError:
        raise RefusedError("unable to parse the patch: it is not UTF-8") from None
    if len(values) != 1:
        raise RefusedError(f'unable to parse "{patch}": it has {len(values)} documents, not one')
    return values[0]


def _present(cluster: Cluster, key_: Key) -> Resource | None:
    """Returns the object that would be changed: one applied, or a pod of a workload."""
    if (record := cluster.store.get(*key_)) is not None:
        return record.resource
    runner = cluster.runners.get(key_[1:]) if key_[0] == "Pod" else None
    if runner is None:
        return None
    labels, notes = runner.model.labels, runner.model.annotations
    return dataclasses.replace(runner.resource, labels=labels, annotations=notes)


def _owned(cluster: Cluster, key_: Key) -> bool:
    """Returns whether an object is a pod of a workload, which is not in the store."""
    runner = cluster.runners.get(key_[1:]) if key_[0] == "Pod" else None
    return runner is not None and runner.owner is not None


def _verb(cluster: Cluster, resource: Resource) -> str:
    """Returns whether replacing an object changes it: `configured` or `unchanged`."""
    old = _present(cluster, key(resource))
    same = (
        old is not None
        and _core(old) == _core(resource)
        and (old.labels, old.annotations) == (resource.labels, resource.annotations)
    )
    return "unchanged" if same else "configured"


_FLEETING = ("--", "(", "/dev/", "/proc/")
"""The beginnings of names of texts that nobody finds again, as `/dev/fd/63` of `<(…)`."""


def _citable(resource: Resource) -> Resource:
    """Returns a resource with itself as its source if it came from no file that stays."""
    file = resource.source.file
    if file != "-" and not file.startswith(_FLEETING):
        return resource
    name = object_name(resource.kind, resource.namespace, resource.name)
    source = dataclasses.replace(resource.source, file=name, line=0)
    return dataclasses.replace(resource, source=source)


def _lines(resource: Resource) -> tuple[Any, ...]:
    return resource.source, resource.source.lines


_ONCE = (": IstioOperator ", " no effect in the lab: ")
"""Parts of warnings whose rest is said once, wherever it is said of."""


def _untold(cluster: Cluster, warnings: Iterable[str]) -> Iterable[str]:
    """Yields warnings; that something has no effect is said once in the life of a lab."""
    for warning in warnings:
        place, found, names = warning.partition(WITHOUT_EFFECT)
        if found:
            new = [name for name in names.split(", ") if name not in cluster.told]
            cluster.told.update(new)
            if new:
                yield f"{place}{found}{', '.join(new)}"
        elif mark := next((mark for mark in _ONCE if mark in warning), ""):
            said = warning.partition(mark)[2]
            if said not in cluster.told:
                cluster.told.add(said)
                yield warning
        else:
            yield warning


def _unknown_images(resource: Resource) -> Iterable[str]:
    """Yields an error for each container whose image the lab has no program for."""
    path: tuple[str, ...]
    labels, annotations = resource.labels, resource.annotations
    if resource.kind == "Pod":
        spec, path = resource.spec, ("spec",)
    elif resource.kind in WORKLOADS:
        template = resource.spec.template
        spec, path = template.spec, ("spec", "template", "spec")
        labels, annotations = template.metadata.labels, template.metadata.annotations
    else:
        return
    for index, container in enumerate(spec.containers):
        where = (*path, "containers", index, "image")
        if container.image == INJECTED:
            if problem := injection.gateway_problem(labels, annotations):
                yield resource.describe(where, problem)
            continue
        try:
            split(container.image)
        except UnknownImageError as error:
            yield resource.describe(where, str(error))


def _immutable(old: Resource, new: Resource) -> Iterable[str]:
    if new.kind == "Pod" and _core(old) != _core(new):
        yield new.describe(("spec",), "a pod's spec can't be changed: delete the pod first")
    if new.kind in WORKLOADS and old.spec.selector != new.spec.selector:
        yield new.describe(("spec", "selector"), "the field is immutable: delete it first")


def _core(resource: Resource) -> dict[str, Any]:
    """Returns what an object is; of a pod its spec without the fields that the server adds."""
    if resource.kind != "Pod":
        return content(resource)
    spec = dict(resource.raw.get("spec", {}))
    for name in ("nodeName", "initContainers"):
        spec.pop(name, None)
    if spec.get("serviceAccountName") == "default":
        spec.pop("serviceAccountName")
    return spec


def objects(
    cluster: Cluster,
    kinds: Sequence[str],
    namespace: str | None,
    names: Sequence[str] = (),
    selector: str = "",
    field_selector: str = "",
) -> list[dict[str, Any]]:
    """Returns objects as the API server shows them, of all namespaces for None.

    Raises RefusedError for a kind, a selector or a name that doesn't exist.
    """
    matches = _matches(selector)
    try:
        fields = parse_fields(field_selector)
    except ValueError as error:
        raise RefusedError(str(error)) from None
    wanted = [n for name in kinds for n in (ALL if name == "all" else (name,))]
    found: list[dict[str, Any]] = []
    for kind in (kind_named(name, stored=False) for name in wanted):
        for name in (name for name, _, _ in fields if name not in _fields_of(kind)):
            raise RefusedError(
                f'Unable to find "{kind.group}/{kind.versions[0]}, Resource={kind.plural}" that '
                f'match label selector "{selector}", field selector "{field_selector}": '
                f"field label not supported: {name}"
            )
        shown = [
            item
            for item in _of_kind(cluster, kind, namespace)
            if matches(item["metadata"].get("labels") or {})
            and all((_field(item, name) == value) == so for name, so, value in fields)
        ]
        shown.sort(key=_by_name)
        if names:
            by_name = {item["metadata"]["name"]: item for item in shown}
            for name in names:
                if name not in by_name:
                    raise _not_found(kind, name)
            shown = [by_name[name] for name in names]
        found += shown
    return found


def _must_be_written(cluster: Cluster, kind: Kind, namespace: str, name: str) -> None:
    """Raises RefusedError about an object that the cluster makes by itself."""
    stored = (kind.kind, namespace if kind.namespaced else "", name) in cluster.store
    if kind.kind in ("Endpoints", "EndpointSlice") and not stored:
        raise RefusedError(f'{kind.plural} "{name}" is made by the lab itself')


_OWN_FIELDS = {
    "Pod": ("spec.nodeName", "status.phase"),
    "Event": (
        *(f"involvedObject.{name}" for name in ("kind", "namespace", "name")),
        *("reason", "reportingComponent", "source", "type"),
    ),
}
"""The fields besides its name that objects of a kind can be selected by."""


def _fields_of(kind: Kind) -> Sequence[str]:
    """Returns the fields that objects of a kind can be selected by."""
    own = _OWN_FIELDS.get(kind.kind, ())
    return ("metadata.name", *(("metadata.namespace",) if kind.namespaced else ()), *own)


def _field(item: dict[str, Any], path: str) -> str:
    value: Any = item
    for name in ("source.component" if path == "source" else path).split("."):
        value = value.get(name, "")
    return str(value)


def _by_name(item: dict[str, Any]) -> tuple[str, str]:
    """Returns the key to sort a list of objects by: namespace, then name."""
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]


def _not_found(kind: Kind, name: str) -> RefusedError:
    hint = _MESH if (kind.kind, name) == ("ConfigMap", "istio") else ""
    return RefusedError(f"{_named(kind, name)} not found{hint}", missing=True)


_MESH = (
    ": the lab keeps the mesh's configuration in IstioOperators; `install -f FILE` and "
    "`install --set meshConfig.FIELD=VALUE` change it, "
    "`get istiooperators -n istio-system -o yaml` shows it"
)


def _named(kind: Kind, name: str) -> str:
    return f'{kind.plural}{_group(kind)} "{name}"'


def _group(kind: Kind) -> str:
    return f".{kind.group}" if kind.group else ""


def _of_kind(cluster: Cluster, kind: Kind, namespace: str | None) -> Iterable[dict[str, Any]]:
    where = namespace if kind.namespaced else None
    made = derived.objects(cluster, kind, where)
    yield from made
    if kind.kind == "Pod":
        for runner in list(cluster.runners.values()):
            if where in (None, runner.model.namespace):
                record = cluster.store.get("Pod", *runner.key)
                yield kubectl_objects.pod(runner, record.uid if record else "-".join(runner.key))
        return
    # The cluster writes its own over Endpoints that are written for a Service with a selector.
    hidden = {(item["metadata"].get("namespace", ""), item["metadata"]["name"]) for item in made}
    for record in cluster.store.of(kind.kind, where):
        if (record.resource.namespace, record.resource.name) not in hidden:
            yield _shown(cluster, record)


def _shown(cluster: Cluster, record: Record) -> dict[str, Any]:
    resource = record.resource
    namespace, name = resource.namespace, resource.name
    if resource.kind in WORKLOADS:
        return kubectl_objects.workload(record, cluster.owned(resource.kind, namespace, name))
    if resource.kind == "Service" and (service := cluster.services.get(namespace, name)):
        node_port = cluster.services.node_port
        ports = {port.port: node_port(service, port.port) for port in service.ports}
        return kubectl_objects.service(record, service.cluster_ip, ports)
    if resource.kind == "PodDisruptionBudget":
        return kubectl_objects.plain(record) | {"status": derived.disruptions(cluster, record)}
    if resource.kind == "Namespace":
        return kubectl_objects.namespace(record, terminating=name in cluster.terminating)
    return kubectl_objects.plain(record)


async def delete(
    cluster: Cluster,
    kind: str,
    namespace: str | None,
    names: Sequence[str] = (),
    selector: str = "",
    *,
    wait: bool = True,
    grace: float | None = None,
    dry_run: bool = False,
) -> list[str]:
    """Deletes objects by name or by selector, and waits for Pods and Namespaces to end.

    Without a namespace those of all are meant. Returns them as kubectl prints them. Raises
    RefusedError, and then nothing was deleted.
    """
    found = kind_named(kind)
    shown = objects(cluster, [kind], namespace if found.namespaced else None, names, selector)
    chosen = [(item["metadata"].get("namespace", ""), item["metadata"]["name"]) for item in shown]
    given = {name for _, name in chosen}
    if found.kind == "Namespace" and (kept := [n for n in PROTECTED if n in given]):
        raise RefusedError(f'namespace "{kept[0]}" may not be deleted')
    if found.kind == "ServiceAccount" and "default" in given:
        raise RefusedError('serviceaccounts "default" can\'t be deleted')
    for where, name in chosen:
        _must_be_written(cluster, found, where, name)
    how = "force deleted" if grace == 0 and found.kind == "Pod" else "deleted"
    title = f"{found.kind.lower()}{_group(found)}"
    lines = [
        f'{title} "{name}" {how}' + (f" from {where} namespace" if where else "")
        for where, name in chosen
    ]
    if dry_run:
        return lines
    ends = []
    for where, name in chosen:
        if found.kind == "Namespace":
            ends.append(_delete_namespace(cluster, name, grace))
        elif found.kind == "Pod":
            if ("Pod", where, name) in cluster.store:
                cluster.store.delete(("Pod", where, name))
            ends.append(stop_pod(cluster, cluster.runners[where, name], grace))
        else:
            cluster.store.delete((found.kind, where, name))
    cluster.objects_changed()
    work = asyncio.gather(*ends)
    if wait:
        await work
    else:
        cluster.spawn(work)
    return lines


async def delete_files(
    cluster: Cluster,
    files: Iterable[tuple[str, str]],
    namespace: str | None = None,
    selector: str = "",
    **options: Any,
) -> dict[str, list[str]]:
    """Deletes the objects of manifests that a selector of labels selects.

    Returns them, and the errors about those not there.

    Raises ManifestError or RefusedError, and then nothing was deleted.
    """
    loaded = _selected(load.parse(files, namespace), selector)
    # A Namespace takes what is in it along, which then could not be found: so it goes last.
    resources = sorted(loaded.resources, key=lambda resource: resource.kind == "Namespace")
    await _delete_each(cluster, resources, {**options, "dry_run": True})
    return await _delete_each(cluster, resources, options)


async def _delete_each(
    cluster: Cluster, resources: Iterable[Resource], options: dict[str, Any]
) -> dict[str, list[str]]:
    deleted: list[str] = []
    missing: list[str] = []
    for resource in resources:
        try:
            kind, names = resource.kind, [resource.name]
            deleted += await delete(cluster, kind, resource.namespace, names, **options)
        except RefusedError as error:
            if not error.missing:
                raise
            missing.append(str(error))
    return {"deleted": deleted, "missing": missing}


async def _delete_namespace(cluster: Cluster, name: str, grace: float | None) -> None:
    cluster.terminating.add(name)
    for record in list(cluster.store.all()):
        if record.resource.namespace == name:
            cluster.store.delete(key(record.resource))
    runners = [runner for (where, _), runner in cluster.runners.items() if where == name]
    await asyncio.gather(*(stop_pod(cluster, runner, grace) for runner in runners))
    cluster.terminating.discard(name)
    cluster.events.forget(namespace=name)
    cluster.store.delete(("Namespace", "", name))
    cluster.objects_changed()


def change(
    cluster: Cluster,
    field: Literal["labels", "annotations"],
    kind: str,
    namespace: str,
    names: Sequence[str],
    values: dict[str, str | None],
    *,
    selector: str = "",
    overwrite: bool = False,
) -> list[str]:
    """Sets labels or annotations, and removes those that are None; returns the changed objects."""
    found = kind_named(kind)
    where = namespace if found.namespaced else ""
    shown = objects(cluster, [kind], where or None, names, selector)
    given = {name: value for name, value in values.items() if value is not None}
    for problem in label_problems(given, ()) if field == "labels" else ():
        raise RefusedError(problem.reason)
    done = []
    for item in shown:
        name = item["metadata"]["name"]
        _must_be_written(cluster, found, where, name)
        old = dict(item["metadata"].get(field) or {})
        for label, value in given.items():
            if old.get(label) not in (None, value) and not overwrite:
                raise RefusedError(
                    f"'{label}' already has a value ({old[label]}), and --overwrite is false"
                )
        new = {label: value for label, value in (old | values).items() if value is not None}
        changes: dict[str, Any] = {field: new}
        record = cluster.store.get(found.kind, where, name)
        if record is not None:
            cluster.store.update(dataclasses.replace(record.resource, **changes))
        if found.kind == "Pod":
            cluster.runners[where, name].update(**changes)
        done.append(f"{found.kind.lower()}{_group(found)}/{name}")
    cluster.objects_changed()
    return done


def _workload(cluster: Cluster, kind: str, namespace: str, name: str) -> Resource:
    found = kind_named(kind)
    record = cluster.store.get(found.kind, namespace, name)
    if found.kind not in WORKLOADS:
        raise RefusedError(f"{found.plural} have no replicas")
    if record is None:
        raise _not_found(found, name)
    return record.resource


def scale(cluster: Cluster, kind: str, namespace: str, name: str, replicas: int) -> None:
    """Changes how many pods a Deployment or a StatefulSet has."""
    if replicas < 0:
        raise RefusedError("--replicas must not be negative")
    resource = _workload(cluster, kind, namespace, name)
    _replace(cluster, resource, resource.raw["spec"] | {"replicas": replicas})


def restart(cluster: Cluster, kind: str, namespace: str, name: str) -> None:
    """Rolls all pods by an annotation on the template, as kubectl does."""
    resource = _workload(cluster, kind, namespace, name)
    spec = resource.raw["spec"]
    metadata = dict(spec["template"].get("metadata", {}))
    metadata["annotations"] = (metadata.get("annotations") or {}) | {
        RESTARTED: f"{now()}#{cluster.revision}"
    }
    template = spec["template"] | {"metadata": metadata}
    _replace(cluster, resource, spec | {"template": template})


def undo(
    cluster: Cluster,
    kind: str,
    namespace: str,
    name: str,
    revision: int = 0,
    *,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Brings back the template of a revision, by default of the one before the present.

    Returns the outcome in kubectl's words, and that template.
    """
    if (found_kind := kind_named(kind)).kind not in WORKLOADS:
        raise RefusedError(f'no rollbacker has been implemented for "{found_kind.kind}"')
    resource = _workload(cluster, kind, namespace, name)
    present = template_hash(resource)
    known = cluster.revisions.get(key(resource), [])
    others = [one for one in known if one.hash != present]
    if not revision and not others:
        raise RefusedError(
            f'no rollout history found for deployment "{name}"'
            if resource.kind == "Deployment"
            else "no last revision to roll back to"
        )
    found = [one for one in known if one.number == revision] if revision else others[-1:]
    if not found:
        raise RefusedError(f"unable to find specified revision {revision} in history")
    chosen = found[0]
    answer = {"done": "rolled back", "template": chosen.template}
    if chosen.hash == present:
        skipped = f"skipped rollback (current template already matches revision {revision})"
        return answer | {"done": skipped}
    if dry_run:
        return answer
    notes = {k: v for k, v in resource.annotations.items() if k != CAUSE}
    notes |= {CAUSE: chosen.cause} if chosen.cause else {}
    spec = resource.raw["spec"] | {"template": chosen.template}
    _replace(cluster, dataclasses.replace(resource, annotations=notes), spec)
    return answer


def history(cluster: Cluster, kind: str, namespace: str, name: str) -> list[dict[str, Any]]:
    """Returns the templates that a workload had, oldest first."""
    resource = _workload(cluster, kind, namespace, name)
    return [
        {"revision": one.number, "cause": one.cause, "template": one.template}
        for one in cluster.revisions.get(key(resource), ())
    ]


def _replace(cluster: Cluster, resource: Resource, spec: dict[str, Any]) -> None:
    kind = kind_named(resource.kind.lower())
    raw = document(resource) | {"spec": spec}
    body = kind.body.model_validate({"spec": spec})
    cluster.store.update(dataclasses.replace(resource, raw=raw, body=body))
    cluster.objects_changed()


def images(cluster: Cluster, own: dict[str, list[str] | None]) -> list[tuple[str, bool, str]]:
    """Gives images a program of this machine, or takes it away for None.

    Returns each image with whether its program is the user's, and the command line.
    """
    known = {name: list(words) for name, words in programs.own().items()}
    for name, words in own.items():
        if ":" in name.rpartition("/")[2] or name.count("/") > 1 or "@" in name:
            raise RefusedError(f'"{name}": an image is named without its registry and its tag')
        if words is None and name not in known:
            raise RefusedError(f'no program of your own plays "{name}"', missing=True)
        if words is not None and shutil.which(words[0]) is None:
            raise RefusedError(f'"{words[0]}" is no program on the PATH of the lab')
        if words is None:
            del known[name]
        else:
            known[name] = words
    if own:
        write_atomically(cluster.state.images, json.dumps(known, indent=1).encode())
        programs.play(known)
    return [(name, name in known, shlex.join(words)) for name, words in programs.images().items()]
