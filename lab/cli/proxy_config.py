"""proxy-config: the configuration of a running proxy, in istioctl's tables."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Annotated, Any

import typer

from lab.cli.client import FailureError
from lab.cli.context import Namespace, Selector, client, namespace
from lab.cli.output import columns, write, yaml_text

LEVELS = ("trace", "debug", "info", "warning", "error", "critical", "off")


def proxy_config(
    context: typer.Context,
    kind: Annotated[
        str,
        typer.Argument(
            help="listeners, routes, clusters, endpoints, secret, all, bootstrap or log."
        ),
    ],
    target: Annotated[
        str, typer.Argument(metavar="POD | KIND/NAME", help="The pod that the proxy is in.")
    ] = "",
    port: Annotated[
        int, typer.Option(help="Only listeners, clusters or endpoints of this port.")
    ] = 0,
    fqdn: Annotated[
        str, typer.Option(help="Only clusters and endpoints of hosts with this in their name.")
    ] = "",
    direction: Annotated[str, typer.Option(help="Only clusters: inbound or outbound.")] = "",
    subset: Annotated[str, typer.Option(help="Only clusters of this subset.")] = "",
    address: Annotated[str, typer.Option(help="Only listeners or endpoints at this address.")] = "",
    type_: Annotated[
        str, typer.Option("--type", help="Only listeners: HTTP, TCP or HTTP+TCP.")
    ] = "",
    status: Annotated[str, typer.Option(help="Only endpoints: HEALTHY or UNHEALTHY.")] = "",
    name: Annotated[
        str, typer.Option("--name", "--cluster", help="Only the resource with this very name.")
    ] = "",
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", help="json or yaml for all that Envoy has, or short, the default."
        ),
    ] = None,
    level: Annotated[
        str,
        typer.Option(help="With log: the new level, of all loggers or as http:debug,rbac:info."),
    ] = "",
    reset: Annotated[
        bool, typer.Option("--reset", "-r", help="With log: back to the level warning.")
    ] = False,
    selector: Selector = "",
    namespace_: Namespace = None,
) -> None:
    """Print a proxy's configuration, as `istioctl proxy-config` does.

    It is istiod's. Where pods have no network of their own, Envoy has it in
    another form: its admin page shows that, with `guestbook exec POD
    -c istio-proxy -- pilot-agent request GET config_dump`.
    In JSON and YAML it has istioctl's names of fields, camelCase.
    `log` prints the levels of Envoy's loggers, and sets them with --level.

    Examples:
      guestbook proxy-config routes deploy/istio-ingressgateway -n istio-system
      guestbook proxy-config clusters deploy/ui --fqdn message-service.default.svc.cluster.local
      guestbook proxy-config endpoints deploy/ui --port 8080 --status UNHEALTHY
      guestbook proxy-config secret deploy/ui -o json
      guestbook proxy-config log deploy/message-service --level rbac:debug
    """
    from lab.cli.proxies import chosen
    from lab.cli.proxy_config_tables import (
        OPTIONS,
        TABLES,
        Filter,
        as_sent,
        bootstrap_rows,
        in_json,
        named,
    )

    kind = named(kind)
    if kind not in (*TABLES, "all", "bootstrap", "log"):
        known = ", ".join(TABLES)
        raise FailureError(f"unknown {kind!r}; there are {known}, all, bootstrap and log")
    if output not in (None, "short", "json", "yaml"):
        raise FailureError(
            f'output format "{output}" not supported: there are json, yaml and short'
        )
    if not target and not (kind == "log" and selector):
        raise FailureError(f"{kind} requires a pod: a name or KIND/NAME")
    if kind != "log" and (level or reset or selector):
        raise FailureError("--level, --reset and --selector belong to proxy-config log")
    wanted = Filter(port, fqdn, name, direction, subset, address, type_, status)
    for field in fields(wanted):
        if getattr(wanted, field.name) and field.name not in OPTIONS.get(kind, ()):
            owners = [one for one, options in OPTIONS.items() if field.name in options]
            raise FailureError(f"--{field.name} belongs to proxy-config {', '.join(owners)}")
    levels = _levels(level, reset)
    if kind == "log" and output not in (None, "short"):
        raise FailureError("--output is not applicable for this command")
    proxies = chosen(client(context), namespace(context, namespace_), target, selector)
    if kind == "log":
        for one in proxies:
            known = one.loggers()
            for logger, value in levels.items():
                if logger != ALL and f"  {logger}: " not in known:
                    raise FailureError(f"unrecognized logger name: {logger}")
                known = one.loggers(**{logger: value})
            write(f"{one.name}.{one.namespace}:\n{known}", end="")
        return
    proxy = proxies[0]
    if kind == "bootstrap":
        dump = json.loads(proxy.page("/config_dump", resource="", mask=""))
        (found,) = [one for one in dump["configs"] if one["@type"].endswith(".BootstrapConfigDump")]
        found.pop("@type")
        if output == "short":
            write("\n".join(bootstrap_rows(found)))
        else:
            _write(in_json("envoy.admin.v3.BootstrapConfigDump", found), output)
        return
    if kind == "all" and output in ("json", "yaml"):
        # The one form that is Envoy's own, field names and all.
        dump = proxy.page("/config_dump", include_eds="on")
        _write(as_sent(json.loads(dump), proxy.sent()), output)
        return
    for table_name in TABLES if kind == "all" else (kind,):
        table = TABLES[table_name]
        options = {"format": "json"} if table.page == "/clusters" else {"include_eds": "on"}
        page = as_sent(json.loads(proxy.page(table.page, **options)), proxy.sent())
        items = table.items(page, wanted)
        if output in ("json", "yaml"):
            _write(table.in_json(items), output)
            continue
        if kind == "all":
            write(f"{table_name.upper()}:")
        write("\n".join(columns(table.header, table.rows(items))))
        if kind == "all":
            write("")


def _write(value: Any, output: str | None) -> None:
    write(yaml_text(value) if output == "yaml" else json.dumps(value, indent=4, ensure_ascii=False))


ALL = "level"
"""The parameter of Envoy's admin page that sets all loggers."""


def _levels(text: str, reset: bool) -> dict[str, str]:
    """Returns the level to set for each logger, all of them first. Raises FailureError."""
    if text and reset:
        raise FailureError("--level cannot be combined with --reset")
    levels: dict[str, str] = {ALL: "warning"} if reset else {}
    for part in filter(None, text.split(",")):
        logger, _, level = part.rpartition("::")[2].replace("=", ":").rpartition(":")
        if level not in LEVELS:
            raise FailureError(
                f"unrecognized logging level: {level}; there are {', '.join(LEVELS)}"
            )
        levels[logger or ALL] = level
    return dict(sorted(levels.items(), key=lambda item: item[0] != ALL))
