"""VirtualService: its HTTP routes as Envoy routes.

For each route in order and each of its matches in order there is one Envoy route; fields of a
match are ANDed, matches are ORed, and the first that fits wins.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass

from lab import names
from lab.kinds.destination_rule import becomes as destination_rule
from lab.kinds.virtual_service.checks import (
    CLAIM_PREFIX,
    CorsPolicy,
    Destination,
    HeaderOperations,
    Headers,
    HTTPDirectResponse,
    HTTPFaultInjection,
    HTTPMatchRequest,
    HTTPRedirect,
    HTTPRetry,
    HTTPRoute,
    HTTPRouteDestination,
    StringMatch,
    claim_path,
    grpc_status,
)
from lab.kinds.visible import View
from lab.model import Json
from lab.resources.istio import Percent
from lab.resources.resource import Origin, Path, Resource
from lab.xds import duration, typed

FAULT = "envoy.filters.http.fault"
CORS = "envoy.filters.http.cors"
NO_TIMEOUT = "0s"
"""Istio's default; a missing timeout would be Envoy's 15 s."""

DEFAULT_RETRY_ON = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"


@dataclass(frozen=True, slots=True)
class Route:
    """One Envoy route and where it comes from."""

    config: Json
    origin: Origin


@dataclass(frozen=True, slots=True)
class Attachment:
    """Where routes are wanted: at all sidecars (`mesh`) or at one gateway, for one port."""

    gateway: str
    port: int


def applies(resource: Resource, gateway: str) -> bool:
    """Whether a VirtualService is bound to `mesh` or to a gateway (`namespace/name`)."""
    bound = resource.spec.gateways or [names.MESH]
    return gateway in (names.gateway(name, resource.namespace) for name in bound)


def hosts(resource: Resource) -> list[str]:
    """The hosts of a VirtualService, short names in full."""
    return [names.expand(host, resource.namespace) for host in resource.spec.hosts]


def routes(view: View, resource: Resource, attachment: Attachment) -> list[Route]:
    """The routes of a VirtualService at one place, up to and including the first catch-all."""
    result: list[Route] = []
    for index, http in enumerate(resource.spec.http):
        path: Path = ("spec", "http", index)
        for position, match in enumerate(http.match) if http.match else [(None, None)]:
            if match is not None and not _concerns(view, resource, match, attachment):
                continue
            config = _route(view, resource, http, match, attachment)
            origin = path if position is None else (*path, "match", position)
            result.append(Route(config, Origin(resource.source, origin, resource)))
            if is_catch_all(config):
                return result
    return result


def is_catch_all(route: Json) -> bool:
    match = route["match"]
    anything = match.get("prefix") == "/" or match.get("safe_regex", {}).get("regex") == ".*"
    return anything and not any(
        match.get(key) for key in ("headers", "query_parameters", "dynamic_metadata")
    )


def _concerns(
    view: View, resource: Resource, match: HTTPMatchRequest, attachment: Attachment
) -> bool:
    if match.port and match.port != attachment.port:
        return False
    if match.gateways:
        return attachment.gateway in (
            names.gateway(name, resource.namespace) for name in match.gateways
        )
    if attachment.gateway != names.MESH:
        return True
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
    names_of = [http.name or "", (match.name or "") if match else ""]
    route: Json = {
        "name": ".".join(name for name in names_of if name),
        "match": match_config(match),
        "metadata": {
            "filter_metadata": {
                "istio": {
                    "config": (
                        "/apis/networking.istio.io/v1/namespaces/"
                        f"{resource.namespace}/virtual-service/{resource.name}"
                    )
                }
            }
        },
    }
    if match and match.stat_prefix:
        route["stat_prefix"] = match.stat_prefix
    if http.redirect:
        route["redirect"] = _redirect(http.redirect, attachment.port)
    elif http.direct_response:
        route["direct_response"] = _direct_response(http.direct_response)
    else:
        route["route"] = _action(view, resource, http, attachment)
    _headers(route, http.headers)
    if len(http.route) == 1:
        _headers(route, http.route[0].headers)
    route["decorator"] = {"operation": _operation(resource, http, route, attachment)}
    filters: Json = {}
    if http.fault:
        filters[FAULT] = _fault(http.fault)
    if http.cors_policy:
        filters[CORS] = _cors(http.cors_policy)
    if filters:
        route["typed_per_filter_config"] = filters
    return route


def _operation(resource: Resource, http: HTTPRoute, route: Json, attachment: Attachment) -> str:
    """The name of the trace span, as Istio words it."""
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
    """A match as Envoy's RouteMatch; None matches everything."""
    if match is None:
        return {"prefix": "/"}
    result: Json = {"prefix": "/"}
    if match.uri is not None:
        if match.uri.exact is not None:
            result = {"path": match.uri.exact}
        elif match.uri.prefix is not None:
            result = {"prefix": match.uri.prefix}
        elif match.uri.regex is not None:
            result = {"safe_regex": {"regex": match.uri.regex}}
    result["case_sensitive"] = not match.ignore_uri_case
    headers: list[Json] = []
    claims: list[Json] = []
    for name, value in sorted(match.headers.items()):
        if name.startswith(CLAIM_PREFIX):
            claims.append(_claim(name, value or StringMatch(), invert=False))
        else:
            headers.append(_header(name, value or StringMatch()))
    for name, value in sorted(match.without_headers.items()):
        if name.startswith(CLAIM_PREFIX):
            claims.append(_claim(name, value or StringMatch(), invert=True))
        else:
            headers.append(_absent(name, value or StringMatch()))
    for name, pseudo in (
        (":method", match.method),
        (":authority", match.authority),
        (":scheme", match.scheme),
    ):
        if pseudo is not None:
            headers.append({"name": name, "string_match": string_match(pseudo)})
    if headers:
        result["headers"] = headers
    if claims:
        result["dynamic_metadata"] = claims
    if match.query_params:
        result["query_parameters"] = [
            _query(name, value or StringMatch())
            for name, value in sorted(match.query_params.items())
        ]
    return result


