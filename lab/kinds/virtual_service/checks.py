"""VirtualService: the typed body and what istiod's validation says about it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations
from typing import Literal

from pydantic import Field

from lab.resources.istio import (
    MILLISECOND,
    NETWORKING_VERSIONS,
    Duration,
    Integer,
    IstioModel,
    Percent,
    Port,
    Text,
    export_to_problems,
    field_problems,
    host_problem,
    ignored,
    is_dns_label,
    port_problem,
    refused,
    regex_problem,
)
from lab.resources.resource import Kind, Path, Problem, Resource

CLAIM_PREFIX = "@request.auth.claims"


class StringMatch(IstioModel):
    """At most one of the three; none of them means "is present"."""

    exact: Text | None = None
    prefix: Text | None = None
    regex: Text | None = None


class PortSelector(IstioModel):
    number: Port


class Destination(IstioModel):
    host: Text
    subset: Text | None = None
    port: PortSelector | None = None


class HeaderOperations(IstioModel):
    set: dict[str, Text] = Field(default_factory=dict)
    add: dict[str, Text] = Field(default_factory=dict)
    remove: list[Text] = Field(default_factory=list)


class Headers(IstioModel):
    request: HeaderOperations | None = None
    response: HeaderOperations | None = None


class HTTPRouteDestination(IstioModel):
    destination: Destination
    weight: Integer = 0
    headers: Headers | None = None


class HTTPMatchRequest(IstioModel):
    name: Text | None = None
    uri: StringMatch | None = None
    scheme: StringMatch | None = None
    method: StringMatch | None = None
    authority: StringMatch | None = None
    headers: dict[str, StringMatch | None] = Field(default_factory=dict)
    without_headers: dict[str, StringMatch | None] = Field(default_factory=dict)
    query_params: dict[str, StringMatch | None] = Field(default_factory=dict)
    ignore_uri_case: bool = False
    port: Port | None = None
    source_labels: dict[str, str] = Field(default_factory=dict)
    source_namespace: Text | None = None
    gateways: list[Text] = Field(default_factory=list)
    stat_prefix: Text | None = None


class RegexRewrite(IstioModel):
    match: Text = ""
    rewrite: Text = ""


class HTTPRewrite(IstioModel):
    uri: Text | None = None
    authority: Text | None = None
    uri_regex_rewrite: RegexRewrite | None = None


class HTTPRedirect(IstioModel):
    uri: Text | None = None
    authority: Text | None = None
    scheme: Text | None = None
    port: Port | None = None
    derive_port: Literal["FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"] | None = None
    redirect_code: Integer | None = None


class HTTPBody(IstioModel):
    string: Text | None = None
    bytes: Text | None = None
    """Base64, as protobuf's JSON has it."""


class HTTPDirectResponse(IstioModel):
    status: Integer
    body: HTTPBody | None = None


class FaultDelay(IstioModel):
    fixed_delay: Duration | None = None
    percentage: Percent | None = None
    percent: Integer | None = ignored("percent is deprecated; use percentage.value")
    exponential_delay: Duration | None = refused("Istio hides this field and does not implement it")


class FaultAbort(IstioModel):
    http_status: Integer | None = None
    grpc_status: Text | None = None
    http2_error: Text | None = None
    percentage: Percent | None = None


class HTTPFaultInjection(IstioModel):
    delay: FaultDelay | None = None
    abort: FaultAbort | None = None


class HTTPRetry(IstioModel):
    attempts: Integer = 0
    per_try_timeout: Duration | None = None
    retry_on: Text | None = None
    backoff: Duration | None = None
    retry_ignore_previous_hosts: bool | None = None
    retry_remote_localities: bool | None = None


class HTTPMirrorPolicy(IstioModel):
    destination: Destination
    percentage: Percent | None = None


