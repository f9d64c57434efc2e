"""Gateways, Sidecars, policies and pods: the workloads they select or belong to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lab import names
from lab.explain.analyze.finding import Finding, about
from lab.kinds import selection, services
from lab.model import Pod, Snapshot
from lab.resources.resource import Path, Resource


def gateways(snapshot: Snapshot) -> Iterator[Finding]:
    """Yields Gateways for no pod or without their Secret (IST0101), and ports that no Service
    of the gateway has (IST0162)."""
    secrets = {(item.namespace, item.name) for item in snapshot.of("Secret")}
    for gateway in snapshot.of("Gateway"):
        selector = gateway.spec.selector
        pods = [pod for pod in snapshot.pods if names.selects(selector, pod.labels)]
        shown = _shown(selector)
        if not pods:
            text = f'Referenced selector not found: "{shown}"'
            yield about("IST0101", gateway, text, "spec", "selector")
            continue
        published = {port for pod in pods for port in _published(snapshot, pod)}
        for index, server in enumerate(gateway.spec.servers):
            at = ("spec", "servers", index)
            if server.port.number not in published:
                text = (
                    f"The gateway is listening on a target port (port {server.port.number}) that "
                    "is not defined in the Service associated with its workload instances (Pod "
                    f"selector {shown}). If you need to access the gateway port through the "
                    "gateway Service, it will not be available."
                )
                yield about("IST0162", gateway, text, *at, "port", "number")
            secret = server.tls.credential_name if server.tls else None
            if secret:
                where, _, name = secret.rpartition("/")
                if (where or pods[0].namespace, name) not in secrets:
                    text = f'Referenced credentialName not found: "{secret}"'
                    yield about("IST0101", gateway, text, *at, "tls", "credentialName")


def _published(snapshot: Snapshot, pod: Pod) -> Iterator[int]:
    """Yields the ports of a pod's Services, and the ports of the pod that they lead to."""
    for service in snapshot.services:
        if services.selected(service, pod):
            for port in service.ports:
                yield port.port
                target = services.resolve_port(pod, port.target_port)
                if target is not None:
                    yield target


def policies(snapshot: Snapshot) -> Iterator[Finding]:
    """Yields policies that hold for no pod with a proxy (IST0127)."""
    meshed = [pod for pod in snapshot.pods if pod.proxy != "none"]
    kinds = ("AuthorizationPolicy", "RequestAuthentication", "PeerAuthentication")
    for policy in (found for kind in kinds for found in snapshot.of(kind)):
        labels = selection.labels(policy)
        everywhere = policy.namespace == snapshot.root_namespace
        if not labels and (everywhere or policy.kind != "AuthorizationPolicy"):
            continue
        if not any(
            names.selects(labels, pod.labels)
            for pod in meshed
            if everywhere or pod.namespace == policy.namespace
        ):
            text = (
                "No matching workloads for this resource with the following labels: "
                f"{_shown(labels)}"
            )
            yield about("IST0127", policy, text, "spec", "selector")


def namespaces(snapshot: Snapshot) -> Iterator[Finding]:
    """Yields sources of AuthorizationPolicies in namespaces that are not there (IST0101)."""
    known = {item.name for item in snapshot.of("Namespace")}
    known |= {pod.namespace for pod in snapshot.pods} | {"default", snapshot.root_namespace}
    for policy in snapshot.of("AuthorizationPolicy"):
        for path, pattern in _sources(policy):
            if not any(_fits(pattern, name) for name in known):
                text = f'Referenced namespace not found: "{pattern}"'
                yield about("IST0101", policy, text, *path)


def _sources(policy: Resource) -> Iterator[tuple[Path, str]]:
    for index, rule in enumerate(policy.spec.rules or ()):
        for position, item in enumerate((rule.from_ if rule is not None else None) or ()):
            source = item.source
            at = ("spec", "rules", index, "from", position, "source")
            for field, values in (
                ("namespaces", source.namespaces if source else None),
                ("notNamespaces", source.not_namespaces if source else None),
            ):
                for place, value in enumerate(values or ()):
                    yield (*at, field, place), value


def _fits(pattern: str, name: str) -> bool:
    if pattern.startswith("*"):
        return name.endswith(pattern[1:])
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def sidecars(snapshot: Snapshot) -> Iterator[Finding]:
    """Yields Sidecars for the same pod (IST0110), and several for a whole namespace (IST0111)."""
    owners: dict[tuple[str, str], list[Resource]] = {}
    whole: dict[str, list[Resource]] = {}
    for sidecar in snapshot.of("Sidecar"):
        if not selection.labels(sidecar):
            whole.setdefault(sidecar.namespace, []).append(sidecar)
            continue
        for pod in _selected(snapshot, sidecar):
            owners.setdefault((pod.namespace, pod.name), []).append(sidecar)
    for (namespace, pod_name), found in owners.items():
        for sidecar in found if len(found) > 1 else ():
            text = (
                f'The Sidecars {_names(found)} in namespace "{namespace}" select the same '
                f'workload pod "{pod_name}", which can lead to undefined behavior.'
            )
            yield about("IST0110", sidecar, text, "spec", "workloadSelector")
    for namespace, found in whole.items():
        for sidecar in found if len(found) > 1 else ():
            text = (
                f'The Sidecars {_names(found)} in namespace "{namespace}" have no workload '
                "selector, which can lead to undefined behavior."
            )
            yield about("IST0111", sidecar, text)


def selectors(snapshot: Snapshot) -> Iterator[Finding]:
    """Yields Sidecars and Telemetries that select no pod of their namespace (IST0101)."""
    for kind, field in (("Sidecar", "workloadSelector"), ("Telemetry", "selector")):
        for resource in snapshot.of(kind):
            labels = selection.labels(resource)
            if labels and not _selected(snapshot, resource):
                text = f'Referenced selector not found: "{_shown(labels)}"'
                yield about("IST0101", resource, text, "spec", field)


def _selected(snapshot: Snapshot, resource: Resource) -> list[Pod]:
    """Returns the pods of a resource's namespace with the labels that it selects."""
    labels = selection.labels(resource)
    return [
        pod
        for pod in snapshot.pods
        if pod.namespace == resource.namespace and names.selects(labels, pod.labels)
    ]


def _names(found: list[Resource]) -> str:
    return f"[{' '.join(sorted(item.name for item in found))}]"


def port_names(snapshot: Snapshot) -> Iterator[Finding]:
    """Yields ports of Services whose name says no protocol (IST0118)."""
    for service in snapshot.services:
        for index, port in enumerate(service.ports):
            if port.protocol == "AUTO" and service.namespace != snapshot.root_namespace:
                text = (
                    f"Port name {port.name} (port: {port.port}, targetPort: {port.target_port}) "
                    "doesn't follow the naming convention of Istio port."
                )
                place = service.source.at("spec", "ports", index)
                yield Finding("IST0118", "Service", service.namespace, service.name, text, place)


def _shown(labels: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
