"""EnvoyFilter: patches of a finished proxy configuration, the last step of a translation.

The parts are matched by exact names on the JSON form; values are merged as protobuf messages, as in
istiod (`lab.resources.protobuf`), which is why nothing of it is imported without an EnvoyFilter.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import re2

from lab import names
from lab.kinds.envoy_filter import matching
from lab.kinds.envoy_filter.checks import CONNECTION_MANAGER, MESSAGES
from lab.kinds.envoy_filter.matching import Context
from lab.kinds.envoy_filter.types import ConfigPatch, EnvoyFilterSpec, Match
from lab.model import Json, Pod, ProxyConfig, Snapshot
from lab.resources.resource import Problem, Resource

KIND = "EnvoyFilter"
ISTIO_VERSION = "1.30.3"
"""What `match.proxy.proxyVersion` is compared with."""

_INSERTIONS = ("INSERT_BEFORE", "INSERT_AFTER", "INSERT_FIRST")
_LISTS = ("HTTP_FILTER", "NETWORK_FILTER", "LISTENER_FILTER", "HTTP_ROUTE")
"""What insertions are for; elsewhere they count as ADD."""


@dataclass(frozen=True, slots=True)
class PatchOf:
    """One patch, and where it is from."""

    filter: Resource
    index: int
    config: ConfigPatch

    @property
    def operation(self) -> str:
        operation = self.config.patch.operation if self.config.patch is not None else "INVALID"
        if operation in _INSERTIONS and self.config.apply_to not in _LISTS:
            return "ADD"
        return operation

    @property
    def match(self) -> Match:
        return self.config.match

    def value(self) -> Json:
        """A copy of the patch's value as the lab spells Envoy's configuration."""
        from lab.resources import protobuf

        patch = self.config.patch
        given = (patch.value if patch is not None else None) or {}
        return protobuf.normalize(MESSAGES[self.config.apply_to], given)


@dataclass(slots=True)
class Patching:
    """The patches for one proxy, and which of them have found something to patch."""

    snapshot: Snapshot
    pod: Pod
    patches: list[PatchOf]
    effective: set[tuple[str, str, int]] = field(default_factory=set)

    def each(self, apply_to: str, context: Context) -> Iterator[PatchOf]:
        for patch in self.patches:
            if patch.config.apply_to == apply_to and patch.match.context in ("ANY", context):
                yield patch

    def took(self, patch: PatchOf) -> None:
        self.effective.add((patch.filter.namespace, patch.filter.name, patch.index))

    def has_effect(self, patch: PatchOf) -> bool:
        return (patch.filter.namespace, patch.filter.name, patch.index) in self.effective


def applicable(snapshot: Snapshot, pod: Pod) -> list[PatchOf]:
    """The patches for a pod in their order: by priority, the root namespace's first, by age."""
    namespaces = (snapshot.root_namespace, pod.namespace)
    found = [
        resource
        for resource in snapshot.of(KIND)
        if resource.namespace in namespaces and names.selects(_labels(resource.spec), pod.labels)
    ]
    found.sort(
        key=lambda item: (
            item.spec.priority,
            item.namespace != snapshot.root_namespace,
            item.order,
            f"{item.name}.{item.namespace}",
        )
    )
    return [
        PatchOf(resource, index, patch)
        for resource in found
        for index, patch in enumerate(resource.spec.config_patches)
        if _same_version(patch.match)
    ]


def _labels(spec: EnvoyFilterSpec) -> dict[str, str]:
    return spec.workload_selector.labels if spec.workload_selector is not None else {}


def _same_version(match: Match) -> bool:
    pattern = match.proxy.proxy_version if match.proxy is not None else ""
    return not pattern or re2.search(pattern, ISTIO_VERSION) is not None


def apply(snapshot: Snapshot, pod: Pod, config: ProxyConfig) -> ProxyConfig:
    """The configuration with all patches for this pod applied."""
    patches = applicable(snapshot, pod)
    if not patches:
        return config
    return _patched(Patching(snapshot, pod, patches), config)


def effective(snapshot: Snapshot, pod: Pod, config: ProxyConfig) -> list[PatchOf]:
    """The patches for this pod that find something to patch in its configuration."""
    patching = Patching(snapshot, pod, applicable(snapshot, pod))
    _patched(patching, config)
    return [patch for patch in patching.patches if patching.has_effect(patch)]


