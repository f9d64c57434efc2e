"""Controllers: from Deployments, StatefulSets and Pods to pods that run."""

from __future__ import annotations

import os
from collections.abc import Sequence

from lab.cluster import injection, rollout
from lab.cluster.events import Event
from lab.cluster.pod import Owner, PodRunner
from lab.cluster.running import Cluster, Revision
from lab.cluster.store import Record, key
from lab.kinds.kubernetes import service as service_kind
from lab.kinds.kubernetes.core import Pod as PodBody
from lab.model import Pod
from lab.resources.resource import Resource, Source

REVISIONS = 11
"""Templates of a workload that are kept, the present one among them, as Kubernetes keeps them."""

WORKLOADS = ("StatefulSet", "Deployment")

HEAD_START = 3.0
"""Most seconds by which the first pod of a workload is ahead of the others, in a crowd."""

CROWD = 2
"""Pods that start at once, for each core of the machine, before it is a crowd."""


def workloads(cluster: Cluster) -> list[Record]:
    """Returns the workloads that have pods here: without a mesh a gateway has none."""
    return [
        record
        for kind in WORKLOADS
        for record in cluster.store.of(kind)
        if cluster.mesh is not None or not injection.is_gateway(record.resource.spec.template.spec)
    ]


def reconcile(cluster: Cluster) -> None:
    """Takes one step from the pods there are to those that the objects ask for."""
    for record in cluster.store.of("Pod"):
        resource = record.resource
        if (resource.namespace, resource.name) not in cluster.runners:
            _create(cluster, resource, None, "")
    for record in workloads(cluster):
        _reconcile_workload(cluster, record.resource)
    for runner in list(cluster.runners.values()):
        kind, name = runner.owner or ("Pod", runner.model.name)
        if (kind, runner.model.namespace, name) not in cluster.store:
            _stop(cluster, runner)


async def stop_pod(cluster: Cluster, runner: PodRunner, grace: float | None = None) -> None:
    """Ends a pod, releases its address and removes its logs."""
    await runner.stop(grace=grace)
    if cluster.runners.get(runner.key) is runner:
        del cluster.runners[runner.key]
        cluster.network.detach(runner.model)
        runner.remove_logs()
    cluster.changed()


def _reconcile_workload(cluster: Cluster, resource: Resource) -> None:
    template = rollout.template_hash(resource)
    _note_revision(cluster, resource, template)
    replicas = [
        rollout.Replica(p.model.name, p.template, p.model.ready, p.terminating, p.created)
        for p in cluster.owned(resource.kind, resource.namespace, resource.name)
    ]
    if resource.kind == "Deployment":
        step = rollout.deployment_step(resource.spec, template, replicas)
        names = [f"{resource.name}-{template}-{rollout.suffix()}" for _ in range(step.create)]
        delete = step.delete
    else:
        ordinals, delete = rollout.stateful_set_step(resource.spec, template, replicas)
        names = [f"{resource.name}-{ordinal}" for ordinal in ordinals]
    for name in delete:
        _stop(cluster, cluster.runners[resource.namespace, name])
    for name in names:
        owner = (resource.kind, resource.name)
        _create(cluster, _from_template(resource, name, template), owner, template)


def _note_revision(cluster: Cluster, resource: Resource, template: str) -> None:
    """Adds the present template to a workload's revisions; one that comes back is the newest."""
    known = cluster.revisions.setdefault(key(resource), [])
    if known and known[-1].hash == template:
        return
    number = known[-1].number + 1 if known else 1
    cause = str(resource.annotations.get(rollout.CAUSE, ""))
    kept = [one for one in known if one.hash != template]
    newest = Revision(number, template, resource.raw["spec"]["template"], cause)
    cluster.revisions[key(resource)] = [*kept, newest][-REVISIONS:]


