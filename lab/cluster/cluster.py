"""The cluster: objects, controllers, pods and Services, kept in agreement (the control plane)."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx

from lab.cluster import forwarder, injection, rollout
from lab.cluster.addresses import NoAddressesError, Slice, bindable
from lab.cluster.environment import Lookup, Resolve
from lab.cluster.events import Event, Events, now
from lab.cluster.pod import PodRunner, Proxies, World
from lab.cluster.programs import UnknownImageError, split
from lab.cluster.state import State
from lab.cluster.store import Record, Store
from lab.kinds.kubernetes import service as service_kind
from lab.kinds.kubernetes.core import Pod as PodBody
from lab.kinds.services import endpoints as endpoints_of
from lab.kinds.services import resolve_port, selected
from lab.model import Pod, Service, Snapshot
from lab.resources.resource import Resource, Source


class Mesh(Proxies, Protocol):
    """The mesh's control plane, as the cluster needs it."""

    async def push(self, snapshot: Snapshot, runners: Mapping[Key, PodRunner]) -> list[str]:
        """Give every proxy its configuration; returns what a proxy refused."""
        ...

    def mesh_config(self, operators: Sequence[Resource]) -> dict[str, Any]:
        """The meshConfig that the applied IstioOperators amount to."""
        ...

    def warnings(self, resources: Sequence[Resource]) -> list[str]:
        """What to say about resources that were applied."""
        ...

    def key_warnings(self, resources: Sequence[Resource]) -> list[str]:
        """Returns a warning for each key set of theirs that could not be fetched."""
        ...


Key = tuple[str, str]
"""Namespace and name."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a lab is run."""

    http_port: int
    https_port: int
    overrides: Callable[[Mapping[str, str]], Mapping[str, str]]