def without_effect(
    resource: Resource, snapshot: Snapshot, generated: Callable[[Pod], ProxyConfig]
) -> Iterator[Problem]:
    """A warning for each patch of a filter that patches nothing in any proxy.

    `generated` is the configuration of a pod before EnvoyFilters. Istio says nothing: a name that
    is not exactly right just matches nothing.
    """
    effective: set[tuple[str, str, int]] = set()
    for pod in snapshot.pods:
        if pod.proxy == "none":
            continue
        patches = applicable(snapshot, pod)
        if any(patch.filter.name == resource.name for patch in patches):
            patching = Patching(snapshot, pod, patches)
            _patched(patching, generated(pod))
            effective |= patching.effective
    for index in range(len(resource.spec.config_patches)):
        if (resource.namespace, resource.name, index) not in effective:
            yield Problem(
                ("spec", "configPatches", index),
                "this patch matches nothing in any proxy of the lab: names are compared exactly "
                "(`guestbook proxy-config` shows them)",
                "warning",
            )


def _patched(patching: Patching, config: ProxyConfig) -> ProxyConfig:
    config = copy.deepcopy(config)
    return ProxyConfig(
        listeners=_listeners(patching, config),
        clusters=_clusters(patching, config),
        routes=[_outer_routes(patching, routes) for routes in config.routes],
        endpoints=config.endpoints,
    )


def _contexts(pod: Pod) -> tuple[Context, ...]:
    return ("GATEWAY",) if pod.proxy == "gateway" else ("SIDECAR_INBOUND", "SIDECAR_OUTBOUND")


def _context(pod: Pod, listener: Json) -> Context:
    if pod.proxy == "gateway":
        return "GATEWAY"
    inbound = listener.get("traffic_direction") == "INBOUND"
    return "SIDECAR_INBOUND" if inbound else "SIDECAR_OUTBOUND"


# --- listeners ------------------------------------------------------------------------------------


def _listeners(patching: Patching, config: ProxyConfig) -> list[Json]:
    ports = matching.outbound_ports(config.routes)
    result = []
    for listener in config.listeners:
        context = _context(patching.pod, listener)
        kept: Json | None = listener
        for patch in patching.each("LISTENER", context):
            if not matching.listener(listener, patch.match, ports, whole=True):
                continue
            if patch.operation == "REMOVE":
                patching.took(patch)
                kept = None
                break
            if patch.operation == "MERGE":
                patching.took(patch)
                kept = listener = _merge("LISTENER", listener, patch)
        if kept is not None:
            _inside_listener(patching, kept, context, ports)
            result.append(kept)
    for context in _contexts(patching.pod):
        for patch in patching.each("LISTENER", context):
            if patch.operation == "ADD" and _adds(patch, context):
                patching.took(patch)
                result.append(patch.value())
    return result


def _adds(patch: PatchOf, context: Context) -> bool:
    """Without a context something is added for outbound traffic and gateways only."""
    return patch.match.context == context or context != "SIDECAR_INBOUND"


def _inside_listener(patching: Patching, listener: Json, context: Context, ports: set[int]) -> None:
    for patch in patching.each("LISTENER_FILTER", context):
        if matching.listener(listener, patch.match, ports):
            wanted = patch.match.listener.listener_filter if patch.match.listener else ""
            filters = listener.setdefault("listener_filters", [])
            _edit(patching, filters, patch, matching.named(wanted), bool(wanted))
    chains: list[Json] = listener.get("filter_chains", [])
    listener["filter_chains"] = [
        chain
        for chain in chains
        if not chain.get("filters") or _chain(patching, listener, chain, context, ports)
    ]
    default = listener.get("default_filter_chain")
    if default and not _chain(patching, listener, default, context, ports):
        del listener["default_filter_chain"]
    for patch in patching.each("FILTER_CHAIN", context):
        if patch.operation == "ADD" and matching.listener(listener, patch.match, ports):
            patching.took(patch)
            listener["filter_chains"].append(patch.value())
    if not listener["filter_chains"]:
        del listener["filter_chains"]


