"""EnvoyFilter: patches of a finished proxy configuration, the last step of a translation.

Patches match by exact names in the JSON form; values are merged as protobuf messages, as in istiod
(`lab.resources.protobuf`). Without an EnvoyFilter nothing of protobuf is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

import re2

from lab import versions
from lab.kinds import selection
from lab.kinds.envoy_filter import matching
from lab.kinds.envoy_filter.checks import CONNECTION_MANAGER, MESSAGES
from lab.kinds.envoy_filter.matching import Context
from lab.kinds.envoy_filter.types import ConfigPatch, Match
from lab.model import Json, Pod, ProxyConfig, Snapshot
from lab.resources.resource import Problem, Resource
from lab.xds import copied

_INSERTIONS = ("INSERT_BEFORE", "INSERT_AFTER", "INSERT_FIRST")
_MERGES = ("MERGE", "MERGE_AND_REPLACE_LIST")
"""The merges of whole objects; filters in a list know the first alone."""

_LISTS = ("HTTP_FILTER", "NETWORK_FILTER", "LISTENER_FILTER", "HTTP_ROUTE")
"""The parts with insertions; elsewhere an insertion counts as ADD."""

Key = tuple[str, str, int]
"""A patch: namespace and name of its filter, its index there."""


@dataclass(frozen=True, slots=True)
class PatchOf:
    """One patch with its filter."""

    filter: Resource
    index: int
    config: ConfigPatch

    @property
    def key(self) -> Key:
        return self.filter.namespace, self.filter.name, self.index

    @property
    def operation(self) -> str:
        operation = self.config.patch.operation
        if operation in _INSERTIONS and self.config.apply_to not in _LISTS:
            return "ADD"
        return operation

    @property
    def match(self) -> Match:
        return self.config.match

    def value(self) -> Json:
        """Returns a copy of the patch's value in the lab's spelling of Envoy's configuration."""
        from lab.resources import protobuf

        return protobuf.normalize(MESSAGES[self.config.apply_to], self.config.patch.value or {})


@dataclass(slots=True)
class Patching:
    """The patches for one proxy, and those of them that have found something to patch."""

    snapshot: Snapshot
    pod: Pod
    patches: list[PatchOf]
    applied: set[Key] = field(default_factory=set)

    def each(self, apply_to: str, context: Context) -> Iterator[PatchOf]:
        for patch in self.patches:
            if patch.config.apply_to == apply_to and patch.match.context in ("ANY", context):
                yield patch

    def each_added(self, apply_to: str) -> Iterator[PatchOf]:
        """Yields the patches that add a listener or a cluster.

        Without a context it is added for outbound traffic and gateways only.
        """
        contexts: tuple[Context, ...] = ("SIDECAR_INBOUND", "SIDECAR_OUTBOUND")
        if self.pod.proxy == "gateway":
            contexts = ("GATEWAY",)
        for context in contexts:
            for patch in self.each(apply_to, context):
                wanted = patch.match.context == context or context != "SIDECAR_INBOUND"
                if patch.operation == "ADD" and wanted:
                    yield patch

    def mark_applied(self, patch: PatchOf) -> None:
        self.applied.add(patch.key)


def applicable(snapshot: Snapshot, pod: Pod) -> list[PatchOf]:
    """Returns the patches for a pod in order: by priority, the root namespace's first, by age."""
    found = selection.for_pod(snapshot, "EnvoyFilter", pod)
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


def _same_version(match: Match) -> bool:
    pattern = match.proxy.proxy_version
    return not pattern or re2.search(pattern, versions.istio()) is not None


def apply(snapshot: Snapshot, pod: Pod, config: ProxyConfig) -> ProxyConfig:
    """Returns a configuration with all patches for its pod."""
    patches = applicable(snapshot, pod)
    return _patched(Patching(snapshot, pod, patches), config) if patches else config


