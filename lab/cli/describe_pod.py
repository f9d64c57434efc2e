"""The lines of `describe` about a pod and a pod template, as kubectl 1.34 prints them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lab.cli.describe_lines import Lines, controller, head, notes, pairs, time, titled
from lab.cli.output import Json, selector


def pod(item: Json) -> Lines:
    metadata, spec, status = item["metadata"], item["spec"], item["status"]
    yield from head(
        item,
        f"Service Account:\t{spec['serviceAccountName']}",
        f"Node:\t{spec['nodeName']}/{status['hostIP']}",
        f"Start Time:\t{time(status['startTime'])}",
    )
    yield f"Status:\t{'Terminating' if 'deletionTimestamp' in metadata else status['phase']}"
    if profile := spec.get("securityContext", {}).get("seccompProfile"):
        yield f"SeccompProfile:\t{profile['type']}"
    yield f"IP:\t{status['podIP']}"
    yield "IPs:"
    yield from (f"  IP:\t{one['ip']}" for one in status["podIPs"])
    yield from controller(item)
    if first := spec.get("initContainers"):
        states = status.get("initContainerStatuses", ())
        yield from _containers("Init Containers", first, states, item)
    yield from _containers("Containers", spec["containers"], status["containerStatuses"], item)
    yield from ("Conditions:", "  Type\tStatus")
    yield from (f"  {one['type']} \t{one['status']} " for one in status["conditions"])
    yield from _volumes(spec.get("volumes", ()), "")
    yield f"QoS Class:\t{_quality(spec)}"
    yield from _placement(spec, "")
    yield from _spread(spec, "")


def _placement(spec: Json, space: str) -> Lines:
    yield from pairs(f"{space}Node-Selectors", spec.get("nodeSelector"))
    tolerations = sorted(map(_toleration, spec.get("tolerations", ())))
    yield from titled(f"{space}Tolerations", tolerations, space)


def _toleration(one: Json) -> str:
    text = str(one.get("key", ""))
    if value := one.get("value"):
        text += f"={value}"
    if effect := one.get("effect"):
        text += f":{effect}"
    if one.get("operator") == "Exists" and not one.get("value"):
        text += " op=Exists"
    if (seconds := one.get("tolerationSeconds")) is not None:
        text += f" for {seconds}s"
    return text


def _spread(spec: Json, space: str) -> Lines:
    head = f"{space}Topology Spread Constraints:"
    for one in sorted(spec.get("topologySpreadConstraints", ()), key=lambda c: c["topologyKey"]):
        text = f"{one['topologyKey']}:{one['whenUnsatisfiable']} when max skew {one['maxSkew']}"
        labels = one.get("labelSelector")
        chosen = f" for selector {selector(labels.get('matchLabels'))}" if labels else ""
        yield f"{head}\t{text} is exceeded{chosen}"
        head = space


def _quality(spec: Json) -> str:
    """Returns the quality of service of a pod."""
    containers = [*spec["containers"], *spec.get("initContainers", ())]
    resources = [container.get("resources", {}) for container in containers]
    if not any(one.get("requests") or one.get("limits") for one in resources):
        return "BestEffort"
    names = ("cpu", "memory")
    exact = all(
        name in one.get("limits", {})
        and one.get("requests", {}).get(name, one["limits"][name]) == one["limits"][name]
        for one in resources
        for name in names
    )
    return "Guaranteed" if exact else "Burstable"


def _containers(
    title: str,
    containers: Sequence[Json],
    states: Sequence[Json],
    of: Json | None,
    space: str = "",
) -> Lines:
    by_name = {state["name"]: state for state in states}
    yield f"{space}{title}:" + ("" if containers else " <none>")
    for container in containers:
        yield f"  {' ' if space else ''}{container['name']}:"
        yield from (
            f"    {line}" for line in _container(container, by_name.get(container["name"]), of)
        )


def _container(container: Json, state: Json | None, of: Json | None) -> Lines:
    if state is not None:
        yield f"Container ID:\t{state.get('containerID', '')}"
    yield f"Image:\t{container['image']}"
    if state is not None:
        yield f"Image ID:\t{state.get('imageID', '')}"
    ports = container.get("ports", ())
    for title, field in (("Port", "containerPort"), ("Host Port", "hostPort")):
        shown = ", ".join(
            f"{port.get(field, 0)}/{port.get('protocol', 'TCP')}"
            + (f" ({port['name']})" if port.get("name") else "")
            for port in ports
        )
        yield f"{title}{'s' if len(ports) > 1 else ''}:\t{shown or '<none>'}"
    for title, field in (("Command", "command"), ("Args", "args")):
        if words := container.get(field):
            yield f"{title}:"
            yield from (f"  {line}" for word in words for line in word.split("\n"))
    if state is not None:
        yield from _state("State", state["state"])
        if "terminated" in state.get("lastState", {}):
            yield from _state("Last State", state["lastState"])
        yield f"Ready:\t{state['ready']}"
        yield f"Restart Count:\t{state['restartCount']}"
    resources = container.get("resources", {})
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    if of is not None:  # A limit of a pod is a request too.
        requests = limits | requests
    for title, values in (("Limits", limits), ("Requests", requests)):
        if values:
            yield f"{title}:"
            yield from (f"  {name}:\t{value}" for name, value in sorted(values.items()))
    for name in ("liveness", "readiness", "startup"):
        if probe := container.get(f"{name}Probe"):
            yield f"{name.capitalize()}:\t{_probe(probe)}"
    yield from _environment(container, of)
    mounts = sorted(container.get("volumeMounts", ()), key=lambda mount: str(mount["mountPath"]))
    yield "Mounts:" + ("" if mounts else "\t<none>")
    for mount in mounts:
        path = f',path="{mount["subPath"]}"' if mount.get("subPath") else ""
        mode = "ro" if mount.get("readOnly") else "rw"
        yield f"  {mount['mountPath']} from {mount['name']} ({mode}{path})"


def _state(title: str, state: Json) -> Lines:
    ((name, details),) = state.items()
    yield f"{title}:\t{name.capitalize()}"
    if name == "running":
        yield f"  Started:\t{time(details['startedAt'])}"
        return
    for field in ("reason", "message") if name == "terminated" else ("reason",):
        if text := details.get(field):
            yield f"  {field.capitalize()}:\t{text}"
    if name == "terminated":
        yield f"  Exit Code:\t{details['exitCode']}"
        yield f"  Started:\t{time(details.get('startedAt', ''))}"
        yield f"  Finished:\t{time(details.get('finishedAt', ''))}"


def _probe(probe: Json) -> str:
    defaults = {"initialDelaySeconds": 0, "timeoutSeconds": 1, "periodSeconds": 10}
    delay, timeout, period = (probe.get(name, value) for name, value in defaults.items())
    numbers = (
        f"#success={probe.get('successThreshold', 1)} #failure={probe.get('failureThreshold', 3)}"
    )
    ends = f"delay={delay}s timeout={timeout}s period={period}s {numbers}"
    if (program := probe.get("exec")) is not None:
        return f"exec [{' '.join(program.get('command', ()))}] {ends}"
    if (get := probe.get("httpGet")) is not None:
        path = get.get("path", "/")
        slash = "" if path.startswith("/") else "/"
        scheme = get.get("scheme", "HTTP").lower()
        return f"http-get {scheme}://{get.get('host', '')}:{get['port']}{slash}{path} {ends}"
    if (socket := probe.get("tcpSocket")) is not None:
        return f"tcp-socket {socket.get('host', '')}:{socket['port']} {ends}"
    call = probe.get("grpc", {})
    return f"grpc <pod>:{call.get('port')} {call.get('service', '')} {ends}"


def _environment(container: Json, of: Json | None) -> Lines:
    if sources := container.get("envFrom"):
        yield "Environment Variables from:"
        for source in sources:
            kind = "ConfigMap" if "configMapRef" in source else "Secret"
            ref = source.get("configMapRef") or source.get("secretRef") or {}
            prefix = f" with prefix '{source['prefix']}'" if source.get("prefix") else ""
            yield f"  {ref.get('name', '')}\t{kind}{prefix}\tOptional: {_optional(ref)}"
    variables = container.get("env", ())
    yield "Environment:" + ("" if variables else "\t<none>")
    for variable in variables:
        name, source = variable["name"], variable.get("valueFrom")
        if not source:
            first, *rest = str(variable.get("value", "")).split("\n")
            yield f"  {name}:\t{first}"
            yield from (f"  \t{line}" for line in rest)
        elif ref := source.get("fieldRef"):
            value = _of_pod(of, ref["fieldPath"])
            yield f"  {name}:\t{value} ({ref.get('apiVersion', 'v1')}:{ref['fieldPath']})"
        elif ref := source.get("resourceFieldRef"):
            kind, _, field = ref["resource"].partition(".")
            value = container.get("resources", {}).get(kind, {}).get(field, "node allocatable")
            yield f"  {name}:\t{value} ({ref['resource']})"
        else:
            ref, place = source.get("secretKeyRef"), "in secret"
            if ref is None:
                ref, place = source["configMapKeyRef"], "of config map"
            told = f"<set to the key '{ref['key']}' {place} '{ref['name']}'>"
            yield f"  {name}:\t{told}\tOptional: {_optional(ref)}"


def _optional(ref: Json) -> str:
    return str(bool(ref.get("optional"))).lower()


def _of_pod(of: Json | None, path: str) -> str:
    """Returns a field of a pod, `metadata.name` or `metadata.labels['app']`."""
    value: Any = of
    for name in re.findall(r"[^.\[\]']+", path):
        value = value.get(name) if isinstance(value, dict) else None
    return "" if value is None else str(value)


_VOLUMES: Mapping[str, tuple[str, Callable[[Json], dict[str, Any]]]] = {
    "emptyDir": (
        "EmptyDir (a temporary directory that shares a pod's lifetime)",
        lambda one: {
            "Medium": one.get("medium", ""),
            "SizeLimit": one.get("sizeLimit", "<unset>"),
        },
    ),
    "secret": (
        "Secret (a volume populated by a Secret)",
        lambda one: {"SecretName": one["secretName"], "Optional": _optional(one)},
    ),
    "configMap": (
        "ConfigMap (a volume populated by a ConfigMap)",
        lambda one: {"Name": one["name"], "Optional": _optional(one)},
    ),
    "persistentVolumeClaim": (
        "PersistentVolumeClaim (a reference to a PersistentVolumeClaim in the same namespace)",
        lambda one: {
            "ClaimName": one["claimName"],
            "ReadOnly": str(bool(one.get("readOnly"))).lower(),
        },
    ),
}


def _volumes(volumes: Sequence[Json], space: str) -> Lines:
    yield f"{space}Volumes:" + ("" if volumes else "\t<none>")
    for volume in volumes:
        yield f"  {' ' if space else ''}{volume['name']}:"
        for name, (title, fields) in _VOLUMES.items():
            if name in volume:
                yield f"    Type:\t{title}"
                found = fields(volume[name] or {})
                yield from (f"    {key}:\t{value}" for key, value in found.items())


def template(of: Json) -> Lines:
    """Yields the lines about the pods of a workload."""
    metadata, spec = of.get("metadata") or {}, of["spec"]
    yield "Pod Template:"
    yield from pairs("  Labels", metadata.get("labels"))
    if metadata.get("annotations"):
        yield from notes("  Annotations", metadata["annotations"])
    if account := spec.get("serviceAccountName"):
        yield f"  Service Account:\t{account}"
    if first := spec.get("initContainers"):
        yield from _containers("Init Containers", first, (), None, "  ")
    yield from _containers("Containers", spec["containers"], (), None, "  ")
    yield from _volumes(spec.get("volumes", ()), "  ")
    yield from _spread(spec, "  ")
    yield from _placement(spec, "  ")