def _chain(
    patching: Patching, listener: Json, chain: Json, context: Context, ports: set[int]
) -> bool:
    """Patch a filter chain in place; False when it is to be removed."""

    def here(patch: PatchOf) -> bool:
        return matching.listener(listener, patch.match, ports) and matching.chain(
            listener, chain, patch.match, ports
        )

    for patch in patching.each("FILTER_CHAIN", context):
        if not here(patch):
            continue
        if patch.operation == "REMOVE":
            patching.took(patch)
            return False
        if patch.operation == "MERGE":
            patching.took(patch)
            _merge_with_socket("FILTER_CHAIN", chain, patch)
    filters: list[Json] = chain["filters"]
    network = [patch for patch in patching.each("NETWORK_FILTER", context) if here(patch)]
    for patch in network:
        wanted = matching.filter_name(patch.match)
        _edit(patching, filters, patch, matching.named(wanted), bool(wanted))
    for patch in network:
        _merge_filters(patching, filters, patch, matching.named(matching.filter_name(patch.match)))
    http = [patch for patch in patching.each("HTTP_FILTER", context) if here(patch)]
    for item in filters:
        if item.get("name") == CONNECTION_MANAGER and "typed_config" in item:
            _manager(patching, item["typed_config"], http, context)
    return True


def _manager(patching: Patching, manager: Json, patches: list[PatchOf], context: Context) -> None:
    filters: list[Json] = manager.get("http_filters", [])
    chosen = [
        patch for patch in patches if matching.filter_name(patch.match) in ("", CONNECTION_MANAGER)
    ]
    for patch in chosen:
        wanted = matching.sub_filter_name(patch.match)
        _edit(patching, filters, patch, matching.named(wanted), bool(wanted))
    for patch in chosen:
        wanted = matching.sub_filter_name(patch.match)
        _merge_filters(patching, filters, patch, matching.named(wanted))
    if "route_config" in manager:
        manager["route_config"] = _routes(patching, manager["route_config"], context)


# --- lists of things with a name ------------------------------------------------------------------

_Chosen = Callable[[Json], bool]


def _edit(
    patching: Patching, items: list[Json], patch: PatchOf, chosen: _Chosen, matched: bool
) -> None:
    """Everything but MERGE on a list of filters, in place. `matched`: the patch names one."""
    operation = patch.operation
    if operation == "ADD" or (operation == "INSERT_AFTER" and not matched):
        items.append(patch.value())
    elif operation == "INSERT_FIRST" or (operation == "INSERT_BEFORE" and not matched):
        items.insert(0, patch.value())
    elif operation in ("INSERT_BEFORE", "INSERT_AFTER", "REPLACE") and matched:
        place = next((index for index, item in enumerate(items) if chosen(item)), None)
        if place is None:
            return
        if operation == "REPLACE":
            items[place] = patch.value()
        else:
            items.insert(place + (operation == "INSERT_AFTER"), patch.value())
    elif operation == "REMOVE" and matched:
        kept = [item for item in items if not chosen(item)]
        if len(kept) == len(items):
            return
        items[:] = kept
    elif operation == "MERGE" and patch.config.apply_to == "LISTENER_FILTER" and matched:
        _merge_filters(patching, items, patch, chosen)
        return
    else:
        return
    patching.took(patch)


def _merge_filters(patching: Patching, items: list[Json], patch: PatchOf, chosen: _Chosen) -> None:
    """MERGE: a filter takes the patch's name, and its `typed_config` when the types agree."""
    from lab.resources import protobuf

    if patch.operation != "MERGE":
        return
    value = patch.value()
    for item in items:
        if not chosen(item) or "typed_config" not in item:
            continue
        patching.took(patch)
        item["name"] = value.get("name") or item["name"]
        if "typed_config" in value:
            item["typed_config"] = protobuf.merge_any(item["typed_config"], value["typed_config"])


def _merge(apply_to: str, target: Json, patch: PatchOf) -> Json:
    from lab.resources import protobuf

    return protobuf.merge(MESSAGES[apply_to], target, patch.value())


def _merge_with_socket(apply_to: str, target: Json, patch: PatchOf) -> None:
    """MERGE of what may have a transport socket: one of the same name is merged, and alone."""
    from lab.resources import protobuf

    socket = patch.value().get("transport_socket")
    sockets = [match["transport_socket"] for match in target.get("transport_socket_matches", [])]
    several = bool(sockets)
    if not several and "transport_socket" in target:
        sockets = [target["transport_socket"]]
    if socket is None or (apply_to == "FILTER_CHAIN" and not sockets):
        merged = _merge(apply_to, target, patch)
        target.clear()
        target.update(merged)
        return
    same = next((one for one in sockets if one["name"] == socket["name"]), None)
    if same is not None and "typed_config" in same and "typed_config" in socket:
        same["typed_config"] = protobuf.merge_any(same["typed_config"], socket["typed_config"])
    elif not several:
        target["transport_socket"] = socket


