"""describe."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from lab.cli import references
from lab.cli.client import Client, FailureError
from lab.cli.context import Names, Namespace, Selector, client, namespace
from lab.cli.output import Json, age, columns, write, yaml_text


def describe(
    context: typer.Context,
    names: Names = None,
    namespace_: Namespace = None,
    selector: Selector = "",
) -> None:
    """Print an object in full, with its events.

    Example:
      guestbook describe pod ui-7d5c9b7f4-x2x8k
    """
    if not names:
        raise FailureError("say what to describe: a kind and a name")
    lab = client(context)
    where = namespace(context, namespace_)
    texts = []
    for kinds, some in references.split(names):
        query = {"kinds": kinds.split(","), "namespace": where, "selector": selector}
        for item in _found(lab, query, some):
            metadata = item["metadata"]
            place = {"name": metadata["name"], "namespace": metadata.get("namespace", "")}
            endpoints = _endpoints(lab, item)
            events = lab.call("events", kind=item["kind"], **place)
            texts.append(_described(item, events, endpoints))
    write("\n\n\n".join(texts) if texts else "No resources found")


def _found(lab: Client, query: Json, names: Sequence[str]) -> list[Json]:
    """Returns the objects of these names; for one that is not there those that begin with it."""
    try:
        found: list[Json] = lab.call("objects", names=names, **query)["items"]
    except FailureError as error:
        every = lab.call("objects", **query)["items"] if error.missing else []
        found = [
            item for name in names for item in every if item["metadata"]["name"].startswith(name)
        ]
        if not found:
            raise
    return found


def _endpoints(lab: Client, item: Json) -> list[Json]:
    """Returns the EndpointSlices of a Service."""
    if item["kind"] != "Service":
        return []
    metadata = item["metadata"]
    selector = f"kubernetes.io/service-name={metadata['name']}"
    query = {"kinds": ["endpointslices"], "namespace": metadata["namespace"], "selector": selector}
    slices: list[Json] = lab.call("objects", **query)["items"]
    return slices


def _described(item: Json, events: list[Json], endpoints: list[Json]) -> str:
    """Returns the object's metadata, its containers or its specification, and its events."""
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
    elif item["kind"] == "Service":
        lines += _service(item, endpoints)
    else:
        if ".istio.io/" in item["apiVersion"]:
            lines += [f"API Version:  {item['apiVersion']}", f"Kind:         {item['kind']}"]
        for field in ("spec", "data", "stringData", "subsets", "endpoints", "ports", "status"):
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


def _service(item: Json, endpoints: list[Json]) -> list[str]:
    spec = item["spec"]
    selector = ",".join(f"{k}={v}" for k, v in (spec.get("selector") or {}).items()) or "<none>"
    rows = [("Selector", selector), ("Type", spec["type"]), ("IP", spec.get("clusterIP", ""))]
    if other := spec.get("externalName"):
        rows.append(("External Name", other))
    if ingress := item["status"]["loadBalancer"].get("ingress"):
        rows.append(("LoadBalancer Ingress", ingress[0]["ip"]))
    for port in spec.get("ports", ()):
        name = port.get("name") or "<unset>"
        places = [
            f"{one['addresses'][0]}:{end['port']}"
            for found in endpoints
            for end in found.get("ports", ())
            if end.get("name", "") == port.get("name", "")
            for one in found.get("endpoints", ())
            if one.get("conditions", {}).get("ready") is not False
        ]
        rows += [
            ("Port", f"{name}  {port['port']}/TCP"),
            ("TargetPort", f"{port.get('targetPort', port['port'])}/TCP"),
            ("Endpoints", ",".join(places)),
        ]
    return [f"{title + ':':<14}{value}".rstrip() for title, value in rows]


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
