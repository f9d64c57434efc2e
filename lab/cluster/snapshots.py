"""Snapshots of a mesh: from manifests alone, from a lab's objects and pods, or from both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lab import names
from lab.cluster import injection
from lab.kinds.kubernetes import service as service_kind
from lab.kinds.mesh_config import becomes as mesh_config
from lab.model import Pod, Service, Snapshot
from lab.net.node import NODE
from lab.resources.resource import Resource

CERTIFICATES = "/var/lib/istio/certificates"
"""Stands for the certificates that a running lab issues; nothing is read from it."""


def assemble(
    resources: Iterable[Resource],
    services: Sequence[Service],
    pods: Iterable[Pod],
    certificates: str,
) -> Snapshot:
    """Returns the snapshot of a mesh with these objects, in the order of their first apply."""
    by_kind: dict[str, list[Resource]] = {}
    for resource in sorted(resources, key=lambda resource: resource.order):
        by_kind.setdefault(resource.kind, []).append(resource)
    return Snapshot(
        services=tuple(services),
        pods=tuple(pods),
        config={
            kind: tuple(items)
            for kind, items in by_kind.items()
            # Gateways take their certificates from Secrets; `analyze` looks at the others.
            if kind in ("Secret", "Namespace", "Deployment", "Pod")
            or items[0].api_version.split("/")[0].endswith(service_kind.ISTIO_GROUP)
        },
        mesh=mesh_config.installed(by_kind.get("IstioOperator", ())),
        certificates=certificates,
    )


def snapshot(
    resources: Iterable[Resource],
    *,
    injected: bool = True,
    running: Sequence[Mapping[str, Any]] | None = None,
) -> Snapshot:
    """Returns the snapshot of the mesh that these manifests describe.

    Its pods and the addresses of its Services are those of `running`, as `get pods,services -o
    json` has them. Without it the pods are those that the workloads would have, all ready, named
    after their workload and a number; `injected` says whether pods of namespaces that no manifest
    labels have sidecars.
    """
    ordered = _applied(resources)
    namespaces = {item.name: item.labels for item in ordered if item.kind == "Namespace"}
    addresses = dict(_addresses(running or ()))
    endpoints = [item for item in ordered if item.kind in ("Endpoints", "EndpointSlice")]
    services = []
    for index, item in enumerate(item for item in ordered if item.kind == "Service"):
        own = f"127.79.0.{index + 1}" if service_kind.has_address(item) else None
        address = addresses.get((item.namespace, item.name), own)
        services.append(service_kind.service(item, address, endpoints))
    pods = (
        _pods(ordered, namespaces, injected=injected)
        if running is None
        else (_running(item) for item in running if item["kind"] == "Pod")
    )
    return replace(assemble(ordered, services, pods, CERTIFICATES), outside=NODE)


def _addresses(
    running: Iterable[Mapping[str, Any]],
) -> Iterator[tuple[tuple[str, str], str | None]]:
    """Yields the address of each Service among a running lab's objects; None of a headless one."""
    for item in running:
        if item["kind"] == "Service" and (address := item["spec"].get("clusterIP")):
            name = item["metadata"]["namespace"], item["metadata"]["name"]
            yield name, None if address == "None" else address


def _applied(resources: Iterable[Resource]) -> list[Resource]:
    """Returns what `apply` leaves: of two with one name the later, in the place of the first."""
    found: dict[tuple[str, str, str], Resource] = {}
    for resource in resources:
        key = (resource.kind, resource.namespace, resource.name)
        found[key] = replace(resource, order=found[key].order if key in found else len(found))
    return list(found.values())


def _running(pod: Mapping[str, Any]) -> Pod:
    """Returns a pod of a running lab from its JSON."""
    metadata, spec, status = pod["metadata"], pod["spec"], pod["status"]
    proxy: injection.Proxy = "none"
    if any(container["name"] == names.PROXY for container in spec.get("initContainers", ())):
        proxy = "sidecar"
    elif any(container["name"] == names.PROXY for container in spec["containers"]):
        proxy = "gateway"
    ports = [port for container in spec["containers"] for port in container.get("ports", ())]
    ready = any(
        condition["type"] == "Ready" and condition["status"] == "True"
        for condition in status["conditions"]
    )
    address = status["podIP"]
    return Pod(
        namespace=metadata["namespace"],
        name=metadata["name"],
        labels=metadata.get("labels", {}),
        annotations=metadata.get("annotations", {}),
        service_account=spec.get("serviceAccountName", "default"),
        address=address,
        inside_address=names.inside(address),
        ports={
            port.get("name") or str(port["containerPort"]): port["containerPort"] for port in ports
        },
        ready=ready and "deletionTimestamp" not in metadata,
        proxy=proxy,
    )


def _pods(
    resources: Iterable[Resource], namespaces: Mapping[str, Mapping[str, str]], *, injected: bool
) -> Iterator[Pod]:
    number = 0
    for resource in resources:
        if resource.kind == "Pod":
            templates = [(resource.name, resource.labels, resource.annotations, resource.spec)]
        elif resource.kind in ("Deployment", "StatefulSet"):
            template = resource.spec.template
            templates = [
                (
                    f"{resource.name}-{ordinal}",
                    template.metadata.labels,
                    template.metadata.annotations,
                    template.spec,
                )
                for ordinal in range(resource.spec.replicas)
            ]
        else:
            continue
        for name, labels, notes, spec in templates:
            number += 1
            namespace = namespaces.get(resource.namespace)
            asked = injected if namespace is None else injection.injects(namespace)
            yield Pod(
                namespace=resource.namespace,
                name=name,
                labels=labels,
                annotations=notes,
                service_account=spec.service_account_name,
                address=f"127.77.0.{number}",
                inside_address=f"127.78.0.{number}",
                ports=service_kind.container_ports(spec),
                ready=True,
                proxy=injection.proxy(labels, notes, spec, injected=asked),
            )