class CorsPolicy(IstioModel):
    allow_origins: list[StringMatch] = Field(default_factory=list)
    allow_origin: list[Text] | None = ignored("allowOrigin is deprecated; use allowOrigins")
    allow_methods: list[Text] = Field(default_factory=list)
    allow_headers: list[Text] = Field(default_factory=list)
    expose_headers: list[Text] = Field(default_factory=list)
    max_age: Duration | None = None
    allow_credentials: bool | None = None
    unmatched_preflights: Literal["UNSPECIFIED", "FORWARD", "IGNORE"] | None = None


class HTTPRoute(IstioModel):
    name: Text | None = None
    match: list[HTTPMatchRequest] = Field(default_factory=list)
    route: list[HTTPRouteDestination] = Field(default_factory=list)
    redirect: HTTPRedirect | None = None
    direct_response: HTTPDirectResponse | None = None
    rewrite: HTTPRewrite | None = None
    timeout: Duration | None = None
    retries: HTTPRetry | None = None
    fault: HTTPFaultInjection | None = None
    mirror: Destination | None = None
    mirrors: list[HTTPMirrorPolicy] = Field(default_factory=list)
    mirror_percentage: Percent | None = None
    mirror_percent: Integer | None = ignored(
        "mirrorPercent is deprecated; use mirrorPercentage.value"
    )
    mirror_percent_snake: Integer | None = ignored(
        "mirror_percent is deprecated; use mirrorPercentage.value", alias="mirror_percent"
    )
    cors_policy: CorsPolicy | None = None
    headers: Headers | None = None
    delegate: dict[str, str] | None = refused(
        "route delegation; write the routes into this VirtualService"
    )


class VirtualServiceSpec(IstioModel):
    hosts: list[Text] = Field(default_factory=list)
    gateways: list[Text] = Field(default_factory=list)
    http: list[HTTPRoute] = Field(default_factory=list)
    tls: list[object] | None = refused(
        "tls routes; HTTPS leaves the lab by the SNI of a ServiceEntry, without a VirtualService"
    )
    tcp: list[object] | None = refused("tcp routes; a TCP service has its one default route")
    export_to: list[Text] | None = None


class VirtualService(IstioModel):
    spec: VirtualServiceSpec


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


def validate(resource: Resource) -> Iterator[Problem]:
    """What istiod's webhook says of a VirtualService, and what the lab does not translate."""
    spec: VirtualServiceSpec = resource.spec
    path: Path = ("spec",)
    yield from field_problems(spec, path)
    yield from _hosts(spec, path)
    yield from export_to_problems(spec.export_to, (*path, "exportTo"))
    if not (spec.http or spec.tls or spec.tcp):
        yield Problem(path, "http, tcp or tls must be provided in virtual service")
    on_gateway = any(gateway != "mesh" for gateway in spec.gateways)
    for index, route in enumerate(spec.http):
        yield from _http_route(route, (*path, "http", index), on_gateway=on_gateway)
    yield from _unreachable(spec, path)


def _hosts(spec: VirtualServiceSpec, path: Path) -> Iterator[Problem]:
    where: Path = (*path, "hosts")
    if not spec.hosts:
        yield Problem(where, "virtual service must have at least one host")
    in_mesh = not spec.gateways or "mesh" in spec.gateways
    for index, host in enumerate(spec.hosts):
        if host == "*":
            if in_mesh:
                yield Problem(
                    (*where, index),
                    "wildcard host * is not allowed for virtual services bound to the mesh gateway",
                )
        elif (problem := host_problem(host)) and not _is_ip(host):
            yield Problem((*where, index), problem)
    for first, second in combinations(spec.hosts, 2):
        if _overlap(first, second):
            yield Problem(where, f"duplicate hosts in virtual service: {first} & {second}")
    for index, gateway in enumerate(spec.gateways):
        name = gateway.rsplit("/", 1)
        if not name[-1] or len(gateway.split("/")) > 2:
            yield Problem((*path, "gateways", index), f'"{gateway}" is not "name" or "ns/name"')


def _is_ip(host: str) -> bool:
    return re.fullmatch(r"[0-9.]+|[0-9a-f:]+", host) is not None


