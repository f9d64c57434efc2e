"""Deployments: the ports of several Services, and the user of the sidecar."""

from __future__ import annotations

from collections.abc import Iterator

from lab import names
from lab.explain.analyze.finding import Finding, about
from lab.model import Snapshot

_OF_PROXY = 1337


def ports(snapshot: Snapshot) -> Iterator[Finding]:
    """Yields Deployments whose Services lead to one port of it from several (IST0137)."""
    for deployment in snapshot.of("Deployment"):
        labels, where = deployment.spec.template.metadata.labels, deployment.namespace
        if not any(
            pod.proxy != "none" and pod.namespace == where and names.selects(labels, pod.labels)
            for pod in snapshot.pods
        ):
            continue
        targets: dict[str, dict[int, str]] = {}
        for service in snapshot.services:
            own = service.namespace == where and service.selector
            if own and names.selects(service.selector, labels):
                for port in service.ports:
                    found = targets.setdefault(str(port.target_port), {})
                    found[port.port] = f"{where}/{service.name}"
        for target, found in targets.items():
            if len(found) > 1:
                text = (
                    f"This deployment {deployment.name} is associated with multiple services "
                    f'[{" ".join(sorted(found.values()))}] using targetPort "{target}" but '
                    f"different ports: [{' '.join(map(str, sorted(found)))}]."
                )
                yield about("IST0137", deployment, text, "metadata", "name")


def users(snapshot: Snapshot) -> Iterator[Finding]:
    """Yields Deployments and Pods whose application runs as the sidecar's user (IST0144)."""
    for kind, path in (("Deployment", ("spec", "template", "spec")), ("Pod", ("spec",))):
        for resource in snapshot.of(kind):
            spec = resource.spec.template.spec if kind == "Deployment" else resource.spec
            own = (one for one in spec.containers if one.name != names.PROXY)
            contexts = [spec.security_context, *(one.security_context for one in own)]
            if any(context and context.run_as_user == _OF_PROXY for context in contexts):
                text = "User ID (UID) 1337 is reserved for the sidecar proxy."
                yield about("IST0144", resource, text, *path)
