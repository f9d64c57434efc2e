"""Checks what a schema can't: that everything a manifest names exists, and fits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.k8s.manifests import Manifest, pods

SECRETS = {
    "mysql-credentials": {"root-password", "password"},
    "redis-credentials": {"password", "redis.conf"},
}
"""Secrets that are made by hand (docs/kind.md, docs/gke.md, docs/overlays.md), with their keys."""


def problems(manifests: list[Manifest]) -> list[str]:
    """One line for each reference that points nowhere."""
    return [
        problem
        for check in (_selectors, _services, _pods, _budgets, _autoscalers, _policies)
        for problem in check(manifests)
    ]


def _of(manifests: list[Manifest], *kinds: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] in kinds]


def _name(manifest: Manifest) -> str:
    return f"{manifest['kind']} {manifest['metadata']['name']}"


def _matching(manifests: list[Manifest], selector: dict[str, Any]) -> list[Manifest]:
    """Pod templates that a label selector (matchLabels, or In expressions) selects."""
    wanted = selector.get("matchLabels", {})
    expressions = selector.get("matchExpressions", [])
    return [
        pod
        for _, pod in pods(manifests)
        if wanted.items() <= pod["metadata"]["labels"].items()
        and all(pod["metadata"]["labels"].get(e["key"]) in e["values"] for e in expressions)
    ]


def _ports(pod: Manifest) -> dict[Any, int]:
    """Container ports by name and by number."""
    ports: dict[Any, int] = {}
    for container in pod["spec"]["containers"]:
        for port in container.get("ports", []):
            ports[port["containerPort"]] = ports[port["name"]] = port["containerPort"]
    return ports


def _selectors(manifests: list[Manifest]) -> Iterator[str]:
    workloads = _of(manifests, "Deployment", "StatefulSet")
    for workload in workloads:
        selected = _matching(manifests, workload["spec"]["selector"])
        if selected != [workload["spec"]["template"]]:
            yield f"{_name(workload)}: its selector selects {len(selected)} pod templates"
        for constraint in workload["spec"]["template"]["spec"].get("topologySpreadConstraints", []):
            if _matching(manifests, constraint["labelSelector"]) != selected:
                yield f"{_name(workload)}: topologySpreadConstraints select other pods"


def _services(manifests: list[Manifest]) -> Iterator[str]:
    services = _of(manifests, "Service")
    for service in services:
        selected = _matching(manifests, {"matchLabels": service["spec"]["selector"]})
        if not selected:
            yield f"{_name(service)}: selects no pod"
        for port in service["spec"]["ports"]:
            target = port.get("targetPort", port["port"])
            if any(target not in _ports(pod) for pod in selected):
                yield f"{_name(service)}: no container port {target}"
    names = {service["metadata"]["name"] for service in services}
    for workload in _of(manifests, "StatefulSet"):
        if workload["spec"]["serviceName"] not in names:
            yield f"{_name(workload)}: no Service {workload['spec']['serviceName']}"


def _pods(manifests: list[Manifest]) -> Iterator[str]:
    accounts = {m["metadata"]["name"] for m in _of(manifests, "ServiceAccount")}
    claims = {
        workload["metadata"]["name"]: {
            claim["metadata"]["name"] for claim in workload["spec"]["volumeClaimTemplates"]
        }
        for workload in _of(manifests, "StatefulSet")
    }
    for name, pod in pods(manifests):
        spec = pod["spec"]
        if spec.get("serviceAccountName") not in accounts:
            yield f"{name}: no ServiceAccount {spec.get('serviceAccountName')}"
        volumes = {v["name"] for v in spec.get("volumes", [])} | claims.get(name, set())
        for container in spec["containers"]:
            for mount in container.get("volumeMounts", []):
                if mount["name"] not in volumes:
                    yield f"{name}: no volume {mount['name']}"
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                if (handler := container.get(probe)) is None:
                    yield f"{name}: no {probe}"
                    continue
                port = handler.get("httpGet", handler.get("tcpSocket", {})).get("port")
                if port is not None and port not in _ports(pod):
                    yield f"{name}: {probe} asks port {port}, which no container has"
            for variable in container.get("env", []):
                yield from _source(manifests, name, variable)
            yield from _files(name, spec, container)
        annotations = pod["metadata"].get("annotations", {})
        scraped = annotations.get("prometheus.io/port")
        if scraped is not None and int(scraped) not in _ports(pod):
            yield f"{name}: prometheus.io/port {scraped}, which no container has"


def _source(manifests: list[Manifest], pod: str, variable: Manifest) -> Iterator[str]:
    kinds = {
        "secretKeyRef": ("Secret", SECRETS),
        "configMapKeyRef": (
            "ConfigMap",
            {m["metadata"]["name"]: set(m["data"]) for m in _of(manifests, "ConfigMap")},
        ),
    }
    for field, reference in variable.get("valueFrom", {}).items():
        kind, known = kinds[field]
        if reference["key"] not in known.get(reference["name"], set()):
            yield f"{pod}: no {kind} {reference['name']} with key {reference['key']}"


def _files(pod: str, spec: Manifest, container: Manifest) -> Iterator[str]:
    """Secrets as files: their keys, and the paths in variables and arguments."""
    present: set[str] = set()
    volumes = {v["name"]: v["secret"] for v in spec.get("volumes", []) if "secret" in v}
    for secret in volumes.values():
        for item in secret.get("items", []):
            if item["key"] not in SECRETS.get(secret["secretName"], set()):
                yield f"{pod}: no Secret {secret['secretName']} with key {item['key']}"
    for mount in container.get("volumeMounts", []):
        if secret := volumes.get(mount["name"]):
            keys = SECRETS.get(secret["secretName"], set())
            items = secret.get("items", [{"path": key} for key in keys])
            present |= {f"{mount['mountPath']}/{item['path']}" for item in items}
    values = [v["value"] for v in container.get("env", []) if v["name"].endswith("_FILE")]
    values += [arg for arg in container.get("args", []) if arg.startswith("/run/credentials/")]
    for path in values:
        if path not in present:
            yield f"{pod}: no file {path}"


def _budgets(manifests: list[Manifest]) -> Iterator[str]:
    for budget in _of(manifests, "PodDisruptionBudget"):
        if not _matching(manifests, budget["spec"]["selector"]):
            yield f"{_name(budget)}: selects no pod"


def _autoscalers(manifests: list[Manifest]) -> Iterator[str]:
    workloads = {_name(m): m for m in _of(manifests, "Deployment")}
    for autoscaler in _of(manifests, "HorizontalPodAutoscaler"):
        target = autoscaler["spec"]["scaleTargetRef"]
        workload = workloads.get(f"{target['kind']} {target['name']}")
        if workload is None:
            yield f"{_name(autoscaler)}: no {target['kind']} {target['name']}"
            continue
        if "replicas" in workload["spec"]:
            yield f"{_name(autoscaler)}: the {target['kind']} sets replicas as well"
        containers = {c["name"] for c in workload["spec"]["template"]["spec"]["containers"]}
        for metric in autoscaler["spec"]["metrics"]:
            if metric["containerResource"]["container"] not in containers:
                yield f"{_name(autoscaler)}: no such container"


def _policies(manifests: list[Manifest]) -> Iterator[str]:
    for policy in _of(manifests, "NetworkPolicy"):
        spec = policy["spec"]
        selected = _matching(manifests, spec["podSelector"])
        if not selected:
            yield f"{_name(policy)}: selects no pod"
        for rule in spec.get("ingress", []):
            if policy["metadata"]["name"] == "guestbook-default":
                continue  # Metrics: 9000 is some pods' own port, 15020 the sidecar's.
            for port in rule["ports"]:
                if any(port["port"] not in _ports(pod) for pod in selected):
                    yield f"{_name(policy)}: no container port {port['port']}"
        for direction, side in (("ingress", "from"), ("egress", "to")):
            for rule in spec.get(direction, []):
                for peer in rule[side]:
                    if "namespaceSelector" in peer or "ipBlock" in peer:
                        continue
                    there = _matching(manifests, peer["podSelector"])
                    if not there:
                        yield f"{_name(policy)}: an {direction} peer selects no pod"
                    if side == "to" and any(
                        port["port"] not in _ports(pod) for pod in there for port in rule["ports"]
                    ):
                        yield f"{_name(policy)}: a peer lacks the egress port"
