"""Checks of a VirtualService: istiod's validation beyond the schema, and the lab's limits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from http import HTTPStatus
from itertools import combinations

from lab.kinds.virtual_service.connection_checks import CONNECTIONS
from lab.kinds.virtual_service.types import (
    HeaderOperations,
    Headers,
    HTTPDirectResponse,
    HTTPMatchRequest,
    HTTPRedirect,
    HTTPRetry,
    HTTPRewrite,
    HTTPRoute,
    StringMatch,
    VirtualServiceSpec,
    kind,
)
from lab.resources.checks import exactly_one, never, refused, warned
from lab.resources.resource import Check, Path, Problem
from lab.resources.values import (
    export_to,
    host_problem,
    is_dns_label,
    is_ip,
    percent_problem,
    port_problem,
    regex_problem,
    within,
)

CLAIM_PREFIX = "@request.auth.claims"

RETRY_POLICIES = frozenset(
    [
        "5xx",
        "gateway-error",
        "reset",
        "reset-before-request",
        "connect-failure",
        "envoy-ratelimited",
        "retriable-4xx",
        "refused-stream",
        "retriable-status-codes",
        "retriable-headers",
        "http3-post-connect-failure",
        "cancelled",
        "deadline-exceeded",
        "internal",
        "resource-exhausted",
        "unavailable",
    ]
)
GRPC_STATUSES = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
]
"""In the order of their numbers."""


METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "*")


def _hosts(spec: VirtualServiceSpec) -> Iterator[Problem]:
    in_mesh = not spec.gateways or "mesh" in spec.gateways
    for index, host in enumerate(spec.hosts):
        if host == "*" and in_mesh:
            yield Problem(
                ("hosts", index),
                "wildcard host * is not allowed for virtual services bound to the mesh gateway",
            )
        elif host != "*" and (problem := host_problem(host)) and not is_ip(host):
            yield Problem(("hosts", index), problem)
    for first, second in combinations(spec.hosts, 2):
        if _overlap(first, second):
            reason = f"duplicate hosts in virtual service: {first} & {second}"
            yield Problem(("hosts",), reason)


def _overlap(first: str, second: str) -> bool:
    if first == second or "*" in (first, second):
        return True
    if first.startswith("*") and second.startswith("*"):
        return first.endswith(second[1:]) or second.endswith(first[1:])
    if first.startswith("*"):
        return second.endswith(first[1:])
    return second.startswith("*") and first.endswith(second[1:])


def _delegation(spec: VirtualServiceSpec) -> Iterator[Problem]:
    """Checks the action of each rule: a root's rule delegates, a delegate's doesn't again."""
    for index, route in enumerate(spec.http):
        found = _root(route) if spec.hosts and route.delegate else _action(route)
        for problem in found:
            yield Problem(("http", index, *problem.path), problem.reason)
        if route.delegate and not spec.hosts:
            reason = "delegate HTTP route cannot contain delegate"
            yield Problem(("http", index, "delegate"), reason)


def _root(route: HTTPRoute) -> Iterator[Problem]:
    for field in ("redirect", "route"):
        if getattr(route, field):
            yield Problem((field,), f"root HTTP route {route.name or ''} must not specify {field}")


def _action(route: HTTPRoute) -> Iterator[Problem]:
    others = {
        "route": bool(route.route),
        "fault": route.fault is not None,
        "rewrite": route.rewrite is not None,
        "mirror": route.mirror is not None or bool(route.mirrors),
    }
    for name, action in (("redirect", route.redirect), ("direct_response", route.direct_response)):
        for other in (other for other, present in others.items() if present and action):
            yield Problem((), f"HTTP route cannot contain both {other} and {name}")
    if route.redirect and route.direct_response:
        yield Problem((), "HTTP route cannot contain both redirect and direct_response")
    if not (route.route or route.redirect or route.direct_response):
        yield Problem((), "HTTP route, redirect or direct_response is required")
    if route.mirror and route.mirrors:
        yield Problem((), "HTTP route cannot contain both mirror and mirrors")
    if len(route.route) > 1 and sum(max(entry.weight, 0) for entry in route.route) == 0:
        yield Problem(("route",), "total destination weight = 0")


def _rewritten_prefixes(route: HTTPRoute) -> Iterator[Problem]:
    others = any(match.uri is not None and match.uri.prefix is None for match in route.match)
    if others and route.redirect is not None and route.redirect.prefix_rewrite:
        reason = "redirect prefix_rewrite requires all URI matches to use prefix match type"
        yield Problem(("redirect", "prefixRewrite"), reason)


