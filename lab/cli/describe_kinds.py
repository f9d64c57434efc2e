"""The text of `describe`, kind by kind, as kubectl 1.34 prints it."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from lab.cli.describe_lines import Lines, controller, head, pairs, time
from lab.cli.describe_pod import pod, template
from lab.cli.output import Json, few, selector


def described(item: Json, parts: Sequence[Json]) -> list[str]:
    """Returns the lines about an object, without its events; cells end with tabs.

    `parts` are what it has: the EndpointSlices of a Service, the ReplicaSets of a Deployment, the
    pods of another workload.
    """
    return list(_KINDS.get(item["kind"], _any)(item, parts))


# --- workloads ------------------------------------------------------------------------------------


def _deployment(item: Json, replica_sets: Sequence[Json]) -> Lines:
    spec, status = item["spec"], item["status"]
    yield from head(item, f"CreationTimestamp:\t{time(item['metadata']['creationTimestamp'])}")
    yield f"Selector:\t{selector(spec['selector'].get('matchLabels'))}"
    counts = [
        f"{spec.get('replicas', 1)} desired",
        f"{status['updatedReplicas']} updated",
        f"{status['replicas']} total",
        f"{status['availableReplicas']} available",
        f"{status['unavailableReplicas']} unavailable",
    ]
    yield f"Replicas:\t{' | '.join(counts)}"
    strategy = spec.get("strategy") or {}
    kind = strategy.get("type", "RollingUpdate")
    yield f"StrategyType:\t{kind}"
    yield f"MinReadySeconds:\t{spec.get('minReadySeconds', 0)}"
    if kind == "RollingUpdate":
        rolling = strategy.get("rollingUpdate") or {}
        unavailable, surge = (rolling.get(f"max{name}", "25%") for name in ("Unavailable", "Surge"))
        yield f"RollingUpdateStrategy:\t{unavailable} max unavailable, {surge} max surge"
    yield from template(spec["template"])
    yield from ("Conditions:", "  Type\tStatus\tReason", "  ----\t------\t------")
    for one in status["conditions"]:
        yield f"  {one['type']} \t{one['status']}\t{one['reason']}"
    current = [one for one in replica_sets if _is_of(one, spec["template"])]
    old = [one for one in replica_sets if one not in current]
    yield f"OldReplicaSets:\t{_created(old)}"
    yield f"NewReplicaSet:\t{_created(current)}"


def _is_of(replica_set: Json, template: Json) -> bool:
    """Returns whether a ReplicaSet has that pod template, to which it adds a label."""
    own = replica_set["spec"]["template"]
    labels = {k: v for k, v in own["metadata"]["labels"].items() if k != "pod-template-hash"}
    return bool({**own, "metadata": {**own["metadata"], "labels": labels}} == template)


def _created(replica_sets: Sequence[Json]) -> str:
    texts = [
        f"{one['metadata']['name']} "
        f"({one['status']['replicas']}/{one['spec']['replicas']} replicas created)"
        for one in replica_sets
    ]
    return ", ".join(texts) or "<none>"


def _phases(pods: Iterable[Json]) -> str:
    phases = [pod["status"]["phase"] for pod in pods]
    names = {
        "Running": "Running",
        "Pending": "Waiting",
        "Succeeded": "Succeeded",
        "Failed": "Failed",
    }
    return " / ".join(f"{phases.count(phase)} {name}" for phase, name in names.items())


def _replica_set(item: Json, pods: Sequence[Json]) -> Lines:
    spec = item["spec"]
    yield from head(item, f"Selector:\t{selector(spec['selector'].get('matchLabels'))}")
    yield from controller(item)
    yield f"Replicas:\t{item['status']['replicas']} current / {spec['replicas']} desired"
    yield f"Pods Status:\t{_phases(pods)}"
    yield from template(spec["template"])


def _stateful_set(item: Json, pods: Sequence[Json]) -> Lines:
    spec = item["spec"]
    yield from head(
        item,
        f"CreationTimestamp:\t{time(item['metadata']['creationTimestamp'])}",
        f"Selector:\t{selector(spec['selector'].get('matchLabels'))}",
    )
    yield f"Replicas:\t{spec.get('replicas', 1)} desired | {item['status']['replicas']} total"
    strategy = spec.get("updateStrategy") or {}
    kind = strategy.get("type", "RollingUpdate")
    yield f"Update Strategy:\t{kind}"
    if kind == "RollingUpdate":
        yield f"  Partition:\t{(strategy.get('rollingUpdate') or {}).get('partition', 0)}"
    yield f"Pods Status:\t{_phases(pods)}"
    yield from template(spec["template"])
    claims = spec.get("volumeClaimTemplates", ())
    yield "Volume Claims:" + ("" if claims else "\t<none>")
    for claim in claims:
        metadata, wanted = claim["metadata"], claim["spec"]
        size = wanted.get("resources", {}).get("requests", {}).get("storage", "<default>")
        yield f"  Name:\t{metadata['name']}"
        yield f"  StorageClass:\t{wanted.get('storageClassName', '')}"
        yield from pairs("  Labels", metadata.get("labels"))
        yield from pairs("  Annotations", metadata.get("annotations"))
        yield f"  Capacity:\t{size}"
        yield f"  Access Modes:\t[{' '.join(wanted.get('accessModes', ()))}]"


# --- others ---------------------------------------------------------------------------------------


def _service(item: Json, slices: Sequence[Json]) -> Lines:
    spec, external = item["spec"], item["spec"]["type"] == "ExternalName"
    address = spec.get("clusterIP", "")
    yield from head(item)
    yield f"Selector:\t{selector(spec.get('selector'))}"
    yield f"Type:\t{spec['type']}"
    if not external:
        yield f"IP Family Policy:\t{spec.get('ipFamilyPolicy', 'SingleStack')}"
    yield f"IP Families:\t{'<none>' if external else 'IPv4'}"
    yield f"IP:\t{address}"
    yield f"IPs:\t{address or '<none>'}"
    if name := spec.get("externalName"):
        yield f"External Name:\t{name}"
    if ingress := item["status"]["loadBalancer"].get("ingress"):
        yield f"LoadBalancer Ingress:\t{', '.join(one['ip'] + ' (VIP)' for one in ingress)}"
    for port in spec.get("ports", ()):
        protocol, name = port.get("protocol", "TCP"), port.get("name", "")
        yield f"Port:\t{name or '<unset>'}\t{port['port']}/{protocol}"
        yield f"TargetPort:\t{port.get('targetPort', port['port'])}/{protocol}"
        if node := port.get("nodePort"):
            yield f"NodePort:\t{name or '<unset>'}\t{node}/{protocol}"
        yield f"Endpoints:\t{_endpoints(slices, name)}"
    yield f"Session Affinity:\t{spec.get('sessionAffinity', 'None')}"
    if spec["type"] in ("LoadBalancer", "NodePort"):
        yield f"External Traffic Policy:\t{spec.get('externalTrafficPolicy', 'Cluster')}"
    if not external:
        yield f"Internal Traffic Policy:\t{spec.get('internalTrafficPolicy', 'Cluster')}"


def _endpoints(slices: Sequence[Json], name: str) -> str:
    if not slices:
        return "<none>"
    found = [
        f"{endpoint['addresses'][0]}:{port['port']}"
        for one in slices
        for port in one.get("ports", ())
        if port.get("name", "") == name
        for endpoint in one.get("endpoints", ())
        if endpoint.get("conditions", {}).get("ready") is not False
    ]
    return few(found)


def _config_map(item: Json, _parts: Sequence[Json]) -> Lines:
    yield from head(item)
    yield from ("", "Data", "====")
    for key, text in sorted((item.get("data") or {}).items()):
        yield from (f"{key}:", "----", *text.split("\n"), "")
    yield from ("", "BinaryData", "====")
    for key, text in sorted((item.get("binaryData") or {}).items()):
        yield f"{key}: {len(base64.b64decode(text))} bytes"
    yield ""


def _secret(item: Json, _parts: Sequence[Json]) -> Lines:
    yield from head(item)
    yield from ("", f"Type:\t{item.get('type', 'Opaque')}", "", "Data", "====")
    sizes = {key: len(base64.b64decode(text)) for key, text in (item.get("data") or {}).items()}
    sizes |= {key: len(text.encode()) for key, text in (item.get("stringData") or {}).items()}
    yield from (f"{key}:\t{size} bytes" for key, size in sorted(sizes.items()))


def _account(item: Json, _parts: Sequence[Json]) -> Lines:
    yield from head(item)
    for title in ("Image pull secrets:", "Mountable secrets: ", "Tokens:            "):
        yield f"{title}\t<none>"


def _namespace(item: Json, _parts: Sequence[Json]) -> Lines:
    yield from head(item)
    yield f"Status:\t{item['status']['phase']}"
    yield from ("", "No resource quota.", "", "No LimitRange resource.")


def _any(item: Json, _parts: Sequence[Json]) -> Lines:
    """Yields the lines about an object of another kind: each field under its name in words."""
    yield from head(item)
    shown = {"name", "namespace", "labels", "annotations"}
    metadata = {key: value for key, value in item["metadata"].items() if key not in shown}
    yield from _content({**item, "metadata": metadata}, "")


def _content(content: Json, indent: str) -> Lines:
    for field, value in sorted(content.items()):
        title = f"{indent}{_title(field)}:"
        if not isinstance(value, dict | list):
            yield f"{title}\t{_plain(value)}"
            continue
        yield title
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, dict):
                yield from _content(child, indent + "  ")
            else:
                yield f"{indent}  {_plain(child)}"


def _plain(value: Any) -> str:
    """Returns a value as Go prints it."""
    if value is None:
        return "<nil>"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _title(field: str) -> str:
    """Returns `Match Labels` for `matchLabels`."""
    if not re.fullmatch(r"[^\W\d_-]*(-[^\W\d_-]*)*", field):
        return field
    words = re.findall(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|-", field)
    known = ("API", "URL", "UID", "OSB", "GUID")
    titled = [
        word.upper() if word.upper() in known else word[:1].upper() + word[1:] for word in words
    ]
    return " ".join(titled)


_KINDS: Mapping[str, Callable[[Json, Sequence[Json]], Lines]] = {
    "Pod": lambda item, _parts: pod(item),
    "Deployment": _deployment,
    "ReplicaSet": _replica_set,
    "StatefulSet": _stateful_set,
    "Service": _service,
    "ConfigMap": _config_map,
    "Secret": _secret,
    "ServiceAccount": _account,
    "Namespace": _namespace,
}

WITHOUT_EVENTS = ("Secret",)
"""Kinds of which `describe` tells no events."""
