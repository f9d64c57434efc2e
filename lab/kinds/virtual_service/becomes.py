"""VirtualService: HTTP routes as Envoy routes.

Each match of each route is one Envoy route, in order, and the first that fits wins.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lab import names
from lab.kinds.destination_rule import becomes as destination_rule
from lab.kinds.types import Destination
from lab.kinds.virtual_service import delegate
from lab.kinds.virtual_service.checks import GRPC_STATUSES, claim_path
from lab.kinds.virtual_service.types import (
    CorsPolicy,
    HeaderOperations,
    Headers,
    HTTPDirectResponse,
    HTTPFaultInjection,
    HTTPMatchRequest,
    HTTPRedirect,
    HTTPRetry,
    HTTPRoute,
    HTTPRouteDestination,
    Percent,
    StringMatch,
)
from lab.kinds.visible import View
from lab.model import Json
from lab.resources.resource import Origin, Resource
from lab.xds import duration, extension, given, metadata, typed

FAULT = "envoy.filters.http.fault"
CORS = "envoy.filters.http.cors"
NO_TIMEOUT = "0s"
DEFAULT_RETRY_ON = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"
PREVIOUS_HOSTS = extension(
    "envoy.retry_host_predicates.previous_hosts",
    "extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
)
PREVIOUS_PRIORITIES = extension(
    "envoy.retry_priorities.previous_priorities",
    "extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
    update_frequency=2,
)


@dataclass(frozen=True, slots=True)
class Route:
    """One Envoy route with its origin."""

    config: Json
    origin: Origin


@dataclass(frozen=True, slots=True)
class Attachment:
    """A port of all sidecars (`mesh`) or of one gateway, at which routes are wanted."""

    gateway: str
    port: int
    secure: bool = False
    """Whether clients use TLS there."""


def applies(resource: Resource, gateway: str) -> bool:
    """Returns whether a VirtualService is bound to `mesh` or to a gateway (`namespace/name`)."""
    bound = resource.spec.gateways or [names.MESH]
    return gateway in (names.gateway(name, resource.namespace) for name in bound)


def hosts(resource: Resource) -> list[str]:
    """Returns the hosts of a VirtualService in small letters, short names in full."""
    return [names.expand(host, resource.namespace).lower() for host in resource.spec.hosts]


def routes(view: View, resource: Resource, attachment: Attachment) -> list[Route]:
    """Returns the routes of a VirtualService at one place, up to the first catch-all."""
    result: list[Route] = []
    for rule in delegate.rules(view.snapshot, resource):
        for match, origin in rule.matches:
            if match is not None and not _concerns(view, resource, match, attachment):
                continue
            config = _route(view, resource, rule.http, match, attachment)
            result.append(Route(config, origin))
            if is_catch_all(config):
                return result
    return result


def is_catch_all(route: Json) -> bool:
    """Returns whether an Envoy route matches every request."""
    match = route["match"]
    anything = match.get("prefix") == "/" or match.get("safe_regex", {}).get("regex") == ".*"
    return anything and not any(
        match.get(key) for key in ("headers", "query_parameters", "dynamic_metadata")
    )


def _concerns(view: View, resource: Resource, match: HTTPMatchRequest, place: Attachment) -> bool:
    if match.port and match.port != place.port:
        return False
    if match.gateways:
        bound = (names.gateway(name, resource.namespace) for name in match.gateways)
        return place.gateway in bound
    if match.source_namespace and match.source_namespace != view.pod.namespace:
        return False
    return names.selects(match.source_labels, view.pod.labels)


def _route(
    view: View,
    resource: Resource,
    http: HTTPRoute,
    match: HTTPMatchRequest | None,
    attachment: Attachment,
) -> Json:
    name = http.name or ""
    route = given(
        name=f"{name}.{match.name}" if match and match.name else name,
        match=match_config(match),
        metadata=metadata(resource.config_path),
        stat_prefix=(match.stat_prefix if match else None) or None,
    )
    if http.redirect:
        route["redirect"] = _redirect(http.redirect, attachment)
    elif http.direct_response:
        route["direct_response"] = _direct_response(http.direct_response)
    else:
        route["route"] = _action(view, resource, http, attachment)
    _headers(route, http.headers)
    if len(http.route) == 1:
        _headers(route, http.route[0].headers)
    route["decorator"] = {"operation": _operation(resource, http, route, attachment)}
    filters: Json = {}
    if http.fault and (fault := _fault(http.fault)):
        filters[FAULT] = fault
    if http.cors_policy:
        filters[CORS] = _cors(http.cors_policy)
    return route | given(typed_per_filter_config=filters or None)


def _operation(resource: Resource, http: HTTPRoute, route: Json, attachment: Attachment) -> str:
    """Returns the name of the trace span, as Istio words it."""
    match = route["match"]
    path = match.get("path") or match.get("safe_regex", {}).get("regex")
    if path is None:
        path = f"{match['prefix'].rstrip('*')}*"
    cluster = route.get("route", {}).get("cluster")
    if cluster and len(http.route) == 1:
        _, port, _, host = cluster.split("|")
        return f"{host}:{port}{path}"
    return f"{resource.name}:{attachment.port}{path}"


def match_config(match: HTTPMatchRequest | None) -> Json:
    """Returns a match as Envoy's RouteMatch; None matches everything."""
    if match is None:
        return {"prefix": "/"}
    headers: list[Json] = []
    claims: list[Json] = []
    for invert, found in ((False, match.headers), (True, match.without_headers)):
        for name, value in sorted(found.items()):
            if claim_path(name) is not None:
                claims.append(_claim(name, value, invert=invert))
            else:
                headers.append(_header(name, value, invert=invert))
    pseudo = {":method": match.method, ":authority": match.authority, ":scheme": match.scheme}
    headers += [
        {"name": name, **_matched(value)} for name, value in pseudo.items() if value is not None
    ]
    parameters = [
        {"name": name, **_matched(value)} for name, value in sorted(match.query_params.items())
    ]
    return {
        **_path(match.uri),
        "case_sensitive": not match.ignore_uri_case,
        **given(
            headers=headers or None,
            dynamic_metadata=claims or None,
            query_parameters=parameters or None,
        ),
    }