def _matches(spec: VirtualServiceSpec) -> Iterator[Problem]:
    on_gateway = any(gateway != "mesh" for gateway in spec.gateways)
    for index, route in enumerate(spec.http):
        for position, match in enumerate(route.match):
            for problem in _match(match, on_gateway=on_gateway):
                path = ("http", index, "match", position, *problem.path)
                yield Problem(path, problem.reason, problem.severity)


def _match(match: HTTPMatchRequest, *, on_gateway: bool) -> Iterator[Problem]:
    for field in ("uri", "scheme", "method", "authority"):
        if (value := getattr(match, field)) is not None:
            yield from _string_match(value, (field,), field)
            if value == StringMatch():
                yield Problem((field,), f"{field} match needs exact, prefix or regex")
    for field, headers in (
        ("headers", match.headers),
        ("withoutHeaders", match.without_headers),
        ("queryParams", match.query_params),
    ):
        for name, value in headers.items():
            if value is None:
                yield Problem((field, name), f"header match {name} cannot be null")
                continue
            if not name:
                yield Problem((field, name), f"{field} match needs a name")
            if name.startswith(CLAIM_PREFIX):
                if not on_gateway or "mesh" in match.gateways:
                    reason = "JWT claim based routing is only supported for gateway, found mesh"
                    yield Problem((field, name), reason)
                if claim_path(name) is None:
                    yield Problem((field, name), f'"{name}" names no claim')
            yield from _string_match(value, (field, name), name)
    if match.source_labels and match.gateways and "mesh" not in match.gateways:
        reason = "sourceLabels are ignored: this match names a gateway"
        yield Problem(("sourceLabels",), reason, "warning")


def claim_path(name: str) -> list[str] | None:
    """Returns the path in `@request.auth.claims.a.b` or `@request.auth.claims[a][b]`.

    None if there is none.
    """
    rest = name.removeprefix(CLAIM_PREFIX)
    if rest.startswith("."):
        parts = rest[1:].split(".")
        return parts if all(parts) else None
    parts = re.findall(r"\[([^\[\]]+)\]", rest)
    return parts if parts and "".join(f"[{part}]" for part in parts) == rest else None


def _string_match(match: StringMatch, path: Path, name: str) -> Iterator[Problem]:
    for key, value in match.model_dump(exclude_none=True).items():
        if not value and key != "exact" and (*path, key) != ("uri", "prefix"):
            reason = f'"{name}" must not be empty: {key} match has no value'
            yield Problem((*path, key), reason)
    plain = match.regex == "*" and name not in ("uri", "scheme", "method", "authority")
    if match.regex and not plain and (problem := regex_problem(match.regex)):
        yield Problem((*path, "regex"), problem)


def _origin(origin: StringMatch) -> Iterator[Problem]:
    yield from _string_match(origin, (), "allowOrigins")
    if origin == StringMatch():
        yield Problem((), "needs exact, prefix or regex")


def _redirect(redirect: HTTPRedirect) -> Iterator[Problem]:
    given = (redirect.uri, redirect.prefix_rewrite, redirect.authority, redirect.scheme)
    if redirect.uri and redirect.prefix_rewrite:
        yield Problem((), "redirect may only specify one of uri or prefix_rewrite")
    if not any((*given, redirect.port, redirect.derive_port)):
        yield Problem((), "redirect must specify URI, authority, scheme, or port")


def _body_size(response: HTTPDirectResponse) -> Iterator[Problem]:
    body = response.body
    size = len((body.string or "").encode()) + len(body.bytes or "") if body else 0
    if size > 1024 * 1024:
        yield Problem(("body",), "body is larger than 1 MiB")
    elif size > 100 * 1024:
        reason = "large direct_responses may impact control plane performance"
        yield Problem(("body",), reason, "warning")


def _rewrite(rewrite: HTTPRewrite) -> Iterator[Problem]:
    regex = rewrite.uri_regex_rewrite
    if not (rewrite.uri or rewrite.authority or regex) or (rewrite.uri and regex):
        yield Problem(
            (),
            "rewrite must specify at least one of URI, UriRegexRewrite, or authority. "
            "Only one of URI or UriRegexRewrite may be specified",
        )
    if regex and not (regex.match and regex.rewrite):
        yield Problem(("uriRegexRewrite",), "match and rewrite must both be set")
    elif regex and (problem := regex_problem(regex.match)):
        yield Problem(("uriRegexRewrite", "match"), problem)


def grpc_status(name: str) -> int | None:
    """Returns the number of a gRPC status given as name or number; None if there is none."""
    if name.isdecimal():
        return int(name) if int(name) < len(GRPC_STATUSES) else None
    return GRPC_STATUSES.index(name) if name in GRPC_STATUSES else None