def _overlap(first: str, second: str) -> bool:
    if first == second or "*" in (first, second):
        return True
    if first.startswith("*") and second.startswith("*"):
        return first.endswith(second[1:]) or second.endswith(first[1:])
    if first.startswith("*"):
        return second.endswith(first[1:])
    return second.startswith("*") and first.endswith(second[1:])


def _http_route(route: HTTPRoute, path: Path, *, on_gateway: bool) -> Iterator[Problem]:
    yield from _action(route, path)
    for index, match in enumerate(route.match):
        yield from _match(match, (*path, "match", index), on_gateway=on_gateway)
    if route.redirect:
        yield from _redirect(route.redirect, (*path, "redirect"))
    if route.direct_response:
        yield from _direct_response(route.direct_response, (*path, "directResponse"))
    if route.rewrite:
        yield from _rewrite(route.rewrite, (*path, "rewrite"))
    if route.fault:
        yield from _fault(route.fault, (*path, "fault"))
    if route.retries:
        yield from _retries(route.retries, (*path, "retries"))
    if route.timeout is not None and route.timeout < MILLISECOND:
        yield Problem((*path, "timeout"), "duration must be greater than 1ms")
    if route.cors_policy:
        yield from _cors(route.cors_policy, (*path, "corsPolicy"))
    yield from _destinations(route, path)
    yield from _mirrors(route, path)
    yield from _headers(route.headers, (*path, "headers"), rewrite=route.rewrite)


def _action(route: HTTPRoute, path: Path) -> Iterator[Problem]:
    exclusive = {
        "route": bool(route.route),
        "fault": route.fault is not None,
        "rewrite": route.rewrite is not None,
        "mirror": route.mirror is not None or bool(route.mirrors),
    }
    if route.redirect:
        for field in (name for name, present in exclusive.items() if present):
            yield Problem(path, f"HTTP route cannot contain both {field} and redirect")
    if route.direct_response:
        for field in (name for name, present in exclusive.items() if present):
            yield Problem(path, f"HTTP route cannot contain both {field} and direct_response")
    if route.redirect and route.direct_response:
        yield Problem(path, "HTTP route cannot contain both redirect and direct_response")
    if not (route.route or route.redirect or route.direct_response or route.delegate):
        yield Problem(path, "HTTP route, redirect or direct_response is required")


def _match(match: HTTPMatchRequest, path: Path, *, on_gateway: bool) -> Iterator[Problem]:
    for field in ("uri", "scheme", "method", "authority"):
        if (value := getattr(match, field)) is not None:
            yield from _string_match(value, (*path, field), field, empty_prefix=field == "uri")
            if value == StringMatch():
                yield Problem((*path, field), f"{field} match needs exact, prefix or regex")
    for field, headers in (
        ("headers", match.headers),
        ("withoutHeaders", match.without_headers),
        ("queryParams", match.query_params),
    ):
        for name, value in headers.items():
            where = (*path, field, name)
            if value is None:
                yield Problem(where, f"header match {name} cannot be null")
                continue
            if not name:
                yield Problem(where, f"{field} match needs a name")
            if name.startswith(CLAIM_PREFIX):
                if not on_gateway or "mesh" in match.gateways:
                    yield Problem(
                        where, "JWT claim based routing is only supported for gateway, found mesh"
                    )
                if claim_path(name) is None:
                    yield Problem(where, f'"{name}" names no claim')
            yield from _string_match(value, where, name)
    if match.port is not None and (problem := port_problem(match.port)):
        yield Problem((*path, "port"), problem)
    if match.source_labels and match.gateways and "mesh" not in match.gateways:
        yield Problem(
            (*path, "sourceLabels"),
            "sourceLabels are ignored: this match names a gateway",
            "warning",
        )


def claim_path(name: str) -> list[str] | None:
    """The path in `@request.auth.claims.a.b` or `@request.auth.claims[a][b]`; None if bad."""
    rest = name.removeprefix(CLAIM_PREFIX)
    if rest.startswith("."):
        parts = rest[1:].split(".")
        return parts if all(parts) else None
    parts = re.findall(r"\[([^\[\]]+)\]", rest)
    return parts if parts and "".join(f"[{part}]" for part in parts) == rest else None


