"""How objects are printed: tables like kubectl's, YAML, JSON, names, jsonpath."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from lab.cli.client import FailureError

Json = dict[str, Any]
Row = list[str]


def write(text: str, *, end: str = "\n") -> None:
    """To standard output, whatever that is at this moment."""
    sys.stdout.write(text + end)


def warn(text: str) -> None:
    """To standard error, in yellow on a terminal."""
    colour = sys.stderr.isatty()
    sys.stderr.write(f"\033[33mWarning:\033[0m {text}\n" if colour else f"Warning: {text}\n")


def age(stamp: str) -> str:
    """How long ago, as kubectl says it: 12s, 5m, 3h, 2d."""
    if not stamp:
        return "<unknown>"
    then = datetime.strptime(stamp, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    seconds = max(0, int((datetime.now(UTC) - then).total_seconds()))
    if seconds < 120:
        return f"{seconds}s"
    if seconds < 3600 * 2:
        return f"{seconds // 60}m"
    return f"{seconds // 3600}h" if seconds < 86400 * 2 else f"{seconds // 86400}d"


_STYLES = {
    "Running": "green",
    "Pending": "yellow",
    "Terminating": "yellow",
    "CrashLoopBackOff": "red",
    "CreateContainerConfigError": "red",
    "Error": "red",
    "StartError": "red",
    "Warning": "yellow",
}
"""How a cell looks on a terminal."""


def columns(header: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """The lines of a table, the header's first: as wide as it needs, coloured on a terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 3, 0, 0), header_style="bold")
    for title in header:
        table.add_column(Text(title), no_wrap=True)
    for cells in rows:
        table.add_row(*(Text(cell, _STYLES.get(cell, "")) for cell in cells))
    console = Console(width=10_000, force_terminal=sys.stdout.isatty(), file=io.StringIO())
    with console.capture() as captured:
        console.print(table)
    return [line.rstrip() for line in captured.get().splitlines()]


def _pod_status(item: Json) -> tuple[str, str, int]:
    status = item["status"]
    statuses = [*status.get("containerStatuses", ()), *status.get("initContainerStatuses", ())]
    total = len(item["spec"]["containers"]) + len(item["spec"].get("initContainers", ()))
    ready = sum(bool(container["ready"]) for container in statuses)
    shown = status["phase"]
    if shown == "Succeeded":
        shown = "Completed"
    for container in statuses:
        state = container["state"]
        reason = state.get("waiting", state.get("terminated", {})).get("reason")
        if reason and shown not in ("Completed",):
            shown = reason
    if "deletionTimestamp" in item["metadata"]:
        shown = "Terminating"
    restarts = sum(container["restartCount"] for container in statuses)
    return f"{ready}/{total}", shown, restarts


def _pods(item: Json, wide: bool) -> Row:
    ready, status, restarts = _pod_status(item)
    row = [ready, status, str(restarts), age(item["metadata"]["creationTimestamp"])]
    return [*row, item["status"]["podIP"], "lab"] if wide else row


def _images(item: Json) -> list[str]:
    containers = item["spec"]["template"]["spec"]["containers"]
    names = ",".join(container["name"] for container in containers)
    return [names, ",".join(container["image"] for container in containers)]


def _selector(values: Json | None) -> str:
    return ",".join(f"{key}={value}" for key, value in (values or {}).items()) or "<none>"


def _deployments(item: Json, wide: bool) -> Row:
    status, wanted = item["status"], item["spec"].get("replicas", 1)
    row = [
        f"{status['readyReplicas']}/{wanted}",
        str(status["updatedReplicas"]),
        str(status["availableReplicas"]),
        age(item["metadata"]["creationTimestamp"]),
    ]
    if wide:
        row += [*_images(item), _selector(item["spec"]["selector"].get("matchLabels"))]
    return row


def _stateful_sets(item: Json, wide: bool) -> Row:
    wanted = item["spec"].get("replicas", 1)
    ready = f"{item['status']['readyReplicas']}/{wanted}"
    row = [ready, age(item["metadata"]["creationTimestamp"])]
    return [*row, *_images(item)] if wide else row


def _services(item: Json, wide: bool) -> Row:
    spec = item["spec"]
    ingress = item["status"]["loadBalancer"].get("ingress", [])
    ports = ",".join(f"{port['port']}/TCP" for port in spec["ports"])
    row = [
        spec["type"],
        spec["clusterIP"],
        ",".join(place["ip"] for place in ingress) or "<none>",
        ports,
        age(item["metadata"]["creationTimestamp"]),
    ]
    return [*row, _selector(spec.get("selector"))] if wide else row


def _namespaces(item: Json, _wide: bool) -> Row:
    return [item["status"]["phase"], age(item["metadata"]["creationTimestamp"])]


def _data(item: Json, _wide: bool) -> Row:
    count = sum(len(item.get(field) or {}) for field in ("data", "binaryData", "stringData"))
    return [str(count), age(item["metadata"]["creationTimestamp"])]


