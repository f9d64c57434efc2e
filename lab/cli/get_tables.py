"""The columns of `get`, kind by kind, as kubectl prints them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lab.cli.output import Json, Row, age, columns, few, reference, selector


def _none(_item: Json) -> Row:
    return []


@dataclass(frozen=True, slots=True)
class _Table:
    """The columns of a kind between NAME and AGE, and those that `-o wide` adds."""

    header: tuple[str, ...] = ()
    cells: Callable[[Json], Row] = _none
    wide_header: tuple[str, ...] = ()
    wide_cells: Callable[[Json], Row] = _none
    whole: Callable[[Json, bool], Row] | None = None
    """All cells of an object, also of a wide table, where they aren't between NAME and AGE."""


def cells(item: Json) -> Row:
    """Returns the cells of an object but for its name and ages."""
    if item["kind"] == "Event":
        return [str(item["count"])]
    return _table(item["kind"]).cells(item)


def table(
    items: Sequence[Json],
    *,
    wide: bool,
    namespaces: bool,
    headers: bool = True,
    labels: bool = False,
    label_columns: Sequence[str] = (),
) -> str:
    """Returns a table for each kind."""
    texts = []
    kinds = list(dict.fromkeys(item["kind"] for item in items))
    for kind in kinds:
        shape = _table(kind)
        rows = []
        for item in (item for item in items if item["kind"] == kind):
            metadata = item["metadata"]
            rows.append(
                [
                    *([metadata.get("namespace", "")] if namespaces else []),
                    *_row(shape, item, wide=wide, kind=len(kinds) > 1),
                    *((metadata.get("labels") or {}).get(name, "") for name in label_columns),
                    *([selector(metadata.get("labels"))] if labels else []),
                ]
            )
        head = [
            *(["NAMESPACE"] if namespaces else []),
            *_head(shape, wide=wide),
            *(name.rpartition("/")[2].upper() for name in label_columns),
            *(["LABELS"] if labels else []),
        ]
        lines = columns(head, rows)
        texts.append("\n".join(lines if headers else lines[1:]))
    return "\n\n".join(texts)


def _row(shape: _Table, item: Json, *, wide: bool, kind: bool) -> Row:
    if shape.whole is not None:
        return shape.whole(item, wide)
    metadata = item["metadata"]
    return [
        reference(item) if kind else metadata["name"],
        *shape.cells(item),
        age(metadata["creationTimestamp"]),
        *(shape.wide_cells(item) if wide else []),
    ]


def _head(shape: _Table, *, wide: bool) -> Row:
    if shape.whole is not None:
        return list(shape.wide_header if wide else shape.header)
    return ["NAME", *shape.header, "AGE", *(shape.wide_header if wide else ())]


def _event(item: Json, wide: bool) -> Row:
    about = item["involvedObject"]
    told = [item["type"], item["reason"], f"{about['kind'].lower()}/{about['name']}"]
    row = [age(item["lastTimestamp"]), *told]
    if wide:
        row += [about.get("fieldPath", ""), item["source"]["component"]]
    row.append(item["message"].strip())
    if wide:
        row += [age(item["firstTimestamp"]), str(item["count"]), item["metadata"]["name"]]
    return row


def _workload_entry(item: Json, _wide: bool) -> Row:
    metadata = item["metadata"]
    created = age(metadata["creationTimestamp"])
    return [metadata["name"], created, item["spec"].get("address", "")]


def _pod(item: Json) -> Row:
    status = item["status"]
    states = [*status.get("containerStatuses", ()), *status.get("initContainerStatuses", ())]
    total = len(item["spec"]["containers"]) + len(item["spec"].get("initContainers", ()))
    ready = sum(bool(container["ready"]) for container in states)
    shown = "Completed" if status["phase"] == "Succeeded" else status["phase"]
    for container in states:
        state = container["state"]
        reason = state.get("waiting", state.get("terminated", {})).get("reason")
        if reason and shown != "Completed":
            shown = reason
    if "deletionTimestamp" in item["metadata"]:
        shown = "Terminating"
    restarts = sum(container["restartCount"] for container in states)
    return [f"{ready}/{total}", shown, str(restarts)]


def _ready(item: Json) -> str:
    return f"{item['status']['readyReplicas']}/{item['spec'].get('replicas', 1)}"


def _deployment(item: Json) -> Row:
    status = item["status"]
    return [_ready(item), str(status["updatedReplicas"]), str(status["availableReplicas"])]


def _images(item: Json) -> Row:
    containers = item["spec"]["template"]["spec"]["containers"]
    return [
        ",".join(container["name"] for container in containers),
        ",".join(container["image"] for container in containers),
    ]