def _string_match(
    match: StringMatch, path: Path, name: str, *, empty_prefix: bool = False
) -> Iterator[Problem]:
    given = {k: v for k, v in match.model_dump().items() if v is not None}
    if len(given) > 1:
        yield Problem(path, f"only one of {', '.join(given)} may be set")
    for kind, value in given.items():
        if not value and not (empty_prefix and kind == "prefix"):
            yield Problem((*path, kind), f'"{name}" must not be empty: {kind} match has no value')
    if match.regex and match.regex != "*" and (problem := regex_problem(match.regex)):
        yield Problem((*path, "regex"), problem)
    if match.regex == "*" and name in ("uri", "scheme", "method", "authority"):
        yield Problem((*path, "regex"), regex_problem("*") or "")


def _redirect(redirect: HTTPRedirect, path: Path) -> Iterator[Problem]:
    if not any((redirect.uri, redirect.authority, redirect.scheme, redirect.port)) and not (
        redirect.derive_port
    ):
        yield Problem(path, "redirect must specify URI, authority, scheme, or port")
    if redirect.port is not None and redirect.derive_port is not None:
        yield Problem(path, "only one of port and derivePort may be set")
    if redirect.port is not None and (problem := port_problem(redirect.port)):
        yield Problem((*path, "port"), problem)
    if redirect.scheme not in (None, "http", "https"):
        yield Problem((*path, "scheme"), "redirect scheme must be http or https")
    if redirect.redirect_code not in (None, 0, 301, 302, 303, 307, 308):
        code = redirect.redirect_code
        yield Problem(
            (*path, "redirectCode"),
            f"{code} is no redirect; Envoy knows 301, 302, 303, 307 and 308",
        )


def _direct_response(response: HTTPDirectResponse, path: Path) -> Iterator[Problem]:
    if not 200 <= response.status <= 599:
        yield Problem((*path, "status"), f"HTTP status {response.status} is not in range 200-599")
    if response.body and (response.body.string is None) == (response.body.bytes is None):
        yield Problem((*path, "body"), "exactly one of string and bytes must be set")
    if response.body:
        size = len((response.body.string or "").encode()) + len(response.body.bytes or "")
        if size > 1024 * 1024:
            yield Problem((*path, "body"), "body is larger than 1 MiB")
        elif size > 100 * 1024:
            yield Problem(
                (*path, "body"),
                "large direct_responses may impact control plane performance",
                "warning",
            )


def _rewrite(rewrite: HTTPRewrite, path: Path) -> Iterator[Problem]:
    regex = rewrite.uri_regex_rewrite
    if not (rewrite.uri or rewrite.authority or regex) or (rewrite.uri and regex):
        yield Problem(
            path,
            "rewrite must specify at least one of URI, UriRegexRewrite, or authority. "
            "Only one of URI or UriRegexRewrite may be specified",
        )
    if regex:
        if not regex.match or not regex.rewrite:
            yield Problem((*path, "uriRegexRewrite"), "match and rewrite must both be set")
        elif problem := regex_problem(regex.match):
            yield Problem((*path, "uriRegexRewrite", "match"), problem)


def percent_problem(percent: Percent | None, path: Path) -> Iterator[Problem]:
    value = percent.value if percent else 0.0
    if value != 0 and not 0.0001 <= value <= 100:
        yield Problem(
            (*path, "value"),
            f"percentage {value:g} is neither 0.0, nor in range [0.0001, 100.0]",
        )


