"""Checks of an EnvoyFilter: istiod's validation beyond the schema, and the lab's limits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lab.kinds.envoy_filter.types import ConfigPatch, EnvoyFilter, Match
from lab.kinds.selection import TARGET_REFS, selector
from lab.resources.checks import never, newer, refused, warned
from lab.resources.istio import kind
from lab.resources.resource import Check, Path, Problem
from lab.resources.values import regex_problem

MESSAGES = {
    "LISTENER": "envoy.config.listener.v3.Listener",
    "LISTENER_FILTER": "envoy.config.listener.v3.ListenerFilter",
    "FILTER_CHAIN": "envoy.config.listener.v3.FilterChain",
    "NETWORK_FILTER": "envoy.config.listener.v3.Filter",
    "HTTP_FILTER": ("envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter"),
    "ROUTE_CONFIGURATION": "envoy.config.route.v3.RouteConfiguration",
    "VIRTUAL_HOST": "envoy.config.route.v3.VirtualHost",
    "HTTP_ROUTE": "envoy.config.route.v3.Route",
    "CLUSTER": "envoy.config.cluster.v3.Cluster",
}
"""The message of Envoy's API that a patch of each `applyTo` is a part of."""

CONNECTION_MANAGER = "envoy.filters.network.http_connection_manager"
LISTENER_CLASS = ("LISTENER", "LISTENER_FILTER", "FILTER_CHAIN", "NETWORK_FILTER", "HTTP_FILTER")
ROUTE_CLASS = ("ROUTE_CONFIGURATION", "VIRTUAL_HOST", "HTTP_ROUTE")

_DEPRECATED_NAMES = {
    "envoy.http_connection_manager": CONNECTION_MANAGER,
    "envoy.tcp_proxy": "envoy.filters.network.tcp_proxy",
    "envoy.redis_proxy": "envoy.filters.network.redis_proxy",
    "envoy.ratelimit": "envoy.filters.network.ratelimit",
    "envoy.router": "envoy.filters.http.router",
    "envoy.cors": "envoy.filters.http.cors",
    "envoy.fault": "envoy.filters.http.fault",
    "envoy.http_dynamo_filter": "envoy.filters.http.dynamo",
    "envoy.ext_authz": "envoy.filters.http.ext_authz",
    "envoy.rate_limit": "envoy.filters.http.ratelimit",
    "envoy.buffer": "envoy.filters.http.buffer",
    "envoy.gzip": "envoy.filters.http.gzip",
    "envoy.health_check": "envoy.filters.http.health_check",
    "envoy.grpc_web": "envoy.filters.http.grpc_web",
    "envoy.lua": "envoy.filters.http.lua",
}
"""Names of filters before Envoy 1.17, which are gone, and those of today."""


def _config_patch(config: ConfigPatch) -> Iterator[Problem]:
    applied, patch = config.apply_to, config.patch
    if applied == "INVALID":
        yield Problem((), "Envoy filter: missing applyTo")
    elif applied not in MESSAGES:
        reason = f"not supported by the lab: {applied}; {', '.join(MESSAGES)} are"
        yield Problem(("applyTo",), reason)
    elif "patch" not in config.model_fields_set:
        yield Problem((), "Envoy filter: missing patch")
    elif patch.operation == "INVALID":
        yield Problem(("patch",), "Envoy filter: missing patch operation")
    elif patch.value is None and patch.operation != "REMOVE":
        yield Problem(("patch",), "Envoy filter: missing patch value for non-remove operation")
    else:
        version = config.match.proxy.proxy_version
        if version and (problem := regex_problem(version)):
            where = ("match", "proxy", "proxyVersion")
            yield Problem(where, f"Envoy filter: invalid regex for proxy version, [{problem}]")
        yield from _match(config.match, applied)
        if patch.value is not None:
            yield from _value(patch.value, MESSAGES[applied])


_CLASSES = (
    (
        ("LISTENER", "FILTER_CHAIN", "NETWORK_FILTER", "HTTP_FILTER"),
        "listener",
        "listener class objects cannot have non listener match",
    ),
    (
        ROUTE_CLASS,
        "route_configuration",
        "http route class objects cannot have non route configuration match",
    ),
    (("CLUSTER",), "cluster", "cluster class objects cannot have non cluster match"),
)
"""The objects that a patch applies to, the match they take, and the message about another."""


