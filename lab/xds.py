"""Recurring parts of Envoy's JSON: typed extensions, addresses, durations, files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import TypeVar, overload

from lab.model import Json

T = TypeVar("T")

TYPE_PREFIX = "type.googleapis.com/envoy."


def given(**fields: object) -> Json:
    """Returns the fields that are not None."""
    return {key: value for key, value in fields.items() if value is not None}


def typed(kind: str, **fields: object) -> Json:
    """Returns an `Any`; `kind` is the message without `type.googleapis.com/envoy.`."""
    return {"@type": f"{TYPE_PREFIX}{kind}", **fields}


def extension(name: str, kind: str, **fields: object) -> Json:
    """Returns a named extension (a filter, a transport socket, ...) with its configuration."""
    return {"name": name, "typed_config": typed(kind, **fields)}


@overload
def duration(value: timedelta) -> str: ...
@overload
def duration(value: None) -> None: ...
def duration(value: timedelta | None) -> str | None:
    """Returns a duration in protobuf's JSON form: `5s`, `0.25s`."""
    if value is None:
        return None
    return f"{value.total_seconds():.6f}".rstrip("0").rstrip(".") + "s"


def socket_address(address: str, port: int) -> Json:
    return {"socket_address": {"address": address, "port_value": port}}


def address(bind: str, port: int) -> Json:
    """Returns an address of the network, or that of a Unix socket (`unix://PATH`)."""
    if bind.startswith("unix://"):
        return {"pipe": {"path": bind.removeprefix("unix://")}}
    return socket_address(bind, port)


def static_assignment(cluster: str, address: Json) -> Json:
    """Returns the `load_assignment` of a cluster with one endpoint."""
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    return {"cluster_name": cluster, "endpoints": endpoints}


def copied(value: T) -> T:
    """Returns a copy of JSON that shares no part with the original, nor one part with another."""
    copy: T = json.loads(json.dumps(value))
    return copy


def chains(listener: Json) -> list[Json]:
    """Returns the filter chains of a listener, the default one last."""
    default = listener.get("default_filter_chain")
    return [*listener.get("filter_chains", ()), *([default] if default else [])]


def filter_configs(listener: Json) -> Iterator[Json]:
    """Yields the configuration of each network filter of a listener's chains."""
    for chain in chains(listener):
        yield from (item.get("typed_config", {}) for item in chain.get("filters", ()))


def route_name(config: Json) -> str:
    """Returns the route configuration that an HTTP connection manager discovers, else nothing."""
    return str(config.get("rds", {}).get("route_config_name", ""))


def file_name(resource: str) -> str:
    """Returns a resource's name as a file name, with `%2F` for a slash."""
    return re.sub(r"[%/\0]", lambda found: f"%{ord(found[0]):02X}", resource) + ".json"


def file_source(path: str) -> Json:
    """Returns the config source of a file; a relative path is below the proxy's folder."""
    return {"path_config_source": {"path": path}, "resource_api_version": "V3"}


def resource_source(kind: str, resource: str) -> Json:
    """Returns the config source of one resource of a proxy."""
    return file_source(f"./{kind}/{file_name(resource)}")


SECRETS = "kubernetes://"
AUTHORITY = "-cacert"
"""The end of the name of a certificate authority: that of the other side of a connection."""


def served_secret(name: str) -> Json:
    """Returns the reference to a secret that istiod, or the agent of a proxy, serves."""
    return {"name": name, "sds_config": {"ads": {}, "resource_api_version": "V3"}}


def metadata(config: str) -> Json:
    """Returns the metadata of a part of the configuration that is from a resource."""
    return {"filter_metadata": {"istio": {"config": config}}}


HTTP_PROTOCOL_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def http_protocol_options(**fields: object) -> Json:
    """Returns the `typed_extension_protocol_options` of a cluster."""
    return {
        HTTP_PROTOCOL_OPTIONS: typed("extensions.upstreams.http.v3.HttpProtocolOptions", **fields)
    }


ROUTER: Json = extension("envoy.filters.http.router", "extensions.filters.http.router.v3.Router")
RAW_BUFFER: Json = extension(
    "envoy.transport_sockets.raw_buffer", "extensions.transport_sockets.raw_buffer.v3.RawBuffer"
)
ORIGINAL_DST: Json = extension(
    "envoy.filters.listener.original_dst",
    "extensions.filters.listener.original_dst.v3.OriginalDst",
)
TLS_INSPECTOR: Json = extension(
    "envoy.filters.listener.tls_inspector",
    "extensions.filters.listener.tls_inspector.v3.TlsInspector",
    initial_read_buffer_size=512,
)
HTTP_INSPECTOR: Json = extension(
    "envoy.filters.listener.http_inspector",
    "extensions.filters.listener.http_inspector.v3.HttpInspector",
)