def _fault(fault: HTTPFaultInjection, path: Path) -> Iterator[Problem]:
    if not (fault.delay or fault.abort):
        yield Problem(path, "HTTP fault injection must have an abort and/or a delay")
    if fault.delay:
        where: Path = (*path, "delay")
        yield from percent_problem(fault.delay.percentage, (*where, "percentage"))
        if fault.delay.percent is not None and not 0 <= fault.delay.percent <= 100:
            yield Problem((*where, "percent"), "percentage must be in range 0..100")
        if fault.delay.fixed_delay is None and fault.delay.exponential_delay is None:
            yield Problem(where, "delay needs fixedDelay")
        elif fault.delay.fixed_delay is not None and fault.delay.fixed_delay < MILLISECOND:
            yield Problem((*where, "fixedDelay"), "duration must be greater than 1ms")
        if fault.delay.percentage is None and not fault.delay.percent:
            yield Problem(where, "without percentage the delay is never injected", "warning")
    if fault.abort:
        where = (*path, "abort")
        abort = fault.abort
        yield from percent_problem(abort.percentage, (*where, "percentage"))
        if abort.http2_error is not None:
            yield Problem((*where, "http2Error"), "HTTP/2 abort fault injection not supported yet")
        given = [
            v for v in (abort.http_status, abort.grpc_status, abort.http2_error) if v is not None
        ]
        if len(given) != 1:
            yield Problem(where, "abort needs exactly one of httpStatus and grpcStatus")
        if abort.http_status is not None and not 200 <= abort.http_status <= 599:
            yield Problem(
                (*where, "httpStatus"), f"HTTP status {abort.http_status} is not in range 200-599"
            )
        if abort.grpc_status is not None and grpc_status(abort.grpc_status) is None:
            yield Problem(
                (*where, "grpcStatus"), f"gRPC status {abort.grpc_status} is not supported"
            )
        if abort.percentage is None:
            yield Problem(where, "without percentage the abort is never injected", "warning")


def grpc_status(name: str) -> int | None:
    """The number of a gRPC status given as name or number; None when there is no such status."""
    if name.isdecimal():
        return int(name) if int(name) < len(GRPC_STATUSES) else None
    return GRPC_STATUSES.index(name) if name in GRPC_STATUSES else None


def _retries(retries: HTTPRetry, path: Path) -> Iterator[Problem]:
    if retries.attempts < 0:
        yield Problem((*path, "attempts"), "attempts cannot be negative")
    if retries.attempts == 0 and (
        retries.per_try_timeout is not None or retries.retry_on or retries.retry_remote_localities
    ):
        yield Problem(path, "http retry policy configured when attempts are set to 0 (disabled)")
    for field, value in (
        ("perTryTimeout", retries.per_try_timeout),
        ("backoff", retries.backoff),
    ):
        if value is not None and value < MILLISECOND:
            yield Problem((*path, field), "duration must be greater than 1ms")
    for token in (retries.retry_on or "").split(",") if retries.retry_on else ():
        if token.strip() in RETRY_POLICIES:
            continue
        if token.strip().isdecimal() and 100 <= int(token) <= 599:
            continue
        yield Problem(
            (*path, "retryOn"), f"{token or 'an empty value'} is not a valid retryOn policy"
        )


def _cors(cors: CorsPolicy, path: Path) -> Iterator[Problem]:
    for index, origin in enumerate(cors.allow_origins):
        yield from _string_match(origin, (*path, "allowOrigins", index), "allowOrigins")
        if origin == StringMatch():
            yield Problem((*path, "allowOrigins", index), "needs exact, prefix or regex")
    for index, method in enumerate(cors.allow_methods):
        if method not in (
            ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "*"]
        ):
            yield Problem(
                (*path, "allowMethods", index), f'"{method}" is not a supported HTTP method'
            )
    if cors.max_age is not None and (cors.max_age < MILLISECOND or cors.max_age.microseconds):
        yield Problem((*path, "maxAge"), "only whole seconds are supported")


def destination_problems(destination: Destination, path: Path) -> Iterator[Problem]:
    if not destination.host:
        yield Problem((*path, "host"), "destination host is required")
    elif destination.host == "*":
        yield Problem((*path, "host"), f"invalid destination host {destination.host}")
    elif problem := host_problem(destination.host):
        yield Problem((*path, "host"), problem)
    if destination.subset and not is_dns_label(destination.subset):
        yield Problem((*path, "subset"), f"subset name is invalid: {destination.subset}")
    if destination.port and (problem := port_problem(destination.port.number)):
        yield Problem((*path, "port", "number"), problem)