# --- routes ---------------------------------------------------------------------------------------


def _outer_routes(patching: Patching, routes: Json) -> Json:
    context: Context = "GATEWAY" if patching.pod.proxy == "gateway" else "SIDECAR_OUTBOUND"
    return _routes(patching, routes, context)


def _routes(patching: Patching, routes: Json, context: Context) -> Json:
    ports = matching.gateway_ports(patching.snapshot, patching.pod)

    def here(patch: PatchOf) -> bool:
        return matching.route_configuration(routes, patch.match, context, ports)

    for patch in patching.each("ROUTE_CONFIGURATION", context):
        if patch.operation == "MERGE" and here(patch):
            patching.took(patch)
            routes = _merge("ROUTE_CONFIGURATION", routes, patch)
    hosts: list[Json] = []
    for original in routes.get("virtual_hosts", []):
        patched = _virtual_host(patching, original, context, here)
        if patched is not None:
            hosts.append(patched)
    for patch in patching.each("VIRTUAL_HOST", context):
        if patch.operation == "ADD" and here(patch):
            patching.took(patch)
            hosts.append(patch.value())
    return {**routes, "virtual_hosts": hosts}


def _virtual_host(
    patching: Patching, host: Json, context: Context, here: Callable[[PatchOf], bool]
) -> Json | None:
    for patch in patching.each("VIRTUAL_HOST", context):
        if not (here(patch) and matching.virtual_host(host, patch.match, context)):
            continue
        if patch.operation == "REMOVE":
            patching.took(patch)
            return None
        if patch.operation == "MERGE":
            patching.took(patch)
            host = _merge("VIRTUAL_HOST", host, patch)
        elif patch.operation == "REPLACE":
            patching.took(patch)
            host = patch.value()
    chosen = [
        patch
        for patch in patching.each("HTTP_ROUTE", context)
        if here(patch) and matching.virtual_host(host, patch.match, context)
    ]
    return {**host, "routes": _http_routes(patching, host.get("routes", []), chosen)}


def _http_routes(patching: Patching, routes: list[Json], patches: list[PatchOf]) -> list[Json]:
    result: list[Json] = []
    for original in routes:
        route: Json | None = original
        for patch in patches:
            if route is None or not matching.route(route, patch.match):
                continue
            if patch.operation == "REMOVE":
                patching.took(patch)
                route = None
            elif patch.operation == "MERGE":
                patching.took(patch)
                route = _merge("HTTP_ROUTE", route, patch)
        if route is not None:
            result.append(route)
    for patch in patches:
        if patch.operation == "ADD" or patch.operation in _INSERTIONS:
            _insert_route(patching, result, patch)
    return result


def _insert_route(patching: Patching, routes: list[Json], patch: PatchOf) -> None:
    wanted = patch.match.route_configuration
    vhost = wanted.vhost if wanted is not None else None
    matched = vhost is not None and vhost.route is not None
    place = next((i for i, route in enumerate(routes) if matching.route(route, patch.match)), None)
    if patch.operation == "ADD" or (patch.operation == "INSERT_AFTER" and not matched):
        place = len(routes)
    elif not matched:
        place = 0
    elif place is None:
        return
    elif patch.operation == "INSERT_FIRST":
        place = 0
    elif patch.operation == "INSERT_AFTER":
        place += 1
    patching.took(patch)
    routes.insert(place, patch.value())


# --- clusters -------------------------------------------------------------------------------------


def _clusters(patching: Patching, config: ProxyConfig) -> list[Json]:
    result: list[Json] = []
    for cluster in config.clusters:
        context = matching.cluster_context(patching.pod, cluster)
        removed = False
        for patch in patching.each("CLUSTER", context):
            if not matching.cluster(cluster, patch.match, patching.snapshot, patching.pod):
                continue
            if patch.operation == "REMOVE":
                patching.took(patch)
                removed = True
                break
            if patch.operation == "MERGE":
                patching.took(patch)
                _merge_with_socket("CLUSTER", cluster, patch)
        if not removed:
            result.append(cluster)
    known = {cluster["name"] for cluster in result}
    for context in _contexts(patching.pod):
        for patch in patching.each("CLUSTER", context):
            if patch.operation != "ADD" or not _adds(patch, context):
                continue
            added = patch.value()
            if added.get("name") not in known:
                patching.took(patch)
                known.add(added.get("name"))
                result.append(added)
    return result