def _retries(retries: HTTPRetry) -> bool:
    """Returns whether a policy without attempts is otherwise empty."""
    others = (retries.per_try_timeout, retries.retry_on, retries.retry_remote_localities)
    return retries.attempts != 0 or not (others[0] is not None or any(others[1:]))


def retry_on_problems(conditions: str) -> Iterator[Problem]:
    for token in conditions.split(",") if conditions else ():
        status = token.isdecimal() and int(token) in {code.value for code in HTTPStatus}
        if token not in RETRY_POLICIES and not status:
            yield Problem((), f"{token or 'an empty value'} is not a valid retryOn policy")


def _destination_host(host: str) -> str | None:
    if not host:
        return "destination host is required"
    return f"invalid destination host {host}" if host == "*" else host_problem(host)


def _mirror_percent(percent: float) -> str | None:
    if percent > 100:
        return "mirror_percentage must have a max value of 100"
    return percent_problem(percent)


_HEADER_NAME = re.compile(r"[-!#$%&'*+.^_`|~0-9a-zA-Z]+")


def _is_authority(name: str) -> bool:
    return name.lower() in ("host", ":authority")


def _headers(route: HTTPRoute) -> Iterator[Problem]:
    found: list[tuple[Path, Headers | None]] = [
        (("route", index, "headers"), entry.headers) for index, entry in enumerate(route.route)
    ]
    for path, headers in (*found, (("headers",), route.headers)):
        rewritten = route.rewrite is not None and bool(route.rewrite.authority)
        request = headers.request if headers is not None else None
        names = (*request.set, *request.add) if request is not None else ()
        if headers is not None and rewritten + sum(map(_is_authority, names)) > 1:
            yield Problem(path, "authority header cannot be set multiple times")


def _header_operations(operations: HeaderOperations) -> Iterator[Problem]:
    for verb, values in (("set", operations.set), ("add", operations.add)):
        for name, value in values.items():
            if re.search(r"[\r\n\0]", value):
                yield Problem((verb, name), "a header value is one line")
            elif problem := _format_problem(value):
                yield Problem((verb, name), problem)


def _header_names(headers: Headers) -> Iterator[Problem]:
    for direction, operations in (("request", headers.request), ("response", headers.response)):
        if operations is None:
            continue
        for name, path in (
            *((name, ("set", name)) for name in operations.set),
            *((name, ("add", name)) for name in operations.add),
            *((name, ("remove",)) for name in operations.remove),
        ):
            authority = direction == "request" and _is_authority(name)
            if not authority and not _HEADER_NAME.fullmatch(name):
                yield Problem((direction, *path), f'"{name}" is not a valid header name')


def _format_problem(value: str) -> str | None:
    """Checks a header value, which is a format string of Envoy: `%%` is a percent sign."""
    rest = value.replace("%%", "")
    if "%" not in rest:
        return None
    if re.fullmatch(r"[^%]*(%[A-Z_0-9]+(\([^)%]*\))?(:\d+)?%[^%]*)+", rest):
        return None
    return "a literal % is written %% (header values are Envoy format strings)"


def _unreachable(spec: VirtualServiceSpec) -> Iterator[Problem]:
    catch_all: int | None = None
    seen: dict[str, int] = {}
    for index, route in enumerate(spec.http):
        where = ("http", index)
        if catch_all is not None:
            yield Problem(
                where,
                f"virtualService rule #{index} not used (only the last rule can have no matches)"
                if not route.match
                else f"virtualService rule #{index} is unreachable: rule #{catch_all} matches all",
                "warning",
            )
            continue
        for position, match in enumerate(route.match):
            key = match.model_dump_json(exclude={"name", "stat_prefix"})
            if key in seen:
                yield Problem(
                    (*where, "match", position),
                    f"this match is ineffective: rule #{seen[key]} has the same match",
                    "warning",
                )
            seen.setdefault(key, index)
        if not route.match or any(match_is_catch_all(match) for match in route.match):
            catch_all = index


def match_is_catch_all(match: HTTPMatchRequest) -> bool:
    """Returns whether every request meets this match, wherever it comes from."""
    uri = match.uri
    every_path = uri is None or uri.prefix in ("", "/") or uri.regex in (".*", "*")
    return every_path and not (
        match.scheme
        or match.method
        or match.authority
        or match.headers
        or match.without_headers
        or match.query_params
        or match.port
        or match.source_labels
        or match.source_namespace
        or match.gateways
    )