def _service(item: Json) -> Row:
    spec = item["spec"]
    none = "<pending>" if spec["type"] == "LoadBalancer" else "<none>"
    ports = (
        ":".join(str(port[key]) for key in ("port", "nodePort") if key in port)
        for port in spec.get("ports", ())
    )
    return [
        spec["type"],
        spec.get("clusterIP", "<none>"),
        spec.get("externalName") or none,
        ",".join(f"{port}/TCP" for port in ports) or "<none>",
    ]


def _data(item: Json) -> Row:
    return [str(sum(len(item.get(field) or {}) for field in ("data", "binaryData", "stringData")))]


def _field(item: Json, path: str) -> str:
    """Returns a field as a column of a custom resource shows it; empty when it is not set."""
    value: Any = item
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


def _custom(**paths: str) -> _Table:
    """Returns the table of a kind of Istio's: the paths of its columns below `spec`."""
    return _Table(
        tuple(name.upper() for name in paths),
        lambda item: [_field(item, f"spec.{path}") for path in paths.values()],
    )


def _budget(item: Json) -> Row:
    spec = item["spec"]
    limits = [str(spec.get(name, "N/A")) for name in ("minAvailable", "maxUnavailable")]
    return [*limits, str(item["status"]["disruptionsAllowed"])]


def _endpoints(item: Json) -> Row:
    places = [
        f"{address['ip']}:{port['port']}"
        for subset in item.get("subsets", ())
        for port in subset.get("ports", ())
        for address in subset.get("addresses", ())
    ]
    return [few(places) or "<none>"]


def _slice(item: Json) -> Row:
    ports = [str(port["port"]) for port in item.get("ports", ())]
    places = [one["addresses"][0] for one in item.get("endpoints", ())]
    return [item["addressType"], few(ports) or "<unset>", few(places) or "<unset>"]


_TABLES = {
    "Pod": _Table(
        ("READY", "STATUS", "RESTARTS"),
        _pod,
        ("IP", "NODE", "NOMINATED NODE", "READINESS GATES"),
        lambda item: [item["status"]["podIP"], "lab", "<none>", "<none>"],
    ),
    "Deployment": _Table(
        ("READY", "UP-TO-DATE", "AVAILABLE"),
        _deployment,
        ("CONTAINERS", "IMAGES", "SELECTOR"),
        lambda item: [*_images(item), selector(item["spec"]["selector"].get("matchLabels"))],
    ),
    "StatefulSet": _Table(
        ("READY",), lambda item: [_ready(item)], ("CONTAINERS", "IMAGES"), _images
    ),
    "Service": _Table(
        ("TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)"),
        _service,
        ("SELECTOR",),
        lambda item: [selector(item["spec"].get("selector"))],
    ),
    "Namespace": _Table(("STATUS",), lambda item: [item["status"]["phase"]]),
    "ConfigMap": _Table(("DATA",), _data),
    "Secret": _Table(("DATA",), _data),
    "VirtualService": _custom(gateways="gateways", hosts="hosts"),
    "DestinationRule": _custom(host="host"),
    "ServiceEntry": _custom(hosts="hosts", location="location", resolution="resolution"),
    "WorkloadEntry": _Table(
        ("NAME", "AGE", "ADDRESS"), wide_header=("NAME", "AGE", "ADDRESS"), whole=_workload_entry
    ),
    "PeerAuthentication": _custom(mode="mtls.mode"),
    "AuthorizationPolicy": _custom(action="action"),
    "ServiceAccount": _Table(("SECRETS",), lambda _item: ["0"]),
    "PodDisruptionBudget": _Table(
        ("MIN AVAILABLE", "MAX UNAVAILABLE", "ALLOWED DISRUPTIONS"), _budget
    ),
    "ReplicaSet": _Table(
        ("DESIRED", "CURRENT", "READY"),
        lambda item: [
            str(item["spec"]["replicas"]),
            *(str(item["status"][name]) for name in ("replicas", "readyReplicas")),
        ],
    ),
    "Endpoints": _Table(("ENDPOINTS",), _endpoints),
    "EndpointSlice": _Table(("ADDRESSTYPE", "PORTS", "ENDPOINTS"), _slice),
    "Event": _Table(
        ("LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"),
        wide_header=(
            *("LAST SEEN", "TYPE", "REASON", "OBJECT", "SUBOBJECT", "SOURCE", "MESSAGE"),
            *("FIRST SEEN", "COUNT", "NAME"),
        ),
        whole=_event,
    ),
    "Node": _Table(("STATUS", "ROLES"), lambda _item: ["Ready", "control-plane"]),
    "PersistentVolumeClaim": _Table(
        ("STATUS", "VOLUME", "ACCESS MODES"),
        lambda item: [item["status"]["phase"], item["spec"]["volumeName"], "RWO"],
    ),
}


def _table(kind: str) -> _Table:
    return _TABLES.get(kind, _Table())