def _match(match: Match, applied: str) -> Iterator[Problem]:
    given = {name for _, name, _ in _CLASSES if getattr(match, name) is not None}
    for classes, wanted, what in _CLASSES:
        if applied in classes and wanted not in given and given:
            yield Problem(("match",), f"Envoy filter: applyTo for {what}")
    listener = match.listener if applied in _CLASSES[0][0] else None
    if listener is None or "filter" not in listener.filter_chain.model_fields_set:
        return
    chosen = listener.filter_chain.filter
    where: Path = ("match", "listener", "filterChain", "filter")
    if applied in ("LISTENER", "FILTER_CHAIN"):
        reason = f"Envoy filter: filter match has no effect when used with {applied}"
        yield Problem(where, reason, "warning")
    if not chosen.name:
        yield Problem(where, "Envoy filter: filter match has no name to match on")
        return
    yield from _deprecated(chosen.name, (*where, "name"))
    if "sub_filter" not in chosen.model_fields_set:
        return
    inner: Path = (*where, "subFilter")
    if applied != "HTTP_FILTER":
        reason = "Envoy filter: subfilter match can be used with applyTo HTTP_FILTER only"
        yield Problem(inner, reason)
    elif chosen.name not in (CONNECTION_MANAGER, "envoy.http_connection_manager"):
        reason = f"Envoy filter: subfilter match requires filter match with {CONNECTION_MANAGER}"
        yield Problem(where, reason)
    elif not chosen.sub_filter.name:
        yield Problem(inner, "Envoy filter: subfilter match has no name to match on")
    else:
        yield from _deprecated(chosen.sub_filter.name, (*inner, "name"))


def _deprecated(name: str, path: Path) -> Iterator[Problem]:
    if (current := _DEPRECATED_NAMES.get(name)) is not None:
        yield Problem(
            path,
            f'using deprecated filter name "{name}"; use "{current}" instead; nothing has the old '
            "name, so the patch matches nothing",
            "warning",
        )


def _value(value: dict[str, Any], name: str) -> Iterator[Problem]:
    from lab.resources import protobuf  # Slow to import, and few manifests need it.

    where: Path = ("patch", "value")
    try:
        protobuf.parse(name, value)
    except protobuf.UnknownTypeError as error:
        hint = " (hint: try using the v3 XDS API)" if ".v2." in str(error) else ""
        what = f"Envoy filter: could not resolve Any message type: type.googleapis.com/{error}"
        yield Problem(where, f"referenced type unknown{hint}: {what}")
        return
    except protobuf.InvalidError as error:
        yield Problem(where, str(error))
        return
    try:
        protobuf.parse(name, value, strict=True)
    except protobuf.InvalidError as error:
        yield Problem(where, f"Envoy filter: {error}; Istio drops it", "warning")
        return
    if missing := protobuf.without_config(protobuf.parse(name, value)):
        reason = f"using deprecated types by name without typed_config; {', '.join(missing)}"
        yield Problem(where, reason, "warning")


CHECKS = (
    TARGET_REFS,
    warned(
        "**.listener.portName",
        "the lab remarks: Istio does not look at portName here; use portNumber",
    ),
    refused("**.proxy.metadata", "the metadata of a proxy; select pods by labels"),
    newer("**.filterChain.transportSocket", "1.32"),
    refused("**.match.waypoint", "waypoints (ambient mode); the lab has sidecars"),
    refused("**.patch.filterClass", "filterClass; say the place with INSERT_BEFORE and a match"),
    Check(
        "spec",
        never,
        "EnvoyFilter exposes internal implementation details that may change at any time. Prefer "
        "other APIs if possible, and exercise extreme caution, especially around upgrades.",
        "warning",
    ),
    *selector(
        "spec.workloadSelector",
        "Envoy filter: workload selector specified without labels, will be applied to all services "
        "in namespace",
    ),
    Check(
        "spec.configPatches[].match.context",
        lambda context: context != "WAYPOINT",
        "not supported by the lab: waypoints",
    ),
    Check("spec.configPatches[]", _config_patch),
)

KINDS = (kind("EnvoyFilter", EnvoyFilter, CHECKS),)