def _path(uri: StringMatch | None) -> Json:
    if uri is None or (uri.exact, uri.prefix, uri.regex) == (None, None, None):
        return {"prefix": "/"}
    found = string_match(uri)
    return {"path": found["exact"]} if "exact" in found else found


def string_match(match: StringMatch) -> Json:
    """Returns a StringMatch that has one of its three kinds as Envoy's StringMatcher."""
    if match.exact is not None:
        return {"exact": match.exact}
    if match.prefix is not None:
        return {"prefix": match.prefix}
    return {"safe_regex": {"regex": match.regex or ""}}


def is_presence(match: StringMatch) -> bool:
    """Returns whether any value matches: `{}` and the regex `*`."""
    return (match.exact, match.prefix, match.regex) in ((None, None, None), (None, None, "*"))


def _matched(match: StringMatch) -> Json:
    if is_presence(match):
        return {"present_match": True}
    return {"string_match": string_match(match)}


def _header(name: str, match: StringMatch, *, invert: bool) -> Json:
    result: Json = {"name": name, **_matched(match)}
    if invert:
        result["invert_match"] = True
        if not is_presence(match):
            result["treat_missing_header_as_empty"] = True
    return result


def _claim(name: str, match: StringMatch, *, invert: bool) -> Json:
    value = _matched(match)
    if not is_presence(match):
        value = {"or_match": {"value_matchers": [{"list_match": {"one_of": value}}, value]}}
    return given(
        filter="envoy.filters.http.jwt_authn",
        path=[{"key": "payload"}, *({"key": part} for part in claim_path(name) or ())],
        value=value,
        invert=invert or None,
    )


def forward(
    destination: Json,
    hashing: list[Json],
    retries: HTTPRetry | None = None,
    timeout: str | None = None,
    **fields: object,
) -> Json:
    """Returns the action of a route that forwards; Istio's default is no timeout (Envoy's 15 s)."""
    return given(
        **destination,
        timeout=timeout or NO_TIMEOUT,
        max_grpc_timeout=timeout or NO_TIMEOUT,
        retry_policy=retry_policy(retries, hashing=bool(hashing) and "cluster" in destination),
        hash_policy=hashing or None,
        **fields,
    )


def _action(view: View, resource: Resource, http: HTTPRoute, attachment: Attachment) -> Json:
    def cluster_of(destination: Destination) -> str:
        return destination_cluster(view, destination, resource.namespace, attachment)

    if len(http.route) == 1:
        destination: Json = {"cluster": cluster_of(http.route[0].destination)}
    else:
        destination = {"weighted_clusters": {"clusters": list(_weighted(http.route, cluster_of))}}
    rewrite = http.rewrite
    regex = rewrite.uri_regex_rewrite if rewrite else None
    return forward(
        destination,
        list(_hash_policies(view, resource.namespace, http.route)),
        http.retries or view.mesh.default_http_retry_policy,
        duration(http.timeout),
        regex_rewrite=regex and {"pattern": {"regex": regex.match}, "substitution": regex.rewrite},
        prefix_rewrite=(rewrite.uri or None) if rewrite and regex is None else None,
        host_rewrite_literal=_authority(http) or None,
        request_mirror_policies=list(_mirrors(http, cluster_of)) or None,
    )


