"""EnvoyFilter: types of the API of Istio.

Written by `python -m scripts.istio_schema` from lab/resources/istio.json.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from lab.kinds.types import WorkloadSelector
from lab.resources.resource import Model
from lab.resources.values import Int32, Unsigned


class ClusterMatch(Model):
    name: str = ""
    port_number: Unsigned = 0
    service: str = ""
    subset: str = ""


class SubFilterMatch(Model):
    name: str = ""


class FilterMatch(Model):
    name: str = ""
    sub_filter: SubFilterMatch = SubFilterMatch()


class FilterChainMatch(Model):
    application_protocols: str = ""
    destination_port: Unsigned = 0
    filter: FilterMatch = FilterMatch()
    name: str = ""
    sni: str = ""
    transport_protocol: str = ""


class ListenerMatch(Model):
    filter_chain: FilterChainMatch = FilterChainMatch()
    listener_filter: str = ""
    name: str = ""
    port_name: str | None = None
    port_number: Unsigned = 0


class ProxyMatch(Model):
    metadata: Any = None
    proxy_version: str = ""


class RouteMatch(Model):
    action: Literal["ANY", "ROUTE", "REDIRECT", "DIRECT_RESPONSE"] = "ANY"
    name: str = ""


class VirtualHostMatch(Model):
    domain_name: str = ""
    name: str = ""
    route: RouteMatch = RouteMatch()


class RouteConfigurationMatch(Model):
    gateway: str = ""
    name: str = ""
    port_name: str = ""
    port_number: Unsigned = 0
    vhost: VirtualHostMatch = VirtualHostMatch()


class Match(Model):
    one_of = (("listener", "routeConfiguration", "cluster", "waypoint"),)
    cluster: ClusterMatch | None = None
    context: Literal["ANY", "SIDECAR_INBOUND", "SIDECAR_OUTBOUND", "GATEWAY", "WAYPOINT"] = "ANY"
    listener: ListenerMatch | None = None
    proxy: ProxyMatch = ProxyMatch()
    route_configuration: RouteConfigurationMatch | None = None
    waypoint: Any = None


class Patch(Model):
    filter_class: Any = None
    operation: Literal[
        "INVALID",
        "MERGE",
        "ADD",
        "REMOVE",
        "INSERT_BEFORE",
        "INSERT_AFTER",
        "INSERT_FIRST",
        "REPLACE",
        "MERGE_AND_REPLACE_LIST",
    ] = "INVALID"
    value: dict[str, Any] | None = None


class ConfigPatch(Model):
    apply_to: Literal[
        "INVALID",
        "LISTENER",
        "FILTER_CHAIN",
        "NETWORK_FILTER",
        "HTTP_FILTER",
        "ROUTE_CONFIGURATION",
        "VIRTUAL_HOST",
        "HTTP_ROUTE",
        "CLUSTER",
        "EXTENSION_CONFIG",
        "BOOTSTRAP",
        "LISTENER_FILTER",
    ] = "INVALID"
    match: Match = Match()
    patch: Patch = Patch()


class EnvoyFilterSpec(Model):
    config_patches: list[ConfigPatch] = Field(default_factory=list)
    priority: Int32 = 0
    target_refs: Any = None
    workload_selector: WorkloadSelector | None = None


class EnvoyFilter(Model):
    spec: EnvoyFilterSpec = EnvoyFilterSpec()