def effective(snapshot: Snapshot, pod: Pod, config: ProxyConfig) -> list[PatchOf]:
    """Returns the patches for a pod that find something to patch in its configuration."""
    patching = Patching(snapshot, pod, applicable(snapshot, pod))
    _patched(patching, config)
    return [patch for patch in patching.patches if patch.key in patching.applied]


def without_effect(
    resource: Resource, snapshot: Snapshot, generated: Callable[[Pod], ProxyConfig]
) -> Iterator[Problem]:
    """Yields a warning for each patch of a filter that patches nothing in any proxy.

    `generated` returns the configuration of a pod before EnvoyFilters. Istio gives no warning when
    a name is not exactly right.
    """
    found: set[Key] = set()
    for pod in snapshot.pods:
        own = applicable(snapshot, pod) if pod.proxy != "none" else ()
        if any(patch.filter.name == resource.name for patch in own):
            found |= {patch.key for patch in effective(snapshot, pod, generated(pod))}
    for index in range(len(resource.spec.config_patches)):
        if (resource.namespace, resource.name, index) not in found:
            yield Problem(
                ("spec", "configPatches", index),
                "this patch matches nothing in any proxy of the lab: names are compared exactly "
                "(`guestbook proxy-config` shows them)",
                "warning",
            )


def _patched(patching: Patching, config: ProxyConfig) -> ProxyConfig:
    listeners, clusters, routes = map(copied, (config.listeners, config.clusters, config.routes))
    context: Context = "GATEWAY" if patching.pod.proxy == "gateway" else "SIDECAR_OUTBOUND"
    patched = _clusters(patching, clusters)
    known = {cluster.get("name") for cluster in patched}
    return replace(
        config,
        listeners=_listeners(patching, listeners),
        clusters=patched,
        routes=[_routes(patching, one, context) for one in routes],
        endpoints=[item for item in config.endpoints if item["cluster_name"] in known],
    )


def _changed(
    patching: Patching,
    patches: Iterable[PatchOf],
    item: Json,
    fits: Callable[[Json, Match], bool],
) -> Json | None:
    """Returns an item after the patches that fit it; None when one of them removes it."""
    for patch in patches:
        replaces = patch.operation == "REPLACE" and patch.config.apply_to == "VIRTUAL_HOST"
        changes = replaces or patch.operation in (*_MERGES, "REMOVE")
        if not changes or not fits(item, patch.match):
            continue
        patching.mark_applied(patch)
        if patch.operation == "REMOVE":
            return None
        item = patch.value() if replaces else _merged(item, patch)
    return item


def _merged(item: Json, patch: PatchOf) -> Json:
    """Returns an item after MERGE; a transport socket is merged alone, with one of its name."""
    from lab.resources import protobuf

    apply_to = patch.config.apply_to
    value = patch.value()
    matches: list[Json] = item.get("transport_socket_matches", [])
    socket = value.get("transport_socket") if apply_to in ("FILTER_CHAIN", "CLUSTER") else None
    plain = not matches and "transport_socket" not in item
    if socket is None or (apply_to == "FILTER_CHAIN" and plain):
        replaced = patch.operation == "MERGE_AND_REPLACE_LIST"
        return protobuf.merge(MESSAGES[apply_to], item, value, replace_lists=replaced)
    for owner in matches or [item]:
        own = owner.get("transport_socket", {})
        if own.get("name") == socket["name"] and "typed_config" in own and "typed_config" in socket:
            own["typed_config"] = protobuf.merge_any(own["typed_config"], socket["typed_config"])
            return item
    return item if matches else {**item, "transport_socket": socket}


# --- listeners ------------------------------------------------------------------------------------


def _listeners(patching: Patching, listeners: list[Json]) -> list[Json]:
    result = []
    for original in listeners:
        context = matching.listener_context(patching.pod, original)
        listener = _changed(
            patching,
            patching.each("LISTENER", context),
            original,
            lambda item, match: matching.listener(item, match, whole=True),
        )
        if listener is not None:
            _patch_inside(patching, listener, context)
            result.append(listener)
    for patch in patching.each_added("LISTENER"):
        patching.mark_applied(patch)
        result.append(patch.value())
    return result