def destination_cluster(
    view: View, destination: Destination, namespace: str, place: Attachment
) -> str:
    """Returns the cluster of a destination.

    Without a port of its own it has that of the listener; at a gateway and for an HTTP proxy, where
    istiod knows all ports of a host, the host's only one.
    """
    host = names.expand(destination.host, namespace)
    number = place.port
    if destination.port is not None:
        number = destination.port.number
    elif place.gateway != names.MESH or not place.port:
        number = only_port(view, host) or place.port
    known = view.destinations.get(host)
    if known is not None and known.service is not None and known.service.external_name:
        host = known.service.external_name
    return names.cluster(number, host, destination.subset or "")


def only_port(view: View, host: str) -> int | None:
    """Returns the port of a host that has no other."""
    known = view.destinations.get(host)
    return known.ports[0].port if known and len(known.ports) == 1 else None


def _weighted(
    entries: list[HTTPRouteDestination], cluster_of: Callable[[Destination], str]
) -> Iterator[Json]:
    for entry in entries:
        if entry.weight > 0:
            cluster: Json = {"name": cluster_of(entry.destination), "weight": entry.weight}
            _headers(cluster, entry.headers)
            if authority := _host_header(entry.headers):
                cluster["host_rewrite_literal"] = authority
            yield cluster


def _hash_policies(
    view: View, namespace: str, entries: list[HTTPRouteDestination]
) -> Iterator[Json]:
    for entry in entries:
        to = entry.destination
        rule = view.rules.get(names.expand(to.host, namespace))
        if entry.weight > 0 or len(entries) == 1:
            port = to.port.number if to.port is not None else None
            yield from destination_rule.hash_policy(rule, port, to.subset)


def retry_policy(retries: HTTPRetry | None, *, hashing: bool = False) -> Json | None:
    """Returns a route's retries: its own or the mesh's, else Istio's default.

    By default there are two more attempts when there was no connection or the answer was a gRPC
    status `unavailable` or `cancelled`; no other status is retried.
    """
    retries = retries or HTTPRetry(attempts=2)
    if retries.attempts <= 0:
        return None
    retry_on, codes = retry_conditions(retries.retry_on)
    backoff = duration(retries.backoff)
    other_hosts = retries.retry_ignore_previous_hosts
    if other_hosts is None:
        other_hosts = not hashing
    return given(
        retry_on=retry_on,
        num_retries=retries.attempts,
        host_selection_retry_max_attempts="5",
        retriable_status_codes=codes or None,
        retry_host_predicate=[PREVIOUS_HOSTS] if other_hosts else None,
        per_try_timeout=duration(retries.per_try_timeout),
        retry_back_off={"base_interval": backoff} if backoff else None,
        retry_priority=PREVIOUS_PRIORITIES if retries.retry_remote_localities else None,
    )


def retry_conditions(retry_on: str | None) -> tuple[str, list[int]]:
    """Returns Envoy's `retry_on` and status codes; a number in Istio's list is a status code."""
    if not retry_on:
        return DEFAULT_RETRY_ON, []
    tokens = [token.strip() for token in retry_on.split(",") if token.strip()]
    codes = [int(token) for token in tokens if token.isdecimal()]
    words = [token for token in tokens if not token.isdecimal()]
    if codes and "retriable-status-codes" not in words:
        words.append("retriable-status-codes")
    return ",".join(words), codes


def _mirrors(http: HTTPRoute, cluster_of: Callable[[Destination], str]) -> Iterator[Json]:
    found: list[tuple[Destination, Json]] = []
    if http.mirror is not None:
        integers = (http.mirror_percent, http.mirror_percent_snake)
        integer = next((number for number in integers if number is not None), 100)
        found.append((http.mirror, _fraction(http.mirror_percentage, integer)))
    found += [(mirror.destination, _fraction(mirror.percentage, 100)) for mirror in http.mirrors]
    for destination, fraction in found:
        if fraction["numerator"]:
            yield {
                "cluster": cluster_of(destination),
                "runtime_fraction": {"default_value": fraction},
                "trace_sampled": False,
                "disable_shadow_host_suffix_append": True,
            }


def _fraction(percent: Percent | None, hundredths: int) -> Json:
    """Returns a percentage in Envoy's millionths; without one the whole number of hundredths."""
    if percent is None:
        return {"numerator": hundredths, "denominator": "HUNDRED"}
    return {"numerator": round(percent.value * 10000), "denominator": "MILLION"}