def string_match(match: StringMatch) -> Json:
    """A StringMatch that has one of its three kinds as Envoy's StringMatcher."""
    if match.exact is not None:
        return {"exact": match.exact}
    if match.prefix is not None:
        return {"prefix": match.prefix}
    return {"safe_regex": {"regex": match.regex or ""}}


def is_presence(match: StringMatch) -> bool:
    """`{}` and the regex `*` ask whether the header or parameter is there at all."""
    return (match.exact, match.prefix, match.regex) in ((None, None, None), (None, None, "*"))


def _header(name: str, match: StringMatch) -> Json:
    if is_presence(match):
        return {"name": name, "present_match": True}
    return {"name": name, "string_match": string_match(match)}


def _absent(name: str, match: StringMatch) -> Json:
    result = {**_header(name, match), "invert_match": True}
    if not is_presence(match):
        result["treat_missing_header_as_empty"] = True
    return result


def _query(name: str, match: StringMatch) -> Json:
    if is_presence(match):
        return {"name": name, "present_match": True}
    return {"name": name, "string_match": string_match(match)}


def _claim(name: str, match: StringMatch, *, invert: bool) -> Json:
    value: Json = (
        {"present_match": True} if is_presence(match) else {"string_match": string_match(match)}
    )
    result: Json = {
        "filter": "envoy.filters.http.jwt_authn",
        "path": [{"key": "payload"}, *({"key": part} for part in claim_path(name) or ())],
        "value": value
        if is_presence(match)
        else {"or_match": {"value_matchers": [value, {"list_match": {"one_of": value}}]}},
    }
    if invert:
        result["invert"] = True
    return result


def _action(view: View, resource: Resource, http: HTTPRoute, attachment: Attachment) -> Json:
    action: Json = {}
    if len(http.route) == 1:
        action["cluster"] = destination_cluster(
            view, http.route[0].destination, resource.namespace, attachment.port
        )
    else:
        action["weighted_clusters"] = {
            "clusters": list(_weighted(view, resource, http.route, attachment.port))
        }
    timeout = duration(http.timeout) if http.timeout is not None else NO_TIMEOUT
    action["timeout"] = timeout
    action["max_grpc_timeout"] = timeout
    hashing = _hash_policy(view, resource, http.route, attachment.port)
    retry = retry_policy(view, http.retries, hashing=bool(hashing))
    if retry is not None:
        action["retry_policy"] = retry
    if hashing:
        action["hash_policy"] = hashing
    if http.rewrite:
        if (regex := http.rewrite.uri_regex_rewrite) is not None:
            action["regex_rewrite"] = {
                "pattern": {"regex": regex.match},
                "substitution": regex.rewrite,
            }
        elif http.rewrite.uri:
            action["prefix_rewrite"] = http.rewrite.uri
    if authority := _authority(http):
        action["host_rewrite_literal"] = authority
    if mirrors := list(_mirrors(view, resource, http, attachment.port)):
        action["request_mirror_policies"] = mirrors
    return action