@dataclass(slots=True)
class Cluster:
    """One lab's control plane. Everything runs on one event loop; `changed` asks for a round."""

    state: State
    addresses: Slice
    options: Options
    client: httpx.AsyncClient
    events: Events = field(default_factory=Events)
    store: Store = field(init=False)
    runners: dict[tuple[str, str], PodRunner] = field(default_factory=dict)
    terminating: set[str] = field(default_factory=set)
    revision: int = 0
    mesh: Mesh | None = None
    """None for plain pods without proxies."""
    pushed: int = -1
    """The revision that the proxies have."""
    rejected: list[str] = field(default_factory=list)
    """What proxies refused in the last push."""
    problem: str = ""
    """What went wrong in the last round, for `status`."""
    _cluster_ips: dict[tuple[str, str], str] = field(default_factory=dict)
    _listeners: dict[tuple[str, int], asyncio.Server] = field(default_factory=dict)
    _dirty: asyncio.Event = field(default_factory=asyncio.Event)
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    _stopped: bool = False

    def __post_init__(self) -> None:
        self.store = Store(self.state.resources)

    # --- what others ask -----------------------------------------------------------------------

    def changed(self) -> None:
        """Something is different: bring the pods and the proxies in agreement, tell watchers."""
        self.revision += 1
        self._dirty.set()

    def objects_changed(self) -> None:
        """Objects were applied or deleted: containers that wait for one look again."""
        for runner in self.runners.values():
            runner.wake()
        self.changed()

    async def wait_for_change(self, since: int, timeout: float) -> None:
        """Return when there is a newer revision than `since`, or after `timeout` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout), self._news:
                await self._news.wait_for(lambda: self.revision > since)

    def services(self) -> tuple[Service, ...]:
        return tuple(
            service_kind.service(
                record.resource, self.cluster_ip(record.resource.namespace, record.resource.name)
            )
            for record in self.store.of("Service")
        )

    def cluster_ip(self, namespace: str, name: str) -> str | None:
        """Returns a Service's virtual address; None for a headless one, and before it has one."""
        service = self.store.body("Service", namespace, name)
        if service is None or service.spec.cluster_ip == "None":
            return None
        return self._cluster_ips.get((namespace, name))

    def pods(self) -> list[Pod]:
        """The pods as the mesh sees them."""
        services = self.services()
        return [self._published(runner.model, services) for runner in self.runners.values()]

    def owned(self, kind: str, namespace: str, name: str) -> list[PodRunner]:
        return [
            runner
            for runner in self.runners.values()
            if runner.owner == (kind, name) and runner.model.namespace == namespace
        ]

    def snapshot(self) -> Snapshot:
        config: dict[str, list[Resource]] = {}
        for record in self.store.all():
            resource = record.resource
            group = resource.api_version.rpartition("/")[0]
            istio = group.endswith(service_kind.ISTIO_GROUP) and resource.kind != "IstioOperator"
            # Gateways take their certificates from Secrets.
            if istio or resource.kind == "Secret":
                config.setdefault(resource.kind, []).append(resource)
        ordered = {
            kind: tuple(sorted(all_, key=lambda r: r.order)) for kind, all_ in config.items()
        }
        return Snapshot(
            services=self.services(),
            pods=tuple(self.pods()),
            config=ordered,
            mesh=self.mesh_config(),
            certificates=str(self.state.certificates) if self.mesh else "",
        )

    def mesh_config(self) -> dict[str, Any]:
        """The `meshConfig` of the applied IstioOperators."""
        operators = [record.resource for record in self.store.of("IstioOperator")]
        return self.mesh.mesh_config(operators) if self.mesh is not None else {}

    def runs(self, resource: Resource) -> bool:
        """Whether a workload has pods here: a gateway is nothing without a mesh."""
        return self.mesh is not None or not injection.is_gateway(resource.spec.template.spec)

    def template_of(self, record: Record) -> str:
        return rollout.template_hash(record.resource.raw["spec"]["template"])

    def image_problem(self, resource: Resource) -> tuple[tuple[str | int, ...], str] | None:
        """The first container whose image the lab has no program for."""
        if resource.kind == "Pod":
            spec = resource.spec
            path: tuple[str, ...] = ("spec",)
        elif resource.kind in ("Deployment", "StatefulSet"):
            spec = resource.spec.template.spec
            path = ("spec", "template", "spec")
        else:
            return None
        for index, container in enumerate(spec.containers):
            try:
                split(container.image)
            except UnknownImageError as error:
                return (*path, "containers", index, "image"), str(error)
        return None

    # --- the life of the cluster ---------------------------------------------------------------

    async def run(self) -> None:
        """Work through changes until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._reconcile())
            group.create_task(self._configure())

    async def settled(self, revision: int, timeout: float) -> bool:
        """Wait until the proxies have the configuration of a revision."""
        if self.mesh is None:
            return True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout), self._news:
                await self._news.wait_for(lambda: self.pushed >= revision)
        return self.pushed >= revision

    def defect(self, doing: str, error: Exception) -> None:
        """Note an error that nothing foresaw: for `status`, with its trace in the lab's log."""
        self.problem = f"internal error while trying to {doing}: {error!r}"
        with (self.state.logs / "lab.log").open("a", encoding="utf-8") as file:
            file.write(f"{now()} {self.problem}\n")
            traceback.print_exception(error, file=file)

    async def _configure(self) -> None:
        while self.mesh is not None:
            revision = self.revision
            if self.pushed < revision:
                try:
                    self.rejected = await self.mesh.push(self.snapshot(), dict(self.runners))
                except Exception as error:
                    # A defect of the translation must not end the lab: the proxies keep what
                    # they have, `status` says so, and the trace is in the lab's own log.
                    self.defect("configure the proxies", error)
                    self.rejected = [self.problem]
                self.pushed = revision
                async with self._news:
                    self._news.notify_all()
            await self.wait_for_change(revision, 60)

    async def _reconcile(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            try:
                await self._round()
                self.problem = ""
            except (NoAddressesError, OSError) as error:
                self.problem = str(error)
            except Exception as error:
                self.defect("reconcile", error)
            async with self._news:
                self._news.notify_all()
            # Changes come in bursts: take those of the next moment together.
            await asyncio.sleep(0.02)

    async def stop(self, grace: float) -> None:
        """End every pod, without preStop hooks: nothing is left that would notice."""
        self._stopped = True
        for server in self._listeners.values():
            server.close()
        await asyncio.gather(
            *(runner.stop(grace=grace, hooks=False) for runner in self.runners.values())
        )

    async def _round(self) -> None:
        if self._stopped:
            return
        await self._serve_services()
        self._bare_pods()
        for kind in ("StatefulSet", "Deployment"):
            for record in self.store.of(kind):
                if self.runs(record.resource):
                    self._workload(record)
        for runner in list(self.runners.values()):
            namespace, name = runner.key
            owner = ("Pod", name) if runner.owner is None else runner.owner
            if not runner.terminating and (owner[0], namespace, owner[1]) not in self.store:
                self._stop(runner)

    def spawn(self, work: Awaitable[Any]) -> None:
        """Run something beside the rounds."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- pods ----------------------------------------------------------------------------------

    def _bare_pods(self) -> None:
        for record in self.store.of("Pod"):
            resource = record.resource
            if (resource.namespace, resource.name) not in self.runners:
                self._create(resource, None, "")

    def _workload(self, record: Record) -> None:
        resource = record.resource
        pods = self.owned(resource.kind, resource.namespace, resource.name)
        replicas = [
            rollout.Replica(p.model.name, p.template, p.model.ready, p.terminating, p.created)
            for p in pods
        ]
        current = self.template_of(record)
        if resource.kind == "Deployment":
            step = rollout.deployment_step(resource.spec, current, replicas)
            names = [f"{resource.name}-{current}-{rollout.suffix()}" for _ in range(step.create)]
            delete = step.delete
        else:
            ordinals, delete = rollout.stateful_set_step(resource.spec, current, replicas)
            names = [f"{resource.name}-{ordinal}" for ordinal in ordinals]
        for name in delete:
            self._stop(self.runners[resource.namespace, name])
        for name in names:
            self._create(
                _from_template(resource, name, current), (resource.kind, resource.name), current
            )

    def _create(self, resource: Resource, owner: tuple[str, str] | None, template: str) -> None:
        namespace = resource.namespace
        spec = resource.spec
        account = spec.service_account_name
        if account != "default" and ("ServiceAccount", namespace, account) not in self.store:
            kind, name = owner or ("Pod", resource.name)
            message = f'serviceaccount "{account}" not found in namespace "{namespace}"'
            self.events.add(Event(kind, namespace, name, "Warning", "FailedCreate", message))
            return
        address, inside = self.addresses.take_pod()
        model = Pod(
            namespace=namespace,
            name=resource.name,
            labels=resource.labels,
            annotations=resource.annotations,
            service_account=account,
            address=address,
            inside_address=inside,
            ports=service_kind.container_ports(spec),
            ready=False,
            proxy=self._proxy(resource),
        )
        world = World(
            state=self.state,
            events=self.events,
            client=self.client,
            changed=self.changed,
            lookup=self._lookup,
            services=self.services,
            resolve=self._resolve,
            overrides=self.options.overrides,
            proxies=self.mesh,
        )
        runner = PodRunner(resource, model, world, owner, template)
        self.runners[runner.key] = runner
        runner.report("Normal", "Scheduled", f"Assigned {namespace}/{resource.name} to lab")
        runner.start()
        self.changed()

    def _proxy(self, resource: Resource) -> Any:
        if self.mesh is None:
            return "none"
        namespace = self.store.get("Namespace", "", resource.namespace)
        injected = namespace is not None and injection.injects(namespace.resource.labels)
        return injection.proxy(
            resource.labels, resource.annotations, resource.spec, injected=injected
        )

    def _stop(self, runner: PodRunner) -> None:
        if not runner.terminating:
            runner.report("Normal", "Killing", f"Stopping pod {runner.model.name}")
            self.spawn(self.stop_pod(runner))

    async def stop_pod(self, runner: PodRunner, grace: float | None = None) -> None:
        """End one pod and forget it."""
        await runner.stop(grace=grace)
        if self.runners.get(runner.key) is runner:
            del self.runners[runner.key]
            self.addresses.release_pod(runner.model.address)
            runner.remove_logs()
        self.changed()

    def _lookup(self, namespace: str) -> Lookup:
        return lambda kind, name: self.store.body(kind, namespace, name)

    def _resolve(self, pod: Pod) -> Resolve:
        def resolve(host: str, port: int | None) -> tuple[str, int | None] | None:
            service = service_kind.named(host, pod.namespace, self.services())
            if service is None:
                return None
            chosen = [item for item in service.ports if port in (None, item.port)]
            if not chosen:
                return None
            if pod.proxy != "none":
                # HTTP goes through the sidecar as its proxy and keeps its name.
                tcp = all(item.protocol in ("TCP", "TLS") for item in chosen)
                return (pod.inside_address, port) if tcp else None
            # A headless one has an address here too: there is no DNS that would follow its pods.
            address = self._cluster_ips.get((service.namespace, service.name))
            if address is None:
                return None
            return address, None if port is None else bindable(address, port)

        return resolve

    # --- Services ------------------------------------------------------------------------------

    async def _serve_services(self) -> None:
        wanted: dict[tuple[str, int], tuple[tuple[str, str], int]] = {}
        present = set()
        for record in self.store.of("Service"):
            name = (record.resource.namespace, record.resource.name)
            present.add(name)
            if name not in self._cluster_ips:
                self._cluster_ips[name] = self.addresses.take_service()
            address = self._cluster_ips[name]
            for port in record.resource.spec.ports:
                wanted[address, bindable(address, port.port)] = (name, port.port)
        for name in [name for name in self._cluster_ips if name not in present]:
            self.addresses.release_service(self._cluster_ips.pop(name))
        if self.mesh is None:
            # Without a mesh there is no ingress gateway: the ui itself is published.
            wanted["127.0.0.1", self.options.http_port] = (("default", "ui"), 80)
        for place in [place for place in self._listeners if place not in wanted]:
            self._listeners.pop(place).close()
        for place, (service, port_number) in wanted.items():
            if place not in self._listeners:
                endpoints = self._endpoints(service, port_number)
                self._listeners[place] = await forwarder.listen(*place, endpoints)

    def _endpoints(self, name: tuple[str, str], port: int) -> forwarder.Endpoints:
        def endpoints() -> list[tuple[str, int]]:
            record = self.store.get("Service", *name)
            if record is None:
                return []
            service = service_kind.service(record.resource, None)
            found = [item for item in service.ports if item.port == port]
            if not found:
                return []
            ready = endpoints_of(service, found[0], self.pods())
            return [(endpoint.address, endpoint.port) for endpoint in ready]

        return endpoints

    def published(self, service: Service, port: int) -> int | None:
        """The port of localhost on which a LoadBalancer's port is reached."""
        record = self.store.get("Service", service.namespace, service.name)
        if record is None or record.resource.spec.type != "LoadBalancer":
            return None
        if service.name != "istio-ingressgateway":
            return None
        return {80: self.options.http_port, 443: self.options.https_port}.get(port)

    def _published(self, pod: Pod, services: tuple[Service, ...]) -> Pod:
        if pod.proxy != "gateway":
            return pod
        places: dict[int, tuple[tuple[str, int], ...]] = {}
        for service in services:
            if not selected(service, pod):
                continue
            for port in service.ports:
                number = self.published(service, port.port)
                target = resolve_port(pod, port.target_port)
                if number is not None and target is not None:
                    places[target] = (*places.get(target, ()), ("127.0.0.1", number))
        return dataclasses.replace(pod, published=places)


def _from_template(resource: Resource, name: str, template: str) -> Resource:
    """The Pod that a Deployment's or a StatefulSet's template describes."""
    spec = resource.spec
    metadata = spec.template.metadata
    labels = dict(metadata.labels)
    raw_spec = dict(resource.raw["spec"]["template"]["spec"])
    pod_spec = spec.template.spec
    if resource.kind == "Deployment":
        labels["pod-template-hash"] = template
    else:
        labels["statefulset.kubernetes.io/pod-name"] = name
        labels["controller-revision-hash"] = f"{resource.name}-{template}"
        claims = [
            {
                "name": c.metadata.name,
                "persistentVolumeClaim": {"claimName": f"{c.metadata.name}-{name}"},
            }
            for c in spec.volume_claim_templates
        ]
        raw_spec["volumes"] = [*raw_spec.get("volumes", []), *claims]
        pod_spec = type(pod_spec).model_validate(raw_spec)
    return Resource(
        api_version="v1",
        kind="Pod",
        namespace=resource.namespace,
        name=name,
        body=PodBody.model_construct(spec=pod_spec),
        source=Source(resource.source.file, resource.source.line),
        labels=labels,
        annotations=dict(metadata.annotations),
        raw={"spec": raw_spec},
    )