def _fault(fault: HTTPFaultInjection) -> Json:
    fields: Json = {}
    delay, abort = fault.delay, fault.abort
    if delay and delay.fixed_delay is not None:
        fields["delay"] = {
            "fixed_delay": duration(delay.fixed_delay),
            "percentage": _fraction(delay.percentage, delay.percent or 0),
        }
    if abort and (abort.grpc_status is not None or abort.http_status is not None):
        status = abort.grpc_status
        fields["abort"] = given(
            http_status=abort.http_status,
            grpc_status=None if status is None else GRPC_STATUSES.index(status),
            percentage=abort.percentage and _fraction(abort.percentage, 0),
        )
    return fields and typed("extensions.filters.http.fault.v3.HTTPFault", **fields)


def _cors(cors: CorsPolicy) -> Json:
    origins = [string_match(origin) for origin in cors.allow_origins] or [
        {"exact": origin} for origin in cors.allow_origin or ()
    ]
    max_age = cors.max_age
    fields = given(
        allow_origin_string_match=origins or None,
        allow_methods=",".join(cors.allow_methods) or None,
        allow_headers=",".join(cors.allow_headers) or None,
        expose_headers=",".join(cors.expose_headers) or None,
        max_age=None if max_age is None else str(int(max_age.total_seconds())),
        allow_credentials=cors.allow_credentials,
        filter_enabled={"default_value": {"numerator": 100, "denominator": "HUNDRED"}},
        forward_not_matching_preflights=cors.unmatched_preflights != "IGNORE",
    )
    return typed("extensions.filters.http.cors.v3.CorsPolicy", **fields)


_REDIRECT_CODES = {
    302: "FOUND",
    303: "SEE_OTHER",
    307: "TEMPORARY_REDIRECT",
    308: "PERMANENT_REDIRECT",
}


def _redirect(redirect: HTTPRedirect, place: Attachment) -> Json:
    """Returns a redirect; `location` never names the default port of its scheme."""
    port = place.port if redirect.derive_port == "FROM_REQUEST_PORT" else redirect.port
    scheme = redirect.scheme or ("https" if place.secure else "http")
    if (scheme, port) in (("http", 80), ("https", 443)):
        port = None
    return given(
        path_redirect=None if redirect.prefix_rewrite else redirect.uri or "",
        prefix_rewrite=redirect.prefix_rewrite or None,
        host_redirect=redirect.authority or None,
        scheme_redirect=redirect.scheme or None,
        port_redirect=port or None,
        response_code=_REDIRECT_CODES.get(redirect.redirect_code or 301),
    )


def _direct_response(response: HTTPDirectResponse) -> Json:
    body = response.body
    if body is None:
        return {"status": response.status}
    if body.string is not None:
        return {"status": response.status, "body": {"inline_string": body.string}}
    data = base64.b64decode(body.bytes or "")
    encoded = base64.b64encode(data).decode()
    return {"status": response.status, "body": {"inline_bytes": encoded}}


_HOST_NAMES = ("host", ":authority")


def _host_header(headers: Headers | None) -> str | None:
    for values in (headers.request.set, headers.request.add) if headers else ():
        for name, value in values.items():
            if name.lower() in _HOST_NAMES:
                return value
    return None


def _authority(http: HTTPRoute) -> str | None:
    """Returns the host of the forwarded request: rewrite.authority, else a `host` header."""
    if http.rewrite and http.rewrite.authority:
        return http.rewrite.authority
    own = _host_header(http.route[0].headers) if len(http.route) == 1 else None
    return own or _host_header(http.headers)


def _headers(target: Json, headers: Headers | None) -> None:
    """Adds header operations to a route or a weighted cluster."""
    if headers is None:
        return
    for direction, operations in (("request", headers.request), ("response", headers.response)):
        if added := _added(operations):
            target.setdefault(f"{direction}_headers_to_add", []).extend(added)
        if removed := [name for name in operations.remove if not _protected(name)]:
            target.setdefault(f"{direction}_headers_to_remove", []).extend(removed)


def _protected(name: str) -> bool:
    return name.startswith(":") or name.lower() == "host"


def _added(operations: HeaderOperations) -> list[Json]:
    result: list[Json] = []
    for values, action in (
        (operations.set, "OVERWRITE_IF_EXISTS_OR_ADD"),
        (operations.add, "APPEND_IF_EXISTS_OR_ADD"),
    ):
        result.extend(
            {"header": {"key": name, "value": value}, "append_action": action}
            for name, value in sorted(values.items())
            if not _protected(name)
        )
    return result
