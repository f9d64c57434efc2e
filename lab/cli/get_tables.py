"""The columns of `get`, kind by kind, as kubectl prints them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lab.cli.output import Json, Row, age, columns, reference


def _none(_item: Json) -> Row:
    return []


@dataclass(frozen=True, slots=True)
class _Table:
    """The columns of a kind between NAME and AGE, and those that `-o wide` adds."""

    header: tuple[str, ...] = ()
    cells: Callable[[Json], Row] = _none
    wide_header: tuple[str, ...] = ()
    wide_cells: Callable[[Json], Row] = _none


def cells(item: Json) -> Row:
    """Returns the cells of an object between its name and its age."""
    return _table(item["kind"]).cells(item)


def table(
    items: Sequence[Json],
    *,
    wide: bool,
    namespaces: bool,
    headers: bool = True,
    labels: bool = False,
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
                    reference(item) if len(kinds) > 1 else metadata["name"],
                    *shape.cells(item),
                    age(metadata["creationTimestamp"]),
                    *(shape.wide_cells(item) if wide else []),
                    *([_pairs(metadata.get("labels"))] if labels else []),
                ]
            )
        head = [
            *(["NAMESPACE"] if namespaces else []),
            "NAME",
            *shape.header,
            "AGE",
            *(shape.wide_header if wide else ()),
            *(["LABELS"] if labels else []),
        ]
        lines = columns(head, rows)
        texts.append("\n".join(lines if headers else lines[1:]))
    return "\n\n".join(texts)


def _pairs(values: dict[str, Any] | None) -> str:
    return ",".join(f"{key}={value}" for key, value in (values or {}).items()) or "<none>"


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
    ingress = item["status"]["loadBalancer"].get("ingress", [])
    return [
        spec["type"],
        spec["clusterIP"],
        ",".join(place["ip"] for place in ingress) or "<none>",
        ",".join(f"{port['port']}/TCP" for port in spec["ports"]),
    ]


def _data(item: Json) -> Row:
    return [str(sum(len(item.get(field) or {}) for field in ("data", "binaryData", "stringData")))]


def _virtual_service(item: Json) -> Row:
    spec = item.get("spec", {})
    gateways = spec.get("gateways", [])
    return [f"[{','.join(gateways)}]" if gateways else "", f"[{','.join(spec.get('hosts', []))}]"]


_TABLES = {
    "Pod": _Table(
        ("READY", "STATUS", "RESTARTS"),
        _pod,
        ("IP", "NODE"),
        lambda item: [item["status"]["podIP"], "lab"],
    ),
    "Deployment": _Table(
        ("READY", "UP-TO-DATE", "AVAILABLE"),
        _deployment,
        ("CONTAINERS", "IMAGES", "SELECTOR"),
        lambda item: [*_images(item), _pairs(item["spec"]["selector"].get("matchLabels"))],
    ),
    "StatefulSet": _Table(
        ("READY",), lambda item: [_ready(item)], ("CONTAINERS", "IMAGES"), _images
    ),
    "Service": _Table(
        ("TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)"),
        _service,
        ("SELECTOR",),
        lambda item: [_pairs(item["spec"].get("selector"))],
    ),
    "Namespace": _Table(("STATUS",), lambda item: [item["status"]["phase"]]),
    "ConfigMap": _Table(("DATA",), _data),
    "Secret": _Table(("DATA",), _data),
    "VirtualService": _Table(("GATEWAYS", "HOSTS"), _virtual_service),
    "DestinationRule": _Table(("HOST",), lambda item: [item.get("spec", {}).get("host", "")]),
}


def _table(kind: str) -> _Table:
    return _TABLES.get(kind, _Table())