def _patch_inside(patching: Patching, listener: Json, context: Context) -> None:
    """Patches a listener's filters and filter chains in place."""
    for patch in patching.each("LISTENER_FILTER", context):
        if matching.listener(listener, patch.match):
            wanted = patch.match.listener.listener_filter if patch.match.listener else ""
            filters = listener.setdefault("listener_filters", [])
            _edit(patching, filters, patch, wanted)
            if wanted:
                _merge_filters(patching, filters, patch, wanted)
    chains = [
        patched
        for chain in listener.get("filter_chains", [])
        if (patched := _chain(patching, listener, chain, context)) is not None
    ]
    default = listener.get("default_filter_chain")
    if default and (default := _chain(patching, listener, default, context)) is None:
        del listener["default_filter_chain"]
    elif default:
        listener["default_filter_chain"] = default
    for patch in patching.each("FILTER_CHAIN", context):
        if patch.operation == "ADD" and matching.listener(listener, patch.match):
            patching.mark_applied(patch)
            chains.append(patch.value())
    listener["filter_chains"] = chains
    if not chains:
        del listener["filter_chains"]


def _chain(patching: Patching, listener: Json, original: Json, context: Context) -> Json | None:
    """Returns a filter chain after its patches; None when it is removed."""

    def fits(chain: Json, match: Match) -> bool:
        return matching.listener(listener, match) and matching.chain(listener, chain, match)

    if not original.get("filters"):
        return original
    chain = _changed(patching, patching.each("FILTER_CHAIN", context), original, fits)
    if chain is None:
        return None
    filters: list[Json] = chain["filters"]
    network = [p for p in patching.each("NETWORK_FILTER", context) if fits(chain, p.match)]
    _patch_filters(patching, filters, network, matching.filter_name)
    http = [
        patch
        for patch in patching.each("HTTP_FILTER", context)
        if fits(chain, patch.match)
        and matching.filter_name(patch.match) in ("", CONNECTION_MANAGER)
    ]
    for item in filters:
        if item.get("name") == CONNECTION_MANAGER and "typed_config" in item:
            manager: Json = item["typed_config"]
            inner = manager.get("http_filters", [])
            _patch_filters(patching, inner, http, matching.sub_filter_name)
            if "route_config" in manager:
                manager["route_config"] = _routes(patching, manager["route_config"], context)
    return chain


# --- lists of filters -----------------------------------------------------------------------------


def _patch_filters(
    patching: Patching, items: list[Json], patches: list[PatchOf], name_in: Callable[[Match], str]
) -> None:
    """Patches a list of filters in place, MERGE last."""
    for patch in patches:
        _edit(patching, items, patch, name_in(patch.match))
    for patch in patches:
        _merge_filters(patching, items, patch, name_in(patch.match))


def _edit(patching: Patching, items: list[Json], patch: PatchOf, name: str) -> None:
    """Applies all but MERGE to a list of filters; `name` is of the filter that a patch names."""
    if patch.operation == "REMOVE":
        kept = [item for item in items if not name or item.get("name") != name]
        if len(kept) < len(items):
            patching.mark_applied(patch)
            items[:] = kept
        return
    place = next((index for index, item in enumerate(items) if item.get("name") == name), None)
    span = _span(patch.operation, place, len(items), named=bool(name))
    if span is not None:
        patching.mark_applied(patch)
        items[slice(*span)] = [patch.value()]


