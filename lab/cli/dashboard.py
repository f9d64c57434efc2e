"""dashboard: the lab's counterparts of istioctl's dashboards."""

from __future__ import annotations

from typing import Annotated

import typer

from lab.cli.client import FailureError

INSTEAD = {
    "kiali": "guestbook graph",
    "envoy": "guestbook port-forward deploy/ui 15000:15000, then http://localhost:15000",
    "zipkin": "guestbook port-forward svc/zipkin 9411:9411 -n istio-system (lesson 12 starts it)",
    "prometheus": "guestbook metrics, or a Prometheus of yours that reads the address that "
    "guestbook status says",
    "grafana": "docker compose --profile observability up (docs/compose.md)",
}


def dashboard(
    name: Annotated[str, typer.Argument(help="kiali, envoy, zipkin, prometheus or grafana.")],
    browser: Annotated[bool, typer.Option(help="Accepted, without effect.")] = True,  # noqa: ARG001
) -> None:
    """Say what the lab has instead of a dashboard of `istioctl dashboard`.

    Example:
      guestbook dashboard kiali
    """
    if name not in INSTEAD:
        raise FailureError(f"no dashboard {name}; there are {', '.join(INSTEAD)}")
    raise FailureError(f"the lab runs no {name}; instead: {INSTEAD[name]}")
