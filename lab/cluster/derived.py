"""Objects that a cluster makes by itself: ReplicaSets, endpoints, nodes, claims, accounts, events.

They are shown and not stored: each is worked out from the pods and the objects there are. Of some
kinds others are written by people.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from lab.cluster.pod import PodRunner
from lab.cluster.rollout import template_hash
from lab.cluster.running import Cluster
from lab.cluster.store import Record, key
from lab.kinds.kubernetes.endpoints import MANAGED_BY, SERVICE_NAME
from lab.kinds.kubernetes.kept_only import Declared
from lab.kinds.services import resolve_port, selected
from lab.model import Service
from lab.names import selects
from lab.resources.resource import Kind

Json = dict[str, Any]


def find(name: str) -> Kind | None:
    """Returns the kind of that name (`rs`) of which all objects are derived."""
    wanted = name.lower().removesuffix(".apps")
    return next((kind for kind in KINDS if wanted in kind.names), None)


def objects(cluster: Cluster, kind: Kind, namespace: str | None) -> list[Json]:
    """Returns the derived objects of a kind, if it has any, of all namespaces for None."""
    made = _MADE_BY.get(kind.kind)
    return [
        item
        for item in (made(cluster) if made is not None else ())
        if not kind.namespaced or namespace in (None, item["metadata"]["namespace"])
    ]


def _accounts(cluster: Cluster) -> Iterator[Json]:
    """Yields the account `default` of each namespace that has no other of that name."""
    for record in cluster.store.of("Namespace"):
        name = record.resource.name
        if ("ServiceAccount", name, "default") not in cluster.store:
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


def _pods(cluster: Cluster, service: Service) -> Iterator[tuple[PodRunner, Json]]:
    """Yields the pods of a Service, the ready ones first, each with what refers to it."""
    runners = sorted(cluster.runners.values(), key=lambda runner: runner.model.name)
    for runner in sorted(runners, key=lambda runner: not runner.model.ready):
        pod = runner.model
        if selected(service, pod):
            own = {"hostname": pod.host_name} if pod.subdomain == service.name else {}
            target = {"kind": "Pod", "name": pod.name, "namespace": pod.namespace}
            yield runner, {**own, "targetRef": target, "nodeName": "lab"}


def _endpoints(cluster: Cluster) -> Iterator[Json]:
    for record, service in _services(cluster):
        subsets = []
        for port in service.ports:
            subset: Json = {}
            for runner, shown in _pods(cluster, service):
                number = resolve_port(runner.model, port.target_port)
                if number is not None:
                    ports = [{"name": port.name, "port": number, "protocol": "TCP"}]
                    subset.setdefault("ports", ports)
                    field = "addresses" if runner.model.ready else "notReadyAddresses"
                    subset.setdefault(field, []).append({"ip": runner.model.address, **shown})
            subsets += [subset] if subset else []
        where, name = service.namespace, service.name
        made = _object("v1", "Endpoints", where, name, record.created, subsets=subsets)
        own = {MANAGED_BY["Endpoints"]: "endpoint-controller"}
        made["metadata"]["labels"] = {**record.resource.labels, **_headless(service), **own}
        yield made


def _headless(service: Service) -> dict[str, str]:
    mirrored = not service.selector  # Its slices are another controller's, without this label.
    return {} if service.cluster_ip or mirrored else {"service.kubernetes.io/headless": ""}


def _slices(cluster: Cluster) -> Iterator[Json]:
    for record, service in _services(cluster):
        pods = list(_pods(cluster, service))
        endpoints = [
            {
                "addresses": [runner.model.address],
                "conditions": {"ready": runner.model.ready},
                **shown,
            }
            for runner, shown in pods
        ]
        ports = [
            {"name": port.name, "protocol": "TCP", "port": number}
            for port in service.ports
            if pods and (number := resolve_port(pods[0][0].model, port.target_port)) is not None
        ]
        yield _slice(record, service, "endpointslice", "", endpoints, ports)
    for record in cluster.store.of("Endpoints"):
        yield from _mirrored(cluster, record)


def _mirrored(cluster: Cluster, record: Record) -> Iterator[Json]:
    """Yields the EndpointSlices of the Endpoints of a Service without a selector."""
    resource = record.resource
    service = cluster.services.get(resource.namespace, resource.name)
    if service is None or service.selector:
        return
    for index, subset in enumerate(resource.raw.get("subsets", ())):
        endpoints = [
            {"addresses": [ip], "conditions": {"ready": ready}, **rest}
            for ready, field in ((True, "addresses"), (False, "notReadyAddresses"))
            for address in subset.get(field, ())
            for ip, rest in [(address["ip"], {k: v for k, v in address.items() if k != "ip"})]
        ]
        ports = [{"name": "", "protocol": "TCP", **port} for port in subset.get("ports", ())]
        suffix = f"-{index}" if index else ""
        yield _slice(record, service, "endpointslicemirroring", suffix, endpoints, ports)


def _slice(
    record: Record,
    service: Service,
    controller: str,
    suffix: str,
    endpoints: list[Json],
    ports: list[Json],
) -> Json:
    found = _object(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        record.resource.namespace,
        f"{service.name}-{record.uid[:5]}{suffix}",
        record.created,
        addressType="IPv4",
        endpoints=endpoints,
        ports=ports,
    )
    manager = f"{controller}-controller.k8s.io"
    own = {MANAGED_BY["EndpointSlice"]: manager, SERVICE_NAME: service.name}
    # Those of the Service, or of the Endpoints that are mirrored.
    labels = {**record.resource.labels, **_headless(service), **own}
    found["metadata"]["labels"] = labels
    return found


def _services(cluster: Cluster) -> Iterator[tuple[Record, Service]]:
    """Yields the Services of which the cluster finds the endpoints."""
    for record in cluster.store.of("Service"):
        service = cluster.services.get(record.resource.namespace, record.resource.name)
        if service is not None and service.selector:
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


_SOURCES = {
    "Pod": "kubelet",
    "Deployment": "deployment-controller",
    "StatefulSet": "statefulset-controller",
}
"""The component that a cluster's event about an object of a kind mostly comes from."""


def _events(cluster: Cluster) -> Iterator[Json]:
    for event in cluster.events.all():
        place = {"namespace": event.namespace} if event.namespace else {}
        source = _SOURCES.get(event.kind, "lab")
        # Those about objects without a namespace are in `default`.
        yield _object(
            "v1",
            "Event",
            event.namespace or "default",
            f"{event.name}.{event.suffix}",
            event.first,
            involvedObject={"kind": event.kind, **place, "name": event.name},
            reason=event.reason,
            message=event.message,
            source={"component": source},
            reportingComponent=source,
            type=event.type,
            count=event.count,
            firstTimestamp=event.first,
            lastTimestamp=event.last,
        )


_MADE_BY: dict[str, Callable[[Cluster], Iterable[Json]]] = {
    "ReplicaSet": _replica_sets,
    "Endpoints": _endpoints,
    "EndpointSlice": _slices,
    "Node": _nodes,
    "PersistentVolumeClaim": _claims,
    "ServiceAccount": _accounts,
    "Event": _events,
}

KINDS: tuple[Kind, ...] = (
    Kind("apps", "ReplicaSet", "replicasets", ("v1",), Declared, ("rs",)),
    Kind("", "Node", "nodes", ("v1",), Declared, ("no",), namespaced=False),
    Kind("", "PersistentVolumeClaim", "persistentvolumeclaims", ("v1",), Declared, ("pvc",)),
    Kind("", "Event", "events", ("v1",), Declared, ("ev",)),
)
