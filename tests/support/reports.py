"""Reports of requests, as the lab reads them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lab.observe.requests import Request, Workload

UI = Workload("default", "ui", "ui", "1.0", "ui", "1.0", "ui-1", "ui-sa", meshed=True)
MESSAGE = replace(UI, name="message", app="message", service="message", pod="message-1")
BARE = replace(UI, name="curl", app="curl", service="curl", pod="curl", meshed=False)
GATEWAY = replace(
    UI, namespace="istio-system", name="gw", service="gw", pod="gw-1", gateway=True, meshed=True
)


def request(**changes: Any) -> Request:
    """Returns a call of the ui to message that went well, with changes."""
    values: dict[str, Any] = {
        "time": 1.0,
        "reporter": "source",
        "kind": "http",
        "event": "closed",
        "source": UI,
        "destination": MESSAGE,
        "service": "message.default.svc.cluster.local",
        "service_namespace": "default",
        "port": 80,
        "protocol": "HTTP/1.1",
        "method": "GET",
        "path": "/",
        "authority": "message",
        "request_id": "1",
        "code": 200,
        "grpc_status": "",
        "flags": (),
        "details": "via_upstream",
        "termination": "",
        "failure": "",
        "duration": 10.0,
        "received": 0,
        "sent": 0,
        "attempts": 1,
        "cluster": "",
        "upstream": "",
        "address": "",
        "virtual_host": "",
        "lines": {},
        "source_principal": "",
        "destination_principal": "",
        "mutual_tls": True,
        "connection": 1,
    }
    return Request(**{**values, **changes})
