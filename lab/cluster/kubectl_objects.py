"""Objects as the API server shows them: the manifest, its metadata, and `status`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lab.cluster.container import ContainerRunner, Status
from lab.cluster.pod import PodRunner
from lab.cluster.programs import SIDECAR
from lab.cluster.rollout import template_hash
from lab.cluster.store import Record, content, document
from lab.names import PROXY

Json = dict[str, Any]


def plain(record: Record) -> Json:
    """Returns an object without a status of its own."""
    shown = document(record.resource)
    shown["metadata"] |= {
        "uid": record.uid,
        "creationTimestamp": record.created,
        "generation": record.generation,
    }
    return shown


def pod(runner: PodRunner, uid: str) -> Json:
    """Returns a pod with the states of its containers."""
    model = runner.model
    metadata: Json = {
        "name": model.name,
        "namespace": model.namespace,
        "labels": dict(model.labels),
        "annotations": dict(model.annotations),
        "uid": uid,
        "creationTimestamp": runner.created_at,
    }
    if runner.deleted_at:
        metadata["deletionTimestamp"] = runner.deleted_at
    if runner.owner is not None:
        kind, name = runner.owner
        if kind == "Deployment":
            kind, name = "ReplicaSet", f"{name}-{runner.template}"
        owner = {"apiVersion": "apps/v1", "kind": kind, "name": name, "controller": True}
        metadata["ownerReferences"] = [owner]
    spec = dict(content(runner.resource).get("spec", {}))
    if model.proxy == "sidecar":
        spec["initContainers"] = [SIDECAR]
    spec.setdefault("serviceAccountName", model.service_account)
    spec["nodeName"] = "lab"
    since = {"lastTransitionTime": runner.ready_since} if runner.ready_since else {}
    applications = [_container(r) for n, r in runner.runners.items() if _shown(runner, n)]
    status: Json = {
        "phase": runner.phase,
        "podIP": model.address,
        "podIPs": [{"ip": model.address}],
        "hostIP": "127.0.0.1",
        "startTime": runner.created_at,
        "conditions": [
            {"type": "PodScheduled", "status": "True"},
            {"type": "Ready", "status": str(model.ready)} | since,
            {"type": "ContainersReady", "status": str(model.ready)},
        ],
        "containerStatuses": applications,
    }
    if model.proxy == "sidecar" and PROXY in runner.runners:
        status["initContainerStatuses"] = [_container(runner.runners[PROXY])]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": spec,
        "status": status,
    }


def _shown(runner: PodRunner, name: str) -> bool:
    return name != PROXY or runner.model.proxy == "gateway"


def _container(runner: ContainerRunner) -> Json:
    shown: Json = {
        "name": runner.spec.name,
        "image": runner.spec.image,
        "ready": runner.ready,
        "started": runner.started,
        "restartCount": runner.restarts,
        "state": _state(runner.status),
    }
    if runner.last is not None and runner.restarts:
        shown["lastState"] = _state(runner.last)
    if runner.pid is not None:
        shown["containerID"] = f"process://{runner.pid}"
    return shown


def _state(status: Status) -> Json:
    if status.state == "running":
        return {"running": {"startedAt": status.started_at}}
    if status.state == "waiting":
        waiting = {"reason": status.reason}
        return {"waiting": waiting | ({"message": status.message} if status.message else {})}
    ended: Json = {"exitCode": status.exit_code, "reason": status.reason}
    if status.message:
        ended["message"] = status.message
    if status.started_at:
        ended["startedAt"] = status.started_at
    ended["finishedAt"] = status.finished_at
    return {"terminated": ended}


def workload(record: Record, pods: Sequence[PodRunner]) -> Json:
    """Returns a Deployment or a StatefulSet with the counts of its pods."""
    shown = plain(record)
    template = template_hash(record.resource)
    alive = [pod for pod in pods if not pod.terminating]
    ready = sum(pod.model.ready for pod in alive)
    wanted = record.resource.spec.replicas
    updated = sum(pod.template == template for pod in alive)
    available = ready >= wanted
    shown["status"] = {
        "observedGeneration": record.generation,
        "replicas": len(alive),
        "updatedReplicas": updated,
        "readyReplicas": ready,
        "availableReplicas": ready,
        "unavailableReplicas": max(0, wanted - ready),
    }
    if record.resource.kind == "Deployment":
        enough = f"MinimumReplicas{'Available' if available else 'Unavailable'}"
        complete = updated == len(alive) == wanted and available
        progress = "NewReplicaSetAvailable" if complete else "ReplicaSetUpdated"
        shown["status"]["conditions"] = [
            {"type": "Available", "status": str(available), "reason": enough},
            {"type": "Progressing", "status": "True", "reason": progress},
        ]
    else:
        newest = f"{record.resource.name}-{template}"
        others = [f"{record.resource.name}-{p.template}" for p in alive if p.template != template]
        shown["status"] |= {"updateRevision": newest, "currentRevision": (others or [newest])[0]}
    return shown


def service(record: Record, cluster_ip: str | None, node_ports: Mapping[int, int | None]) -> Json:
    """Returns a Service with its address and its node ports, by its ports."""
    shown = plain(record)
    spec = dict(shown["spec"])
    spec.setdefault("type", "ClusterIP")
    if spec["type"] != "ExternalName":
        spec.setdefault("clusterIP", cluster_ip or "None")
    if "ports" in spec:
        spec["ports"] = [
            {**port, "nodePort": number} if (number := node_ports.get(port["port"])) else port
            for port in spec["ports"]
        ]
    shown["spec"] = spec
    shown["status"] = {"loadBalancer": {}}
    return shown


def namespace(record: Record, *, terminating: bool) -> Json:
    """Returns a Namespace with its phase."""
    shown = plain(record)
    shown["status"] = {"phase": "Terminating" if terminating else "Active"}
    return shown
