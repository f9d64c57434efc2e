"""Reports: a line of each proxy for each request and connection, in place of `istio.stats`.

Istio's own filter, which no stock Envoy has, makes metrics of what a proxy handled. Here each HTTP
connection manager, TCP proxy and listener of istiod's layout has one more access log, which the
lab reads (`lab/observe`): JSON objects on standard output, whose first key is `names.REPORT`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from lab import names
from lab.kinds.virtual_service import becomes as virtual_service
from lab.kinds.virtual_service import delegate
from lab.kinds.virtual_service.types import HTTPMatchRequest
from lab.model import Json, Pod, ProxyConfig, Snapshot
from lab.resources.resource import Origin, Path
from lab.xds import extension

CONNECTIONS = "5s"
"""The interval of reports about an open TCP connection, Istio's `tcp_reporting_duration`."""

FORMAT: Mapping[str, str] = {
    "time": "%START_TIME(%s.%6f)%",
    "type": "%ACCESS_LOG_TYPE%",
    "microseconds": "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%",
    "milliseconds": "%DURATION%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "authority": "%REQ(:AUTHORITY)%",
    "protocol": "%PROTOCOL%",
    "content_type": "%REQ(CONTENT-TYPE)%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "code": "%RESPONSE_CODE%",
    "grpc_status": "%GRPC_STATUS_NUMBER%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "termination": "%CONNECTION_TERMINATION_DETAILS%",
    "upstream_failure": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    "downstream_failure": "%DOWNSTREAM_TRANSPORT_FAILURE_REASON%",
    "received": "%BYTES_RECEIVED%",
    "sent": "%BYTES_SENT%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "cluster": "%UPSTREAM_CLUSTER_RAW%",
    "services": "%METADATA(CLUSTER:istio:services)%",
    "upstream": "%UPSTREAM_HOST%",
    "virtual_host": "%CEL(xds.virtual_host_name)%",
    "rule": "%METADATA(ROUTE:lab)%",
    "client": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%",
    "address": "%DOWNSTREAM_LOCAL_ADDRESS%",
    "connection": "%CONNECTION_ID%",
}
"""The fields of a report; those without a value are null."""

OF_SIDE: Mapping[str, Mapping[str, str]] = {
    "source": {
        "source_principal": "%UPSTREAM_LOCAL_URI_SAN%",
        "destination_principal": "%UPSTREAM_PEER_URI_SAN%",
        "link": "%UPSTREAM_LOCAL_ADDRESS%",
    },
    "destination": {
        "source_principal": "%DOWNSTREAM_PEER_URI_SAN%",
        "destination_principal": "%DOWNSTREAM_LOCAL_URI_SAN%",
        "link": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%",
    },
}
"""Further fields, by the side of the proxy; `link` is the caller's address between the proxies."""

_OPEN: Json = {"types": ["TcpUpstreamConnected", "TcpPeriodic"]}
_NOT_HANDLED: Json = {
    "or_filter": {
        "filters": [
            {"response_flag_filter": {"flags": ["NR"]}},
            {
                "extension_filter": extension(
                    "envoy.access_loggers.extension_filters.cel",
                    "extensions.access_loggers.filters.cel.v3.ExpressionFilter",
                    expression="connection.transport_failure_reason != ''",
                )
            },
        ]
    }
}
"""Connections of which no filter of a chain tells: no chain matched, or TLS failed."""


@dataclass(frozen=True, slots=True)
class Place:
    """A match of a VirtualService's rule, and the places of the rule."""

    match: HTTPMatchRequest | None
    config: Json
    """The match as Envoy has it."""
    lines: Mapping[str, str]
    """`file:line` of the rule, under the empty name, and of its fields by theirs."""


Places = Mapping[str, Sequence[Place]]
"""The rules of each VirtualService, by the name that Istio's metadata gives it."""


def places(snapshot: Snapshot) -> Places:
    """Returns the places of all rules that routes may come from."""
    return {
        resource.config_path: [
            # spec.http[i], not the match in it.
            Place(match, virtual_service.match_config(match), _lines(origin.path[:3], origin))
            for rule in delegate.rules(snapshot, resource)
            for match, origin in rule.matches
        ]
        for resource in snapshot.of("VirtualService")
    }


