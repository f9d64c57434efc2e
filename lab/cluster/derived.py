"""Objects that a cluster makes by itself: ReplicaSets, endpoints, the node, claims, accounts.

They are shown and not stored: each is worked out from the pods and the objects there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from lab.cluster.pod import PodRunner
from lab.cluster.rollout import template_hash
from lab.cluster.running import Cluster
from lab.cluster.store import Record, key
from lab.kinds.kubernetes.kept_only import Declared
from lab.kinds.services import resolve_port, selected
from lab.model import Service
from lab.names import selects
from lab.resources.resource import Kind

Json = dict[str, Any]


def find(name: str) -> Kind | None:
    """Returns the derived kind of that name (`rs`, `endpointslices`)."""
    wanted = name.lower().removesuffix(".apps").removesuffix(".discovery.k8s.io")
    return next((kind for kind in KINDS if wanted in _spellings(kind)), None)


def _spellings(kind: Kind) -> tuple[str, ...]:
    return (kind.plural, kind.kind.lower(), *kind.short_names)


def objects(cluster: Cluster, kind: Kind, namespace: str | None) -> list[Json]:
    """Returns the objects of a derived kind, of all namespaces for None."""
    return [
        item
        for item in _MADE_BY[kind.kind](cluster)
        if not kind.namespaced or namespace in (None, item["metadata"]["namespace"])
    ]


def accounts(cluster: Cluster, namespace: str | None) -> Iterator[Json]:
    """Yields the account `default` of each namespace that has no other of that name."""
    for record in cluster.store.of("Namespace"):
        name = record.resource.name
        if namespace in (None, name) and ("ServiceAccount", name, "default") not in cluster.store:
            yield _object("v1", "ServiceAccount", name, "default", record.created)


def disruptions(cluster: Cluster, record: Record) -> Json:
    """Returns the status of a PodDisruptionBudget."""
    spec = record.resource.spec
    labels = spec.get("selector", {}).get("matchLabels", {})
    pods = [
        runner.model
        for runner in cluster.runners.values()
        if runner.model.namespace == record.resource.namespace
        and not runner.terminating
        and selects(labels, runner.model.labels)
    ]
    healthy, expected = sum(pod.ready for pod in pods), len(pods)
    if "maxUnavailable" in spec:
        desired = expected - _share(spec["maxUnavailable"], expected)
    else:
        desired = _share(spec.get("minAvailable", 1), expected)
    return {
        "currentHealthy": healthy,
        "desiredHealthy": desired,
        "expectedPods": expected,
        "disruptionsAllowed": max(0, healthy - desired),
    }


def _share(value: int | str, of: int) -> int:
    """Returns a number of pods; of a percentage the next whole one."""
    return -(-int(value.rstrip("%")) * of // 100) if isinstance(value, str) else value


def _object(version: str, kind: str, namespace: str, name: str, created: str, **body: Any) -> Json:
    place = {"namespace": namespace} if namespace else {}
    metadata = {"name": name, **place, "creationTimestamp": created}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **body}


def _replica_sets(cluster: Cluster) -> Iterator[Json]:
    """Yields the ReplicaSet of each Deployment's template, and those that still have pods."""
    for record in cluster.store.of("Deployment"):
        resource = record.resource
        pods = cluster.owned("Deployment", resource.namespace, resource.name)
        current = template_hash(resource)
        known = {one.hash: one.template for one in cluster.revisions.get(key(resource), ())}
        for template in sorted({current, *(pod.template for pod in pods)}):
            own = [pod for pod in pods if pod.template == template and not pod.terminating]
            raw = known.get(template, resource.raw["spec"]["template"])
            labels = {**raw["metadata"]["labels"], "pod-template-hash": template}
            found = _object(
                "apps/v1",
                "ReplicaSet",
                resource.namespace,
                f"{resource.name}-{template}",
                min((pod.created_at for pod in own), default=record.created),
                spec={
                    "replicas": resource.spec.replicas if template == current else len(own),
                    "selector": {"matchLabels": labels},
                    "template": {**raw, "metadata": {**raw.get("metadata", {}), "labels": labels}},
                },
                status={
                    "replicas": len(own),
                    "readyReplicas": sum(pod.model.ready for pod in own),
                },
            )
            owner = {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "name": resource.name,
                "controller": True,
            }
            found["metadata"] |= {"labels": labels, "ownerReferences": [owner]}
            yield found