def _hosts(item: Json, _wide: bool) -> Row:
    spec = item.get("spec", {})
    gateways, hosts = spec.get("gateways", []), spec.get("hosts", [])
    return [
        f"[{','.join(gateways)}]" if gateways else "",
        f"[{','.join(hosts)}]",
        age(item["metadata"]["creationTimestamp"]),
    ]


def _host(item: Json, _wide: bool) -> Row:
    return [item.get("spec", {}).get("host", ""), age(item["metadata"]["creationTimestamp"])]


def _plain(item: Json, _wide: bool) -> Row:
    return [age(item["metadata"]["creationTimestamp"])]


_WORKLOAD_WIDE = ("CONTAINERS", "IMAGES")
_TABLES: dict[str, tuple[tuple[str, ...], tuple[str, ...], Callable[[Json, bool], Row]]] = {
    "Pod": (("READY", "STATUS", "RESTARTS", "AGE"), ("IP", "NODE"), _pods),
    "Deployment": (
        ("READY", "UP-TO-DATE", "AVAILABLE", "AGE"),
        (*_WORKLOAD_WIDE, "SELECTOR"),
        _deployments,
    ),
    "StatefulSet": (("READY", "AGE"), _WORKLOAD_WIDE, _stateful_sets),
    "Service": (
        ("TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"),
        ("SELECTOR",),
        _services,
    ),
    "Namespace": (("STATUS", "AGE"), (), _namespaces),
    "ConfigMap": (("DATA", "AGE"), (), _data),
    "Secret": (("DATA", "AGE"), (), _data),
    "VirtualService": (("GATEWAYS", "HOSTS", "AGE"), (), _hosts),
    "DestinationRule": (("HOST", "AGE"), (), _host),
}


def row(item: Json, *, wide: bool) -> Row:
    """The cells of one object after its name."""
    return _TABLES.get(item["kind"], (("AGE",), (), _plain))[2](item, wide)


def header(kind: str, *, wide: bool) -> list[str]:
    names, more, _ = _TABLES.get(kind, (("AGE",), (), _plain))
    return ["NAME", *names, *(more if wide else ())]


def reference(item: Json) -> str:
    """`pod/ui-...`, `deployment.apps/ui`."""
    group = item["apiVersion"].rpartition("/")[0]
    kind = item["kind"].lower()
    name = item["metadata"]["name"]
    return f"{kind}.{group}/{name}" if group else f"{kind}/{name}"


def _labels(item: Json) -> str:
    return ",".join(f"{k}={v}" for k, v in (item["metadata"].get("labels") or {}).items())


def table(
    items: Sequence[Json],
    *,
    wide: bool,
    namespaces: bool,
    headers: bool = True,
    labels: bool = False,
) -> str:
    """One table a kind, as `kubectl get`."""
    tables = []
    kinds = list(dict.fromkeys(item["kind"] for item in items))
    for kind in kinds:
        chosen = [item for item in items if item["kind"] == kind]
        rows = []
        for item in chosen:
            name = reference(item) if len(kinds) > 1 else item["metadata"]["name"]
            where = [item["metadata"].get("namespace", "")] if namespaces else []
            last = [_labels(item) or "<none>"] if labels else []
            rows.append([*where, name, *row(item, wide=wide), *last])
        head = [*(["NAMESPACE"] if namespaces else []), *header(kind, wide=wide)]
        head += ["LABELS"] if labels else []
        lines = columns(head, rows)
        tables.append("\n".join(lines if headers else lines[1:]))
    return "\n\n".join(tables)


def yaml_text(value: Any) -> str:
    """YAML as kubectl prints it; text of several lines as a block."""
    import yaml

    class Dumper(yaml.SafeDumper):
        pass

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        style = "|" if "\n" in value else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    return yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True).rstrip("\n")


def listed(items: Iterable[Json]) -> Json:
    return {"apiVersion": "v1", "kind": "List", "items": list(items)}


def render(
    items: Sequence[Json],
    form: str | None,
    *,
    single: bool,
    namespaces: bool,
    headers: bool = True,
    labels: bool = False,
) -> str:
    """Objects in the form that `-o` asks for. Raises FailureError for an unknown one."""
    value = items[0] if single and items else listed(items)
    if form in (None, "", "wide"):
        return table(
            items, wide=form == "wide", namespaces=namespaces, headers=headers, labels=labels
        )
    if form == "json":
        return json.dumps(value, indent=4, ensure_ascii=False)
    if form == "yaml":
        return yaml_text(value)
    if form == "name":
        return "\n".join(reference(item) for item in items)
    kind, _, template = (form or "").partition("=")
    if kind == "jsonpath":
        from lab.cli.jsonpath import evaluate

        return evaluate(template, value)
    raise FailureError(
        f"unable to match a printer suitable for the output format {form!r}; "
        "allowed: json, yaml, name, wide, jsonpath=TEMPLATE"
    )