_FIELDS = (
    *(("fault", "abort"), ("fault", "delay"), ("timeout",), ("retries",)),
    *(("redirect",), ("directResponse",)),
)


def _lines(path: Path, origin: Origin) -> dict[str, str]:
    source = origin.source
    if source is None:
        return {}
    written = [field for field in _FIELDS if (*path, *field) in source.lines]
    return {"": source.at(*path)} | {".".join(field): source.at(*path, *field) for field in written}


def reporting(config: ProxyConfig, pod: Pod, known: Places) -> ProxyConfig:
    """Returns a proxy's configuration with reports; routes tell the place of their rule."""
    inbound = names.INBOUND_LISTENER
    return replace(
        config,
        listeners=[
            _listener(item, "destination" if item["name"] == inbound else "source", pod, known)
            for item in config.listeners
        ],
        routes=[_with_places(item, pod, known) for item in config.routes],
    )


def _listener(listener: Json, reporter: str, pod: Pod, known: Places) -> Json:
    def changed(chain: Json) -> Json:
        filters = [_filter(item, reporter, pod, known) for item in chain.get("filters", ())]
        return chain | {"filters": filters}

    own = _logger(reporter, type="Listener") | {"filter": _NOT_HANDLED}
    result = listener | {"access_log": [*listener.get("access_log", ()), own]}
    result["filter_chains"] = [changed(chain) for chain in listener.get("filter_chains", ())]
    if default := listener.get("default_filter_chain"):
        result["default_filter_chain"] = changed(default)
    return result


def _filter(item: Json, reporter: str, pod: Pod, known: Places) -> Json:
    config = item.get("typed_config", {})
    loggers = config.get("access_log", [])
    if "http_filters" in config:
        config = config | {"access_log": [*loggers, _logger(reporter)]}
        if (routes := config.get("route_config")) is not None:
            config["route_config"] = _with_places(routes, pod, known)
    elif str(config.get("@type", "")).endswith(".TcpProxy"):
        config = config | {
            "access_log": [*map(_at_end, loggers), _logger(reporter)],
            "access_log_options": {
                "flush_access_log_on_connected": True,
                "access_log_flush_interval": CONNECTIONS,
            },
        }
    return item | ({"typed_config": config} if config else {})


def _logger(reporter: str, **fields: str) -> Json:
    return extension(
        "envoy.access_loggers.file",
        "extensions.access_loggers.file.v3.FileAccessLog",
        path="/dev/stdout",
        log_format={
            "json_format": {names.REPORT: reporter, **FORMAT, **OF_SIDE[reporter], **fields}
        },
    )


def _at_end(logger: Json) -> Json:
    """Returns a logger that knows nothing of the reports about open connections."""
    conditions = [{"log_type_filter": {**_OPEN, "exclude": True}}]
    if "filter" in logger:
        conditions.append(logger["filter"])
        return logger | {"filter": {"and_filter": {"filters": conditions}}}
    return logger | {"filter": conditions[0]}


def _with_places(routes: Json, pod: Pod, known: Places) -> Json:
    """Returns a route configuration whose routes have the place of their rule as metadata."""
    return _each(
        routes,
        "virtual_hosts",
        lambda host: _each(host, "routes", lambda route: _with_place(route, pod, known)),
    )


def _each(owner: Json, key: str, change: Callable[[Json], Json]) -> Json:
    return owner | {key: [change(item) for item in owner[key]]} if key in owner else owner


def _with_place(route: Json, pod: Pod, known: Places) -> Json:
    metadata = route.get("metadata", {})
    for place in known.get(_config(metadata), ()):
        if place.config == route["match"] and _concerns(place.match, pod):
            filters = metadata["filter_metadata"] | {"lab": dict(place.lines)}
            return route | {"metadata": metadata | {"filter_metadata": filters}}
    return route


def _config(metadata: Json) -> str:
    return str(metadata.get("filter_metadata", {}).get("istio", {}).get("config", ""))


def _concerns(match: HTTPMatchRequest | None, pod: Pod) -> bool:
    return match is None or (
        names.selects(match.source_labels, pod.labels)
        and match.source_namespace in (None, "", pod.namespace)
    )