def _create(cluster: Cluster, resource: Resource, owner: Owner | None, template: str) -> None:
    namespace = resource.namespace
    account = resource.spec.service_account_name
    if account != "default" and ("ServiceAccount", namespace, account) not in cluster.store:
        kind, name = owner or ("Pod", resource.name)
        message = f'serviceaccount "{account}" not found in namespace "{namespace}"'
        cluster.events.add(Event(kind, namespace, name, "Warning", "FailedCreate", message))
        return
    proxy = _proxy(cluster, resource)
    address, inside_address = cluster.network.attach(proxy)
    model = Pod(
        namespace=namespace,
        name=resource.name,
        labels=resource.labels,
        annotations=resource.annotations,
        service_account=account,
        address=address,
        inside_address=inside_address,
        ports=service_kind.container_ports(resource.spec),
        ready=False,
        proxy=proxy,
        host_name=resource.spec.hostname or "",
        subdomain=resource.spec.subdomain or "",
    )
    runner = PodRunner(resource, model, cluster, owner, template)
    others = [] if owner is None else cluster.owned(owner[0], namespace, owner[1])
    cluster.runners[runner.key] = runner
    cluster.events.forget(namespace, resource.name)
    runner.report("Normal", "Scheduled", f"Assigned {namespace}/{resource.name} to lab")
    ahead = [other for other in others if not other.terminating]
    cluster.spawn(_start(cluster, runner, ahead))
    cluster.changed()


async def _start(cluster: Cluster, runner: PodRunner, ahead: Sequence[PodRunner]) -> None:
    """Starts a pod; where many start at once, when one of its workload serves, or HEAD_START later.

    A page needs one pod of each, and few cores give it sooner.
    """

    def turn() -> bool:
        starting = sum(not each.model.ready for each in cluster.runners.values())
        crowd = starting > CROWD * (os.cpu_count() or 1)
        return not crowd or any(other.model.ready for other in ahead)

    if ahead:
        await cluster.until(turn, HEAD_START)
    if not runner.terminating:
        runner.start()


def _proxy(cluster: Cluster, resource: Resource) -> injection.Proxy:
    if cluster.mesh is None:
        return "none"
    namespace = cluster.store.get("Namespace", "", resource.namespace)
    injected = namespace is not None and injection.injects(namespace.resource.labels)
    return injection.proxy(resource.labels, resource.annotations, resource.spec, injected=injected)


def _stop(cluster: Cluster, runner: PodRunner) -> None:
    if not runner.terminating:
        runner.report("Normal", "Killing", f"Stopping pod {runner.model.name}")
        cluster.spawn(stop_pod(cluster, runner))


def _from_template(resource: Resource, name: str, template: str) -> Resource:
    """Returns the Pod that a workload's template describes, with the controller's labels."""
    spec = resource.spec
    labels = dict(spec.template.metadata.labels)
    raw = dict(resource.raw["spec"]["template"]["spec"])
    pod_spec = spec.template.spec
    if resource.kind == "Deployment":
        labels["pod-template-hash"] = template
    else:
        labels["statefulset.kubernetes.io/pod-name"] = name
        labels["controller-revision-hash"] = f"{resource.name}-{template}"
        claims = [
            {"name": claim, "persistentVolumeClaim": {"claimName": f"{claim}-{name}"}}
            for claim in (item.metadata.name for item in spec.volume_claim_templates)
        ]
        raw["volumes"] = [*raw.get("volumes", []), *claims]
        raw["hostname"] = name
        if spec.service_name:
            raw["subdomain"] = spec.service_name
        pod_spec = type(pod_spec).model_validate(raw)
    return Resource(
        api_version="v1",
        kind="Pod",
        namespace=resource.namespace,
        name=name,
        body=PodBody.model_construct(spec=pod_spec),
        source=Source(resource.source.file, resource.source.line),
        labels=labels,
        annotations=dict(spec.template.metadata.annotations),
        raw={"spec": raw},
    )
