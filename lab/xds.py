"""The few shapes that recur in Envoy's JSON: typed extensions, addresses, durations, files."""

from __future__ import annotations

import re
from datetime import timedelta

from lab.model import Json

TYPE_PREFIX = "type.googleapis.com/envoy."


def typed(kind: str, **fields: object) -> Json:
    """An `Any`: `kind` is the message without `type.googleapis.com/envoy.`."""
    return {"@type": f"{TYPE_PREFIX}{kind}", **fields}


def extension(name: str, kind: str, **fields: object) -> Json:
    """A named extension (a filter, a transport socket, ...) with its typed configuration."""
    return {"name": name, "typed_config": typed(kind, **fields)}


def duration(value: timedelta) -> str:
    """Protobuf's JSON form: `5s`, `0.25s`."""
    return f"{value.total_seconds():.6f}".rstrip("0").rstrip(".") + "s"


def socket_address(address: str, port: int) -> Json:
    return {"socket_address": {"address": address, "port_value": port}}


def file_name(resource: str) -> str:
    """A resource's name as a file name (`%` for the characters a path gives a meaning to)."""
    return re.sub(r"[%/\0]", lambda found: f"%{ord(found[0]):02X}", resource) + ".json"


def file_source(kind: str, resource: str) -> Json:
    """Where a proxy reads one of its resources: a file below the folder it runs in."""
    return {
        "path_config_source": {"path": f"./{kind}/{file_name(resource)}"},
        "resource_api_version": "V3",
    }


HTTP_PROTOCOL_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def http_protocol_options(**fields: object) -> Json:
    """A cluster's `typed_extension_protocol_options`."""
    return {
        HTTP_PROTOCOL_OPTIONS: typed("extensions.upstreams.http.v3.HttpProtocolOptions", **fields)
    }


ROUTER: Json = extension("envoy.filters.http.router", "extensions.filters.http.router.v3.Router")
TLS_INSPECTOR: Json = extension(
    "envoy.filters.listener.tls_inspector",
    "extensions.filters.listener.tls_inspector.v3.TlsInspector",
)
HTTP_INSPECTOR: Json = extension(
    "envoy.filters.listener.http_inspector",
    "extensions.filters.listener.http_inspector.v3.HttpInspector",
)