CHECKS = (
    refused("**.exponentialDelay", "Istio hides this field and does not implement it"),
    warned("**.delay.percent", "percent is deprecated; use percentage.value"),
    warned("**.mirrorPercent", "mirrorPercent is deprecated; use mirrorPercentage.value"),
    warned("**.mirror_percent", "mirror_percent is deprecated; use mirrorPercentage.value"),
    warned("**.allowOrigin", "allowOrigin is deprecated; use allowOrigins"),
    # Hosts and gateways.
    Check("spec", _hosts),
    Check(
        "spec",
        lambda spec: bool(spec.hosts or not spec.gateways),
        "delegate virtual service must have no gateways specified",
    ),
    Check("spec", _delegation),
    Check(
        "spec.gateways[]",
        lambda name: name.rsplit("/", 1)[-1] != "" and name.count("/") < 2,
        '"{value}" is not "name" or "ns/name"',
    ),
    Check("spec.exportTo", export_to),
    Check(
        "spec",
        lambda spec: bool(spec.http or spec.tls or spec.tcp),
        "http, tcp or tls must be provided in virtual service",
    ),
    # Routes.
    Check("spec", _matches),
    Check("spec.http[].match[].port", port_problem),
    Check("spec.http[].redirect", _redirect),
    Check("spec.http[]", _rewritten_prefixes),
    Check("spec.http[].redirect.port", port_problem),
    Check(
        "spec.http[].redirect.scheme",
        lambda scheme: scheme in ("http", "https"),
        "redirect scheme must be http or https",
    ),
    Check(
        "spec.http[].redirect.redirectCode",
        lambda code: code in (0, 301, 302, 303, 307, 308),
        "{value} is no redirect; Envoy knows 301, 302, 303, 307 and 308",
    ),
    Check(
        "**.directResponse|abort.status|httpStatus",
        within(200, 599),
        "HTTP status {value} is not in range 200-599",
    ),
    Check("**.directResponse.body", exactly_one, "exactly one of string and bytes must be set"),
    Check("**.directResponse", _body_size),
    Check("spec.http[].rewrite", _rewrite),
    # Faults and retries.
    Check(
        "**.fault",
        lambda fault: fault.delay is not None or fault.abort is not None,
        "HTTP fault injection must have an abort and/or a delay",
    ),
    Check("**.fault.delay|abort.percentage.value", percent_problem),
    Check("**.delay.percent", within(0, 100), "percentage must be in range 0..100"),
    Check(
        "**.delay",
        lambda delay: delay.fixed_delay is not None or delay.exponential_delay is not None,
        "delay needs fixedDelay",
    ),
    Check(
        "**.delay",
        lambda delay: delay.percentage is not None or bool(delay.percent),
        "without percentage the delay is never injected",
        "warning",
    ),
    Check("**.abort.http2Error", never, "HTTP/2 abort fault injection not supported yet"),
    Check("**.abort", exactly_one, "abort needs exactly one of httpStatus and grpcStatus"),
    Check(
        "**.abort.grpcStatus",
        lambda status: grpc_status(status) is not None,
        "gRPC status {value} is not supported",
    ),
    Check(
        "**.abort",
        lambda abort: abort.percentage is not None,
        "without percentage the abort is never injected",
        "warning",
    ),
    Check("**.retries.attempts", lambda count: count >= 0, "attempts cannot be negative"),
    Check(
        "**.retries",
        _retries,
        "http retry policy configured when attempts are set to 0 (disabled)",
    ),
    Check("**.retries.retryOn", retry_on_problems),
    # CORS.
    Check("**.corsPolicy.allowOrigins[]", _origin),
    Check(
        "**.corsPolicy.allowMethods[]",
        lambda method: method in METHODS,
        '"{value}" is not a supported HTTP method',
    ),
    Check(
        "**.corsPolicy.maxAge",
        lambda age: not age.microseconds,
        "only whole seconds are supported",
    ),
    # Destinations, mirrors, headers.
    Check("**.destination|mirror.host", _destination_host),
    Check(
        "**.destination|mirror.subset",
        lambda name: not name or is_dns_label(name),
        "subset name is invalid: {value}",
    ),
    Check("**.destination|mirror.port.number", port_problem),
    Check("**.route[].weight", lambda weight: weight >= 0, "weight {value} < 0"),
    Check("**.mirrors[].percentage.value", _mirror_percent),
    Check("**.mirrorPercentage.value", _mirror_percent),
    Check(
        "**.mirrorPercent|mirror_percent",
        lambda percent: percent <= 100,
        "mirror_percent must have a max value of 100",
    ),
    Check("spec.http[].headers", _header_names),
    Check("spec.http[].route[].headers", _header_names),
    Check("**.headers.request|response", _header_operations),
    Check("spec.http[]", _headers),
    Check("spec", _unreachable),
    *CONNECTIONS,
)

KINDS = (kind(CHECKS),)
