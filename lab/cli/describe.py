"""An object in full, for a person."""

from __future__ import annotations

from typing import Any

from lab.cli.output import age, columns, yaml_text

Json = dict[str, Any]


def description(item: Json, events: list[Json]) -> str:
    """The object's head, its containers or its specification, and its events."""
    metadata = item["metadata"]
    lines = [f"Name:         {metadata['name']}"]
    if metadata.get("namespace"):
        lines.append(f"Namespace:    {metadata['namespace']}")
    for title, field in (("Labels", "labels"), ("Annotations", "annotations")):
        values = [f"{k}={v}" for k, v in (metadata.get(field) or {}).items()] or ["<none>"]
        lines.append(f"{title + ':':<14}{values[0]}")
        lines += [" " * 14 + value for value in values[1:]]
    if item["kind"] == "Pod":
        lines += _pod(item)
    else:
        for field in ("spec", "data", "stringData", "status"):
            value = item.get(field)
            if field in ("data", "stringData") and item["kind"] == "Secret" and value:
                value = {key: f"{len(text)} characters" for key, text in value.items()}
            if value:
                lines.append(f"{field.capitalize()}:")
                lines += ["  " + line for line in yaml_text(value).splitlines()]
    lines.append("Events:")
    if not events:
        lines[-1] += "       <none>"
    else:
        rows = [[e["type"], e["reason"], _when(e), e["message"].replace("\n", " ")] for e in events]
        table = columns(["Type", "Reason", "Age", "Message"], rows)
        lines += ["  " + line for line in table]
    return "\n".join(lines)


def _when(event: Json) -> str:
    if event["count"] == 1:
        return age(event["last"])
    return f"{age(event['last'])} (x{event['count']} over {age(event['first'])})"


def _pod(item: Json) -> list[str]:
    spec, status = item["spec"], item["status"]
    owners = item["metadata"].get("ownerReferences", [])
    lines = [
        f"Account:      {spec['serviceAccountName']}",
        f"Status:       {status['phase']}",
        f"IP:           {status['podIP']}",
    ]
    if owners:
        lines.append(f"Controlled By:  {owners[0]['kind']}/{owners[0]['name']}")
    for title, specs, states in (
        ("Init Containers", "initContainers", "initContainerStatuses"),
        ("Containers", "containers", "containerStatuses"),
    ):
        if not spec.get(specs):
            continue
        lines.append(f"{title}:")
        by_name = {state["name"]: state for state in status.get(states, ())}
        for container in spec[specs]:
            lines += _container(container, by_name.get(container["name"]))
    lines.append("Conditions:")
    lines += [f"  {c['type']:<16}{c['status']}" for c in status["conditions"]]
    return lines


def _container(container: Json, state: Json | None) -> list[str]:
    lines = [f"  {container['name']}:", f"    Image:          {container['image']}"]
    if ports := container.get("ports"):
        shown = ", ".join(f"{port['containerPort']}/TCP" for port in ports)
        lines.append(f"    Ports:          {shown}")
    if state is not None:
        if "containerID" in state:
            lines.append(f"    Container ID:   {state['containerID']}")
        for title, field in (("State", "state"), ("Last State", "lastState")):
            for name, details in state.get(field, {}).items():
                lines.append(f"    {title + ':':<16}{name.capitalize()}")
                lines += [f"      {key}: {value}" for key, value in details.items()]
        lines.append(f"    Ready:          {state['ready']}")
        lines.append(f"    Restart Count:  {state['restartCount']}")
    if environment := container.get("env"):
        lines.append("    Environment:")
        for variable in environment:
            value = variable.get("value", "")
            if "valueFrom" in variable:
                (kind, source), *_ = variable["valueFrom"].items()
                value = f"<from {kind} {source.get('name', '')} {source.get('key', '')}>"
            lines.append(f"      {variable['name']}:  {value}")
    return lines