def destination_cluster(view: View, destination: Destination, namespace: str, port: int) -> str:
    """The cluster of a destination: its port, else the host's only port, else the listener's."""
    host = names.expand(destination.host, namespace)
    if destination.port is not None:
        number = destination.port.number
    else:
        known = view.hosts.get(host)
        number = known.ports[0].port if known and len(known.ports) == 1 else port
    return names.cluster(number, host, destination.subset or "")


def _weighted(
    view: View, resource: Resource, entries: list[HTTPRouteDestination], port: int
) -> Iterator[Json]:
    for entry in entries:
        if entry.weight <= 0:
            continue
        cluster: Json = {
            "name": destination_cluster(view, entry.destination, resource.namespace, port),
            "weight": entry.weight,
        }
        _headers(cluster, entry.headers)
        if authority := _host_header(entry.headers):
            cluster["host_rewrite_literal"] = authority
        yield cluster


def _hash_policy(
    view: View, resource: Resource, entries: list[HTTPRouteDestination], port: int
) -> list[Json]:
    policies: list[Json] = []
    for entry in entries:
        cluster = destination_cluster(view, entry.destination, resource.namespace, port)
        _, number, subset, host = cluster.split("|")
        policy = view.policy(host, int(number), subset or None)
        for found in destination_rule.hash_policy(policy.load_balancer):
            if found not in policies:
                policies.append(found)
    return policies


def retry_policy(view: View, retries: HTTPRetry | None, *, hashing: bool = False) -> Json | None:
    """A route's retries: its own, else the mesh's default, else Istio's (two more tries when no
    connection was made; an answer, whatever its status, is not retried)."""
    if retries is None:
        default = view.snapshot.mesh.get("defaultHttpRetryPolicy")
        retries = HTTPRetry.model_validate(default) if default else HTTPRetry(attempts=2)
    if retries.attempts <= 0:
        return None
    retry_on, codes = retry_conditions(retries.retry_on)
    result: Json = {
        "retry_on": retry_on,
        "num_retries": retries.attempts,
        "host_selection_retry_max_attempts": "5",
    }
    if codes:
        result["retriable_status_codes"] = codes
    if not hashing and retries.retry_ignore_previous_hosts is not False:
        result["retry_host_predicate"] = [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": typed(
                    "extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
                ),
            }
        ]
    if retries.per_try_timeout is not None:
        result["per_try_timeout"] = duration(retries.per_try_timeout)
    if retries.backoff is not None:
        result["retry_back_off"] = {"base_interval": duration(retries.backoff)}
    if retries.retry_remote_localities:
        result["retry_priority"] = {
            "name": "envoy.retry_priorities.previous_priorities",
            "typed_config": typed(
                "extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
                update_frequency=2,
            ),
        }
    return result


def retry_conditions(retry_on: str | None) -> tuple[str, list[int]]:
    """Envoy's `retry_on` and status codes; a number in Istio's list becomes a status code."""
    if not retry_on:
        return DEFAULT_RETRY_ON, []
    tokens = [token.strip() for token in retry_on.split(",") if token.strip()]
    codes = [int(token) for token in tokens if token.isdecimal()]
    words = [token for token in tokens if not token.isdecimal()]
    if codes and "retriable-status-codes" not in words:
        words.append("retriable-status-codes")
    return ",".join(words), codes


def _mirrors(view: View, resource: Resource, http: HTTPRoute, port: int) -> Iterator[Json]:
    if http.mirror is not None:
        integer = (
            http.mirror_percent if http.mirror_percent is not None else http.mirror_percent_snake
        )
        fraction: Json = {"numerator": 100, "denominator": "HUNDRED"}
        if http.mirror_percentage is not None:
            fraction = fractional(http.mirror_percentage)
        elif integer is not None:
            fraction = {"numerator": integer, "denominator": "HUNDRED"}
        if fraction["numerator"]:
            yield _mirror(view, resource, http.mirror, fraction, port)
    for mirror in http.mirrors:
        fraction = (
            fractional(mirror.percentage)
            if mirror.percentage is not None
            else {"numerator": 100, "denominator": "HUNDRED"}
        )
        if fraction["numerator"]:
            yield _mirror(view, resource, mirror.destination, fraction, port)


