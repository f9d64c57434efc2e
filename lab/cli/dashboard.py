"""dashboard: the admin page of a proxy, and the lab's counterparts of other dashboards."""

from __future__ import annotations

from typing import Annotated

import typer

from lab.cli import complete
from lab.cli.client import FailureError
from lab.cli.context import Namespace, Selector, client, namespace
from lab.cli.port_forward import forward

INSTEAD = {
    "kiali": "guestbook graph",
    "zipkin": "guestbook port-forward svc/zipkin 9411:9411 -n istio-system (lesson 12 starts it)",
    "prometheus": "guestbook metrics, or a Prometheus of yours that reads the address that "
    "guestbook status says",
    "grafana": "docker compose --profile observability up (docs/compose.md)",
}
PROXY = ("envoy", "proxy")
ADMIN = 15000


def dashboard(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="envoy, kiali, zipkin, prometheus or grafana.")],
    pod: Annotated[
        str,
        typer.Argument(
            metavar="[POD | KIND/NAME]", help="With envoy.", autocompletion=complete.pods
        ),
    ] = "",
    port: Annotated[int, typer.Option("--port", "-p", help="With envoy: on this port.")] = ADMIN,
    address: Annotated[str, typer.Option(help="With envoy: on this address.")] = "127.0.0.1",
    browser: Annotated[bool, typer.Option(help="Accepted, without effect.")] = True,  # noqa: ARG001
    selector: Selector = "",
    namespace_: Namespace = None,
) -> None:
    """Serve the admin page of a proxy until Ctrl-C, or say what the lab has instead of a dashboard.

    Examples:
      guestbook dashboard envoy deploy/ui
      guestbook dashboard kiali
    """
    if name in PROXY:
        if not (pod or selector):
            raise FailureError(f"say which proxy: guestbook dashboard {name} deploy/ui")
        _serve(context, pod, selector, namespace(context, namespace_), address, port)
        return
    if name not in INSTEAD:
        raise FailureError(f"no dashboard {name}; there are {', '.join(('envoy', *INSTEAD))}")
    raise FailureError(f"the lab runs no {name}; instead: {INSTEAD[name]}")


def _serve(
    context: typer.Context, pod: str, selector: str, where: str, address: str, port: int
) -> None:
    from lab.cli.proxies import chosen

    proxy = chosen(client(context), where, pod, selector)[0]
    page = f"The admin page of {proxy.name}.{proxy.namespace}: http://"
    forward(context, f"pod/{proxy.name}", [f"{port}:{ADMIN}"], address, proxy.namespace, page)
