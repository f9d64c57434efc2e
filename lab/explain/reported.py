"""The rule behind what a proxy reported of a request: its place and, for some, its words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping

from lab import names
from lab.envoy import tls
from lab.explain import mutual_tls, server
from lab.explain.mutual_tls import Conflict
from lab.kinds import selection
from lab.kinds.authorization_policy import becomes as authorization
from lab.kinds.envoy_filter import becomes as envoy_filter
from lab.kinds.request_authentication import becomes as request_authentication
from lab.kinds.visible import view
from lab.model import Pod, Snapshot
from lab.observe import flags
from lab.observe.requests import Request, Workload
from lab.resources.resource import Origin
from lab.resources.values import is_ip

_OF_ROUTE: Mapping[str, tuple[str, ...]] = {
    "FI": ("fault.abort",),
    "DI": ("fault.delay",),
    "UT": ("timeout",),
    "URX": ("retries",),
    "answered": ("redirect", "directResponse"),
    "NC": ("",),
}
"""The fields of a VirtualService's rule behind a flag, in the words of `Request.lines`."""


_MOST = 1000
"""The number of different ends of requests that are remembered."""


def finder(
    in_force_at: Callable[[float], Snapshot | None],
) -> Callable[[Request], tuple[str, str]]:
    """Returns `cause` by the configuration of the mesh when a request came; empty without one.

    Of many requests that end alike under one configuration the first alone is looked into.
    """
    known: dict[tuple[object, ...], tuple[str, str]] = {}
    last: Snapshot | None = None

    def find(request: Request) -> tuple[str, str]:
        nonlocal last
        ended = request.details, request.termination
        if not request.flags and ended in (("via_upstream", ""), ("", "")):
            return _UNKNOWN
        if (snapshot := in_force_at(request.time)) is None or not flags.names(request):
            return _UNKNOWN
        if snapshot is not last or len(known) > _MOST:
            known.clear()
            last = snapshot
        lines = tuple(request.lines.items())
        way = request.reporter, request.cluster, request.address, request.upstream
        key = (request.source, request.destination, request.flags, *ended, *way, *lines)
        if key not in known:
            known[key] = cause(snapshot, request)
        return known[key]

    return find


_UNKNOWN = "", ""


def cause(snapshot: Snapshot, request: Request) -> tuple[str, str]:
    """Returns `file:line` of what decided about a request, and why it reached no pod, in words.

    Without a decision it is the place of the route's rule. Of several policies without a rule that
    allows the request, each has its place.

    `snapshot` is the mesh as it was when the request came.
    """
    pod = _pod(snapshot, request.proxy)
    reasons = flags.names(request)
    if not _CONNECTION.isdisjoint(reasons) and (found := _conflict(snapshot, request)) is not None:
        return found.origin.at(), found.text
    if pod is not None and "UH" in reasons and (none := _no_endpoint(snapshot, pod, request)):
        return none
    for reason in reasons:
        for key in _OF_ROUTE.get(reason, ()):
            if place := request.lines.get(key):
                return place, ""
        if pod is not None and (place := next(_of_policies(snapshot, pod, reason, request), "")):
            return place, ""
    return request.lines.get("", "") if request.reporter == "source" else "", ""


_CONNECTION = {"UC", "UF", "NR", "DPE", "UPE"}
"""The flags of connections that the server's side does not take as they are."""


def _conflict(snapshot: Snapshot, request: Request) -> Conflict | None:
    """Returns the conflict of mutual TLS between the two ends of a request."""
    client, pod = _pod(snapshot, request.source), _pod(snapshot, request.destination)
    outbound = request.reporter == "source"
    address, _, number = (request.upstream if outbound else request.address).rpartition(":")
    if client is None or client.proxy == "none":
        if pod is None or outbound or "NR" not in request.flags or not number.isdecimal():
            return None
        return mutual_tls.without_sidecar(snapshot, pod, int(number))
    for upstream in view(snapshot, client).upstreams():
        if outbound and upstream.name != request.cluster:
            continue
        for endpoint in upstream.endpoints():
            here = (endpoint.address, str(endpoint.port)) == (address, number)
            if here and (found := mutual_tls.between(upstream, endpoint)) is not None:
                return found
    return None


