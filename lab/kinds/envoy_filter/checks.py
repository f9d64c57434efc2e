"""EnvoyFilter: the typed body and what istiod's validation says about it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from lab.kinds.selection import TARGET_REFS
from lab.resources.istio import (
    Integer,
    IstioModel,
    Text,
    field_problems,
    ignored,
    refused,
    regex_problem,
)
from lab.resources.resource import Kind, Path, Problem, Resource

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
"""What a patch of each `applyTo` is a part of."""

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
"""Names that Envoy had before version 1.17; nothing is called so any more."""

Context = Literal["ANY", "SIDECAR_INBOUND", "SIDECAR_OUTBOUND", "GATEWAY", "WAYPOINT"]
Operation = Literal[
    "INVALID",
    "MERGE",
    "ADD",
    "REMOVE",
    "INSERT_BEFORE",
    "INSERT_AFTER",
    "INSERT_FIRST",
    "REPLACE",
]


class SubFilterMatch(IstioModel):
    name: Text = ""


class FilterMatch(IstioModel):
    name: Text = ""
    sub_filter: SubFilterMatch | None = None


class FilterChainMatch(IstioModel):
    name: Text = ""
    sni: Text = ""
    transport_protocol: Text = ""
    application_protocols: Text = ""
    destination_port: Integer = 0
    filter: FilterMatch | None = None


class ListenerMatch(IstioModel):
    name: Text = ""
    port_number: Integer = 0
    port_name: Text | None = ignored("Istio does not look at portName here; use portNumber")
    filter_chain: FilterChainMatch | None = None
    listener_filter: Text = ""


class RouteMatch(IstioModel):
    name: Text = ""
    action: Literal["ANY", "ROUTE", "REDIRECT", "DIRECT_RESPONSE"] = "ANY"


class VirtualHostMatch(IstioModel):
    name: Text = ""
    domain_name: Text = ""
    route: RouteMatch | None = None


class RouteConfigurationMatch(IstioModel):
    name: Text = ""
    port_number: Integer = 0
    port_name: Text = ""
    gateway: Text = ""
    vhost: VirtualHostMatch | None = None


class ClusterMatch(IstioModel):
    name: Text = ""
    port_number: Integer = 0
    service: Text = ""
    subset: Text = ""


class ProxyMatch(IstioModel):
    proxy_version: Text = ""
    metadata: dict[str, str] | None = refused("the metadata of a proxy; select pods by labels")


class Match(IstioModel):
    context: Context = "ANY"
    proxy: ProxyMatch | None = None
    listener: ListenerMatch | None = None
    route_configuration: RouteConfigurationMatch | None = None
    cluster: ClusterMatch | None = None
    waypoint: dict[str, Any] | None = refused("waypoints (ambient mode); the lab has sidecars")


class Patch(IstioModel):
    operation: Operation = "INVALID"
    value: dict[str, Any] | None = None
    filter_class: Text | None = refused("filterClass; say the place with INSERT_BEFORE and a match")


class ConfigPatch(IstioModel):
    apply_to: Literal[
        "INVALID",
        "LISTENER",
        "LISTENER_FILTER",
        "FILTER_CHAIN",
        "NETWORK_FILTER",
        "HTTP_FILTER",
        "ROUTE_CONFIGURATION",
        "VIRTUAL_HOST",
        "HTTP_ROUTE",
        "CLUSTER",
        "EXTENSION_CONFIG",
        "BOOTSTRAP",
    ] = "INVALID"
    match: Match = Match()
    patch: Patch | None = None


class WorkloadSelector(IstioModel):
    labels: dict[Text, Text] = Field(default_factory=dict)


class EnvoyFilterSpec(IstioModel):
    workload_selector: WorkloadSelector | None = None
    target_refs: list[Any] | None = refused(TARGET_REFS)
    config_patches: list[ConfigPatch] = Field(default_factory=list)
    priority: Integer = 0


class EnvoyFilter(IstioModel):
    spec: EnvoyFilterSpec = EnvoyFilterSpec()


def validate(resource: Resource) -> Iterator[Problem]:
    """What istiod's webhook says of an EnvoyFilter, and what the lab does not translate."""
    spec: EnvoyFilterSpec = resource.spec
    path: Path = ("spec",)
    yield from field_problems(spec, path)
    yield Problem(
        path,
        "EnvoyFilter exposes internal implementation details that may change at any time. Prefer "
        "other APIs if possible, and exercise extreme caution, especially around upgrades.",
        "warning",
    )
    if spec.workload_selector is not None and not spec.workload_selector.labels:
        yield Problem(
            (*path, "workloadSelector"),
            "workload selector specified without labels, will be applied to all services in "
            "namespace",
            "warning",
        )
    for index, patch in enumerate(spec.config_patches):
        yield from _config_patch(patch, (*path, "configPatches", index))