def _mirror(
    view: View, resource: Resource, destination: Destination, fraction: Json, port: int
) -> Json:
    return {
        "cluster": destination_cluster(view, destination, resource.namespace, port),
        "runtime_fraction": {"default_value": fraction},
        "trace_sampled": False,
        "disable_shadow_host_suffix_append": True,
    }


def fractional(percent: Percent) -> Json:
    """A percentage in Envoy's millionths."""
    return {"numerator": round(percent.value * 10000), "denominator": "MILLION"}


def _fault(fault: HTTPFaultInjection) -> Json:
    fields: Json = {}
    if delay := fault.delay:
        percentage: Json = {"numerator": delay.percent or 0, "denominator": "HUNDRED"}
        if delay.percentage is not None:
            percentage = fractional(delay.percentage)
        if delay.fixed_delay is not None:
            fields["delay"] = {"fixed_delay": duration(delay.fixed_delay), "percentage": percentage}
    if abort := fault.abort:
        fields["abort"] = {}
        if abort.http_status is not None:
            fields["abort"]["http_status"] = abort.http_status
        if abort.grpc_status is not None:
            fields["abort"]["grpc_status"] = grpc_status(abort.grpc_status)
        if abort.percentage is not None:
            fields["abort"]["percentage"] = fractional(abort.percentage)
    return typed("extensions.filters.http.fault.v3.HTTPFault", **fields)


def _cors(cors: CorsPolicy) -> Json:
    origins = [string_match(origin) for origin in cors.allow_origins] or [
        {"exact": origin} for origin in cors.allow_origin or ()
    ]
    fields: Json = {}
    if origins:
        fields["allow_origin_string_match"] = origins
    for key, values in (
        ("allow_methods", cors.allow_methods),
        ("allow_headers", cors.allow_headers),
        ("expose_headers", cors.expose_headers),
    ):
        if values:
            fields[key] = ",".join(values)
    if cors.max_age is not None:
        fields["max_age"] = str(int(cors.max_age.total_seconds()))
    if cors.allow_credentials is not None:
        fields["allow_credentials"] = cors.allow_credentials
    fields["filter_enabled"] = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    fields["forward_not_matching_preflights"] = cors.unmatched_preflights != "IGNORE"
    return typed("extensions.filters.http.cors.v3.CorsPolicy", **fields)


def _redirect(redirect: HTTPRedirect, listener_port: int) -> Json:
    result: Json = {"path_redirect": redirect.uri or ""}
    if redirect.authority:
        result["host_redirect"] = redirect.authority
    if redirect.scheme:
        result["scheme_redirect"] = redirect.scheme
    port = redirect.port
    if redirect.derive_port == "FROM_REQUEST_PORT":
        port = listener_port
        if (redirect.scheme, port) in (("http", 80), ("https", 443)):
            port = None
    if port:
        result["port_redirect"] = port
    codes = {
        302: "FOUND",
        303: "SEE_OTHER",
        307: "TEMPORARY_REDIRECT",
        308: "PERMANENT_REDIRECT",
    }
    if (code := codes.get(redirect.redirect_code or 301)) is not None:
        result["response_code"] = code
    return result


def _direct_response(response: HTTPDirectResponse) -> Json:
    result: Json = {"status": response.status}
    if response.body is not None:
        if response.body.string is not None:
            result["body"] = {"inline_string": response.body.string}
        else:
            data = base64.b64decode(response.body.bytes or "")
            result["body"] = {"inline_bytes": base64.b64encode(data).decode()}
    return result


_HOST_NAMES = ("host", ":authority")


def _host_header(headers: Headers | None) -> str | None:
    request = headers.request if headers else None
    if request is None:
        return None
    for values in (request.set, request.add):
        for name, value in values.items():
            if name.lower() in _HOST_NAMES:
                return value
    return None


def _authority(http: HTTPRoute) -> str | None:
    """The host the request is sent on with: rewrite.authority, else a `host` among the headers."""
    if http.rewrite and http.rewrite.authority:
        return http.rewrite.authority
    own = _host_header(http.route[0].headers) if len(http.route) == 1 else None
    return own or _host_header(http.headers)


def _headers(target: Json, headers: Headers | None) -> None:
    """Adds header operations to a route or a weighted cluster."""
    if headers is None:
        return
    for direction, operations in (("request", headers.request), ("response", headers.response)):
        if operations is None:
            continue
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