def _destinations(route: HTTPRoute, path: Path) -> Iterator[Problem]:
    for index, entry in enumerate(route.route):
        where = (*path, "route", index)
        yield from destination_problems(entry.destination, (*where, "destination"))
        if entry.weight < 0:
            yield Problem((*where, "weight"), f"weight {entry.weight} < 0")
        yield from _headers(entry.headers, (*where, "headers"), rewrite=route.rewrite)
    if len(route.route) > 1 and sum(max(entry.weight, 0) for entry in route.route) == 0:
        yield Problem((*path, "route"), "total destination weight = 0")


def _mirrors(route: HTTPRoute, path: Path) -> Iterator[Problem]:
    if route.mirror and route.mirrors:
        yield Problem(path, "HTTP route cannot contain both mirror and mirrors")
    if route.mirror:
        yield from destination_problems(route.mirror, (*path, "mirror"))
    for index, mirror in enumerate(route.mirrors):
        where = (*path, "mirrors", index)
        yield from destination_problems(mirror.destination, (*where, "destination"))
        yield from _mirror_percent(mirror.percentage, (*where, "percentage"))
    yield from _mirror_percent(route.mirror_percentage, (*path, "mirrorPercentage"))
    for field, percent in (
        ("mirrorPercent", route.mirror_percent),
        ("mirror_percent", route.mirror_percent_snake),
    ):
        if percent is not None and percent > 100:
            yield Problem((*path, field), "mirror_percent must have a max value of 100")


def _mirror_percent(percent: Percent | None, path: Path) -> Iterator[Problem]:
    if percent and percent.value > 100:
        yield Problem((*path, "value"), "mirror_percentage must have a max value of 100")
    elif percent:
        yield from percent_problem(percent, path)


_HEADER_NAME = re.compile(r"[-!#$%&'*+.^_`|~0-9a-zA-Z]+")


def _headers(
    headers: Headers | None, path: Path, *, rewrite: HTTPRewrite | None
) -> Iterator[Problem]:
    if headers is None:
        return
    authority = [rewrite.authority] if rewrite and rewrite.authority else []
    for direction, operations in (("request", headers.request), ("response", headers.response)):
        if operations is None:
            continue
        for verb, names in (
            ("set", operations.set),
            ("add", operations.add),
            ("remove", operations.remove),
        ):
            for name in names:
                where = (*path, direction, verb, *((name,) if verb != "remove" else ()))
                if direction == "request" and name.lower() in ("host", ":authority"):
                    if verb != "remove":
                        authority.append(name)
                elif not _HEADER_NAME.fullmatch(name):
                    yield Problem(where, f'"{name}" is not a valid header name')
        for verb, values in (("set", operations.set), ("add", operations.add)):
            for name, value in values.items():
                if re.search(r"[\r\n\0]", value):
                    yield Problem((*path, direction, verb, name), "a header value is one line")
                elif problem := _format_problem(value):
                    yield Problem((*path, direction, verb, name), problem)
    if len(authority) > 1:
        yield Problem(path, "authority header cannot be set multiple times")


def _format_problem(value: str) -> str | None:
    """Header values are Envoy format strings: `%%` is a percent sign, `%REQ(x)%` an expression."""
    rest = value.replace("%%", "")
    if "%" not in rest:
        return None
    if re.fullmatch(r"[^%]*(%[A-Z_0-9]+(\([^)%]*\))?(:\d+)?%[^%]*)+", rest):
        return None
    return "a literal % is written %% (header values are Envoy format strings)"


def _unreachable(spec: VirtualServiceSpec, path: Path) -> Iterator[Problem]:
    catch_all: int | None = None
    seen: dict[str, int] = {}
    for index, route in enumerate(spec.http):
        where = (*path, "http", index)
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
    """Whether every request meets this match, wherever it comes from."""
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


KINDS: tuple[Kind, ...] = (
    Kind(
        group="networking.istio.io",
        kind="VirtualService",
        plural="virtualservices",
        versions=NETWORKING_VERSIONS,
        body=VirtualService,
        short_names=("vs",),
        validate=validate,
    ),
)
