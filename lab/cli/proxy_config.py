"""proxy-config: the configuration of a running proxy, in istioctl's tables."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from lab.cli.client import FailureError
from lab.cli.context import Namespace, client, namespace
from lab.cli.output import columns, write


def proxy_config(
    context: typer.Context,
    kind: Annotated[
        str,
        typer.Argument(help="listeners, routes, clusters, endpoints, secret or all."),
    ],
    target: Annotated[
        str, typer.Argument(metavar="POD | KIND/NAME", help="The pod that the proxy is in.")
    ],
    port: Annotated[int, typer.Option(help="Only resources for this port.")] = 0,
    fqdn: Annotated[str, typer.Option(help="Only clusters and endpoints of this host.")] = "",
    name: Annotated[
        str, typer.Option("--name", "--cluster", help="Only the resource with this very name.")
    ] = "",
    output: Annotated[
        str, typer.Option("--output", "-o", help="json for all that Envoy has, or short.")
    ] = "short",
    namespace_: Namespace = None,
) -> None:
    """Print a proxy's configuration, as `istioctl proxy-config` does.

    It is istiod's. Where pods have no network of their own, Envoy has it in
    another form: its admin page shows that, with `guestbook exec POD
    -c istio-proxy -- pilot-agent request GET config_dump`.

    Examples:
      guestbook proxy-config routes deploy/istio-ingressgateway -n istio-system
      guestbook proxy-config clusters deploy/ui --fqdn message-service.default.svc.cluster.local
      guestbook proxy-config endpoints deploy/ui --port 80
      guestbook proxy-config secret deploy/ui -o json
    """
    from lab.cli.proxies import chosen
    from lab.cli.proxy_config_tables import TABLES, Filter, as_sent, named

    kind = named(kind)
    if kind not in (*TABLES, "all"):
        raise FailureError(f"unknown {kind!r}; there are {', '.join(TABLES)} and all")
    if output not in ("short", "json"):
        raise FailureError(f"-o {output}: there are short and json")
    proxy = chosen(client(context), namespace(context, namespace_), target)
    wanted = Filter(port, fqdn, name)
    shown: dict[str, Any] = {}
    for one in TABLES if kind == "all" else (kind,):
        table = TABLES[one]
        options = {"format": "json"} if table.page == "/clusters" else {"include_eds": "on"}
        page = as_sent(json.loads(proxy.page(table.page, **options)), proxy.sent())
        items = table.items(page, wanted)
        if output == "json":
            shown[one] = items
            continue
        if kind == "all":
            write(f"{one.upper()}:")
        write("\n".join(columns(table.header, table.rows(items))))
        if kind == "all":
            write("")
    if output == "json":
        write(json.dumps(shown if kind == "all" else shown[kind], indent=2))