def _no_endpoint(snapshot: Snapshot, pod: Pod, request: Request) -> tuple[str, str] | None:
    """Returns the place and the reason of a cluster without an endpoint that can be asked."""
    found = (one for one in view(snapshot, pod).upstreams() if one.name == request.cluster)
    if (upstream := next(found, None)) is None:
        return None
    host, endpoints = upstream.host, upstream.endpoints()
    if upstream.subset and not endpoints:
        rule = upstream.view.rules[host.name]
        for subset, resource, index in rule.subsets:
            if subset.name == upstream.subset:
                labels = ", ".join(f"{key}={value}" for key, value in subset.labels.items())
                text = f"subset {subset.name} selects no pod of {host.name} ({labels})"
                return resource.source.at("spec", "subsets", index), text
    named = [one.address for one in endpoints if not is_ip(one.address)]
    if host.resolution in ("DNS", "DNS_ROUND_ROBIN") and (named or not endpoints):
        # Envoy has endpoints of names that it could resolve, ejected or not.
        if upstream.policy.outlier_detection is not None:
            return None
        unknown = ", ".join(dict.fromkeys(named)) or host.name
        return host.source.at("spec"), f"the name {unknown} could not be resolved"
    if not endpoints:
        return host.source.at("spec"), f"{host.name} has no endpoint"
    if not any(one.ready for one in endpoints):
        whole = f"subset {upstream.subset} of {host.name}" if upstream.subset else host.name
        return host.source.at("spec"), f"none of the pods of {whole} is ready"
    return None


def _pod(snapshot: Snapshot, end: Workload) -> Pod | None:
    named = (pod for pod in snapshot.pods if (pod.namespace, pod.name) == (end.namespace, end.pod))
    return next(named, None)


def _of_policies(snapshot: Snapshot, pod: Pod, reason: str, request: Request) -> Iterator[str]:
    if reason == "RBAC":
        yield from _authorization(snapshot, pod, f"{request.details}{request.termination}")
    elif reason == "JWT":
        for policy in selection.for_pod(snapshot, request_authentication.KIND, pod):
            yield policy.source.at("spec")
    elif reason in ("RL", "RLSE"):
        local = request.details.startswith("local_rate_limited")
        name = "local_ratelimit" if local else "envoy.filters.http.ratelimit"
        for patch in envoy_filter.applicable(snapshot, pod):
            if name in json.dumps(patch.value()):
                yield patch.filter.source.at("spec", "configPatches", patch.index)
    elif reason == "block_all" or (reason == "UH" and request.cluster == names.BLACK_HOLE):
        yield view(snapshot, pod).outbound_origin.at()
    elif reason in ("NR", "DPE") and request.reporter == "destination":
        port = request.address.rpartition(":")[2]
        yield tls.inbound_mode(view(snapshot, pod), int(port) if port.isdecimal() else 0)[1].at()
    elif reason in _OF_DESTINATION and request.cluster.startswith("outbound|"):
        _, port, subset, host = request.cluster.split("|")
        origins = view(snapshot, pod).policy(host, int(port), subset).origins
        yield from (origins.get(name, Origin()).at() for name in _OF_DESTINATION[reason])


_OF_DESTINATION = {
    "UO": ("connection_pool",),
    "UH": ("outlier_detection",),
    "UF": ("tls",),
    "URX": ("connection_pool",),
}
"""The fields of a DestinationRule's traffic policy behind a flag."""


def _authorization(snapshot: Snapshot, pod: Pod, details: str) -> Iterator[str]:
    """Yields the place of the rule that denied, or those of the policies that did not allow."""
    _, _, policy = details.partition("matched_policy[")
    name = policy.rpartition("]")[0]
    if name and name != "none":
        yield server.policy_origin(snapshot, name)[1].at()
        return
    allowing = authorization.applicable(snapshot, pod, "ALLOW")
    yield ", ".join(one.source.at("spec") for one in allowing if not authorization.dry_run(one))