def _config_patch(config: ConfigPatch, path: Path) -> Iterator[Problem]:
    applied = config.apply_to
    if applied == "INVALID":
        yield Problem(path, "Envoy filter: missing applyTo")
        return
    if applied not in MESSAGES:
        yield Problem(
            (*path, "applyTo"), f"not supported by the lab: {applied}; {', '.join(MESSAGES)} are"
        )
        return
    if config.match.context == "WAYPOINT":
        yield Problem((*path, "match", "context"), "not supported by the lab: waypoints")
    patch = config.patch
    if patch is None:
        yield Problem(path, "Envoy filter: missing patch")
        return
    if patch.operation == "INVALID":
        yield Problem((*path, "patch"), "Envoy filter: missing patch operation")
        return
    if patch.value is None and patch.operation != "REMOVE":
        yield Problem(
            (*path, "patch"), "Envoy filter: missing patch value for non-remove operation"
        )
        return
    version = config.match.proxy.proxy_version if config.match.proxy is not None else ""
    if version and (problem := regex_problem(version)):
        yield Problem(
            (*path, "match", "proxy", "proxyVersion"),
            f"Envoy filter: invalid regex for proxy version, [{problem}]",
        )
    yield from _match(config.match, applied, (*path, "match"))
    if patch.value is not None:
        yield from _value(patch.value, applied, (*path, "patch", "value"))


def _match(match: Match, applied: str, path: Path) -> Iterator[Problem]:
    listener, routes, cluster = match.listener, match.route_configuration, match.cluster
    for classes, wanted, others, what in (
        (LISTENER_CLASS, listener, (routes, cluster), "listener class objects cannot have non "
         "listener match"),
        (ROUTE_CLASS, routes, (listener, cluster), "http route class objects cannot have non "
         "route configuration match"),
        (("CLUSTER",), cluster, (listener, routes), "cluster class objects cannot have non "
         "cluster match"),
    ):  # fmt: skip
        if applied in classes and wanted is None and any(other is not None for other in others):
            yield Problem(path, f"Envoy filter: applyTo for {what}")
    if listener is None or listener.filter_chain is None or listener.filter_chain.filter is None:
        return
    chosen = listener.filter_chain.filter
    where: Path = (*path, "listener", "filterChain", "filter")
    if applied in ("LISTENER", "FILTER_CHAIN"):
        yield Problem(
            where,
            f"Envoy filter: filter match has no effect when used with {applied}",
            "warning",
        )
    if not chosen.name:
        yield Problem(where, "Envoy filter: filter match has no name to match on")
        return
    yield from _deprecated(chosen.name, (*where, "name"))
    if chosen.sub_filter is None:
        return
    inner: Path = (*where, "subFilter")
    if applied != "HTTP_FILTER":
        yield Problem(
            inner, "Envoy filter: subfilter match can be used with applyTo HTTP_FILTER only"
        )
    elif chosen.name not in (CONNECTION_MANAGER, "envoy.http_connection_manager"):
        yield Problem(
            where,
            f"Envoy filter: subfilter match requires filter match with {CONNECTION_MANAGER}",
        )
    elif not chosen.sub_filter.name:
        yield Problem(inner, "Envoy filter: subfilter match has no name to match on")
    else:
        yield from _deprecated(chosen.sub_filter.name, (*inner, "name"))


def _deprecated(name: str, path: Path) -> Iterator[Problem]:
    if (current := _DEPRECATED_NAMES.get(name)) is not None:
        yield Problem(
            path,
            f'using deprecated filter name "{name}"; use "{current}" instead: nothing has the old '
            "name, so the patch matches nothing",
            "warning",
        )


def _value(value: dict[str, Any], applied: str, path: Path) -> Iterator[Problem]:
    from lab.resources import protobuf

    name = MESSAGES[applied]
    try:
        protobuf.parse(name, value)
    except protobuf.UnknownTypeError as error:
        hint = " (hint: try using the v3 XDS API)" if ".v2." in str(error) else ""
        yield Problem(path, f"referenced type unknown{hint}: {error}")
        return
    except protobuf.InvalidError as error:
        yield Problem(path, str(error))
        return
    try:
        protobuf.parse(name, value, strict=True)
    except protobuf.InvalidError as error:
        yield Problem(path, f"Istio drops what Envoy doesn't know: {error}", "warning")


KINDS: tuple[Kind, ...] = (
    Kind(
        group="networking.istio.io",
        kind="EnvoyFilter",
        plural="envoyfilters",
        versions=("v1alpha3",),
        body=EnvoyFilter,
        validate=validate,
    ),
)