def _span(operation: str, place: int | None, count: int, *, named: bool) -> tuple[int, int] | None:
    """Returns the part of a list that a new item takes; None when it has no place.

    `place` is of the item that a patch names. Without a name BEFORE and AFTER mean all items.
    """
    match operation:
        case "ADD":
            return count, count
        case "INSERT_FIRST":
            return 0, 0
        case "INSERT_BEFORE" if not named:
            return 0, 0
        case "INSERT_AFTER" if not named:
            return count, count
        case "INSERT_BEFORE" if place is not None:
            return place, place
        case "INSERT_AFTER" if place is not None:
            return place + 1, place + 1
        case "REPLACE" if named and place is not None:
            return place, place + 1
    return None


def _merge_filters(patching: Patching, items: list[Json], patch: PatchOf, name: str) -> None:
    """Applies MERGE: a filter takes the name, and the `typed_config` when the types agree."""
    from lab.resources import protobuf

    if patch.operation != "MERGE":
        return
    value = patch.value()
    for item in items:
        if (name and item.get("name") != name) or "typed_config" not in item:
            continue
        patching.mark_applied(patch)
        item["name"] = value.get("name") or item["name"]
        if "typed_config" in value:
            item["typed_config"] = protobuf.merge_any(item["typed_config"], value["typed_config"])


# --- routes ---------------------------------------------------------------------------------------


def _routes(patching: Patching, routes: Json, context: Context) -> Json:
    ports = matching.gateway_ports(patching.snapshot, patching.pod)

    def here(routes: Json, match: Match) -> bool:
        return matching.route_configuration(routes, match, context, ports)

    merging = [p for p in patching.each("ROUTE_CONFIGURATION", context) if p.operation in _MERGES]
    routes = _changed(patching, merging, routes, here) or routes

    def fits(host: Json, match: Match) -> bool:
        return here(routes, match) and matching.virtual_host(host, match)

    hosts: list[Json] = []
    for original in routes.get("virtual_hosts", []):
        host = _changed(patching, patching.each("VIRTUAL_HOST", context), original, fits)
        if host is not None:
            chosen = [p for p in patching.each("HTTP_ROUTE", context) if fits(host, p.match)]
            hosts.append({**host, "routes": _http_routes(patching, host.get("routes", []), chosen)})
    for patch in patching.each("VIRTUAL_HOST", context):
        if patch.operation == "ADD" and here(routes, patch.match):
            patching.mark_applied(patch)
            hosts.append(patch.value())
    return {**routes, "virtual_hosts": hosts}


def _http_routes(patching: Patching, routes: list[Json], patches: list[PatchOf]) -> list[Json]:
    changed = [_changed(patching, patches, route, matching.route) for route in routes]
    result = [route for route in changed if route is not None]
    for patch in patches:
        if patch.operation == "ADD" or patch.operation in _INSERTIONS:
            _insert_route(patching, result, patch)
    return result


def _insert_route(patching: Patching, routes: list[Json], patch: PatchOf) -> None:
    wanted = patch.match.route_configuration
    named = wanted is not None and "route" in wanted.vhost.model_fields_set
    place = next((i for i, route in enumerate(routes) if matching.route(route, patch.match)), None)
    if patch.operation == "INSERT_FIRST" and named and place is None:
        return
    span = _span(patch.operation, place, len(routes), named=named)
    if span is not None:
        patching.mark_applied(patch)
        routes[slice(*span)] = [patch.value()]


# --- clusters -------------------------------------------------------------------------------------


def _clusters(patching: Patching, clusters: list[Json]) -> list[Json]:
    def fits(cluster: Json, match: Match) -> bool:
        return matching.cluster(cluster, match, patching.snapshot, patching.pod)

    result: list[Json] = []
    for original in clusters:
        context = matching.cluster_context(patching.pod, original)
        cluster = _changed(patching, patching.each("CLUSTER", context), original, fits)
        if cluster is not None:
            result.append(cluster)
    known = {cluster["name"] for cluster in result}
    for patch in patching.each_added("CLUSTER"):
        added = patch.value()
        if added.get("name") not in known:
            patching.mark_applied(patch)
            known.add(added.get("name"))
            result.append(added)
    return result