def _addresses(cluster: Cluster, service: Service, *, ready: bool) -> Iterator[PodRunner]:
    for runner in sorted(cluster.runners.values(), key=lambda runner: runner.model.name):
        if selected(service, runner.model) and runner.model.ready == ready:
            yield runner


def _endpoints(cluster: Cluster) -> Iterator[Json]:
    for record, service in _services(cluster):
        subsets = []
        for port in service.ports:
            places: dict[bool, list[Json]] = {True: [], False: []}
            number = None
            for ready in (True, False):
                for runner in _addresses(cluster, service, ready=ready):
                    number = resolve_port(runner.model, port.target_port) or number
                    target = {"kind": "Pod", "name": runner.model.name}
                    places[ready].append({"ip": runner.model.address, "targetRef": target})
            if number is not None:
                subset: Json = {"ports": [{"name": port.name, "port": number, "protocol": "TCP"}]}
                subset |= {"addresses": places[True]} if places[True] else {}
                subset |= {"notReadyAddresses": places[False]} if places[False] else {}
                subsets.append(subset)
        where, name = service.namespace, service.name
        yield _object("v1", "Endpoints", where, name, record.created, subsets=subsets)


def _slices(cluster: Cluster) -> Iterator[Json]:
    for record, service in _services(cluster):
        endpoints = [
            {
                "addresses": [runner.model.address],
                "conditions": {"ready": ready},
                "targetRef": {"kind": "Pod", "name": runner.model.name},
                "nodeName": "lab",
            }
            for ready in (True, False)
            for runner in _addresses(cluster, service, ready=ready)
        ]
        first = next(iter(_addresses(cluster, service, ready=True)), None)
        ports = [
            {"name": port.name, "protocol": "TCP", "port": number}
            for port in service.ports
            if first is not None
            and (number := resolve_port(first.model, port.target_port)) is not None
        ]
        found = _object(
            "discovery.k8s.io/v1",
            "EndpointSlice",
            service.namespace,
            f"{service.name}-{record.uid[:5]}",
            record.created,
            addressType="IPv4",
            endpoints=endpoints,
            ports=ports,
        )
        found["metadata"]["labels"] = {"kubernetes.io/service-name": service.name}
        yield found


def _services(cluster: Cluster) -> Iterator[tuple[Record, Service]]:
    for record in cluster.store.of("Service"):
        service = cluster.services.get(record.resource.namespace, record.resource.name)
        if service is not None:
            yield record, service


def _nodes(cluster: Cluster) -> Iterator[Json]:
    first = cluster.store.get("Namespace", "", "default")
    created = first.created if first is not None else ""
    found = _object("v1", "Node", "", "lab", created)
    ready = {"type": "Ready", "status": "True"}
    addresses = [{"type": "InternalIP", "address": "127.0.0.1"}]
    yield found | {"status": {"conditions": [ready], "addresses": addresses}}


def _claims(cluster: Cluster) -> Iterator[Json]:
    """Yields the PersistentVolumeClaims of the StatefulSets' pods."""
    for record in cluster.store.of("StatefulSet"):
        resource = record.resource
        for claim in resource.spec.volume_claim_templates:
            for ordinal in range(resource.spec.replicas):
                name = f"{claim.metadata.name}-{resource.name}-{ordinal}"
                spec = {"volumeName": name, "accessModes": ["ReadWriteOnce"]}
                status = {"phase": "Bound", "accessModes": ["ReadWriteOnce"]}
                body = {"spec": spec, "status": status}
                where = resource.namespace
                yield _object("v1", "PersistentVolumeClaim", where, name, record.created, **body)


_MADE_BY: dict[str, Callable[[Cluster], Iterable[Json]]] = {
    "ReplicaSet": _replica_sets,
    "Endpoints": _endpoints,
    "EndpointSlice": _slices,
    "Node": _nodes,
    "PersistentVolumeClaim": _claims,
}

KINDS: tuple[Kind, ...] = (
    Kind("apps", "ReplicaSet", "replicasets", ("v1",), Declared, ("rs",)),
    Kind("", "Endpoints", "endpoints", ("v1",), Declared, ("ep",)),
    Kind("discovery.k8s.io", "EndpointSlice", "endpointslices", ("v1",), Declared),
    Kind("", "Node", "nodes", ("v1",), Declared, ("no",), namespaced=False),
    Kind("", "PersistentVolumeClaim", "persistentvolumeclaims", ("v1",), Declared, ("pvc",)),
)
