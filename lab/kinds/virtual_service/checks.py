"""Checks of a VirtualService: istiod's validation beyond the schema, and the lab's limits."""

from __future__ import annotations

import base64
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
    VirtualService,
    VirtualServiceSpec,
)
from lab.kinds.virtual_service.unused import unused
from lab.resources.checks import exactly_one, never, refused, warned
from lab.resources.istio import kind
from lab.resources.resource import Check, Path, Problem
from lab.resources.values import (
    export_to,
    host_problem,
    is_dns_label,
    is_ip,
    percent_problem,
    port_problem,
    regex_problem,
    subset_problem,
    tag_problems,
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
    valid = True
    for index, host in enumerate(spec.hosts):
        problem = host_problem(host)
        if problem and is_ip(host):
            continue
        if host == "*" and in_mesh:
            problem = (
                "wildcard host * is not allowed for virtual services bound to the mesh gateway"
            )
        if problem:
            valid = False
            yield Problem(("hosts", index), problem)
    for first, second in combinations(spec.hosts, 2) if valid else ():
        if _overlap(first, second):
            reason = f"duplicate hosts in virtual service: {first} & {second}"
            yield Problem(("hosts",), reason)


def _gateways(names: list[str]) -> Iterator[Problem]:
    for index, given in enumerate(names):
        namespace, slash, name = given.partition("/")
        if not slash:
            if "." in given:
                first, second, *_ = given.split(".")
                yield Problem(
                    (index,),
                    f'using legacy gatewayName format "{given}"; prefer the <namespace>/<name> '
                    f'format: "{second}/{first}"',
                    "warning",
                )
            if problem := host_problem(given, wildcard=False):
                yield Problem((index,), problem)
            return  # istiod looks no further.
        if not namespace or not name:
            yield Problem((index,), "config namespace and gateway name cannot be empty")
        if not is_dns_label(namespace):
            yield Problem((index,), f'invalid value for namespace: "{namespace}"')
        if not is_dns_label(name):
            yield Problem((index,), f'invalid value for gateway name: "{name}"')


def _overlap(first: str, second: str) -> bool:
    if first == second or "*" in (first, second):
        return True
    if first.startswith("*") and second.startswith("*"):
        return first.endswith(second[1:]) or second.endswith(first[1:])
    if first.startswith("*"):
        return second.endswith(first[1:])
    return second.startswith("*") and first.endswith(second[1:])


def _delegate(spec: VirtualServiceSpec) -> Iterator[Problem]:
    """Yields what a delegate, which is a VirtualService without hosts, has and may not have."""
    for words, found in (
        ("gateways", spec.gateways), ("tls route", spec.tls), ("tcp route", spec.tcp),
    ):  # fmt: skip
        if found and not spec.hosts:
            yield Problem((), f"delegate virtual service must have no {words} specified")


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
    actions = (("redirect", route.redirect), ("direct_response", route.direct_response))
    action = next((name for name, value in actions if value is not None), None)
    others = {
        "route": bool(route.route),
        "fault": route.fault is not None,
        "rewrite": route.rewrite is not None,
        "direct_response": route.direct_response is not None and action == "redirect",
    }
    for other in (other for other, present in others.items() if present and action):
        what = "HTTP route" if other in ("route", "fault") else "HTTP route rule"
        yield Problem((), f"{what} cannot contain both {other} and {action}")
    if not route.route and not action:
        yield Problem((), "HTTP route, redirect or direct_response is required")
    if route.mirror and route.mirrors:
        yield Problem((), "HTTP route cannot contain both mirror and mirrors")
    if len(route.route) > 1 and sum(entry.weight for entry in route.route) == 0:
        yield Problem(("route",), "total destination weight = 0")


def _rewritten_prefixes(route: HTTPRoute) -> Iterator[Problem]:
    others = any(match.uri is not None and match.uri.prefix is None for match in route.match)
    if others and route.redirect is not None and route.redirect.prefix_rewrite:
        reason = "redirect prefix_rewrite requires all URI matches to use prefix match type"
        yield Problem(("redirect", "prefixRewrite"), reason)


def _claims(spec: VirtualServiceSpec) -> Iterator[Problem]:
    if spec.gateways and "mesh" not in spec.gateways:
        return
    for index, route in enumerate(spec.http):
        for position, match in enumerate(route.match):
            for field, headers in (
                ("headers", match.headers),
                ("withoutHeaders", match.without_headers),
            ):
                for name in headers:
                    if claim_path(name) is not None:
                        reason = (
                            f"JWT claim based routing (key: {name}) is only supported for gateway, "
                            f"found no gateways: [{' '.join(spec.gateways)}]"
                        )
                        yield Problem(("http", index, "match", position, field, name), reason)


def _match(match: HTTPMatchRequest) -> Iterator[Problem]:
    if match.uri is not None:
        yield from _regex(match.uri, ("uri",), "uri")
    for field in ("scheme", "method", "authority"):
        yield from _string_match(getattr(match, field), (field,), field)
    for name, value in match.headers.items():
        yield from _match_name(name, ("headers", name))
        yield from _string_match(value, ("headers", name), "headers")
    for name, value in match.without_headers.items():
        yield from _match_name(name, ("withoutHeaders", name))
        if value.regex != "*":  # It means that the header is there.
            yield from _string_match(value, ("withoutHeaders", name), "withoutHeaders")
    for name, value in match.query_params.items():
        if not name:
            reason = "the lab refuses it: Envoy takes no query parameter without a name"
            yield Problem(("queryParams", name), reason)
        yield from _string_match(value, ("queryParams", name), "queryParams")


_PSEUDO_HEADERS = (":method", ":scheme", ":authority", ":path", ":status")
_HEADER_NAME = re.compile(r"[-!#$%&'*+,.^_`|~0-9a-zA-Z]+")


def _header_name(name: str) -> str | None:
    if not name:
        return "header name cannot be empty"
    if not _HEADER_NAME.fullmatch(name):
        return f"header name {name} is not a valid header name"
    return None


def _match_name(name: str, path: Path) -> Iterator[Problem]:
    if claim_path(name) is None and name not in _PSEUDO_HEADERS and (reason := _header_name(name)):
        yield Problem(path, reason)


def claim_path(name: str) -> list[str] | None:
    """Returns the path in `@request.auth.claims.a.b` or `@request.auth.claims[a][b]`.

    None if it is another header.
    """
    rest = name[len(CLAIM_PREFIX) :]
    if not name.lower().startswith(CLAIM_PREFIX) or len(rest) < 2:
        return None
    if rest.startswith("."):
        return rest[1:].split(".")
    if rest.startswith("[") and rest.endswith("]") and len(rest) > 2:
        return rest[1:-1].split("][")
    return None


def _string_match(match: StringMatch | None, path: Path, where: str) -> Iterator[Problem]:
    if match is not None and match.prefix == "":
        reason = f'"{where}": prefix string match should not be empty'
        yield Problem((*path, "prefix"), reason)
    if match is not None:
        yield from _regex(match, path, where)


def _regex(match: StringMatch, path: Path, where: str) -> Iterator[Problem]:
    if match.regex == "":
        yield Problem((*path, "regex"), f'"{where}": regex string match should not be empty')
    elif match.regex and (problem := regex_problem(match.regex)):
        yield Problem((*path, "regex"), f'"{where}": {problem}')


def _origin(origin: StringMatch) -> Iterator[Problem]:
    if not (origin.exact or origin.prefix or origin.regex):
        yield Problem((), "'' is not a valid match type for CORS allow origins")
    else:
        yield from _regex(origin, (), "corsPolicy.allowOrigins")


def _redirect(redirect: HTTPRedirect) -> Iterator[Problem]:
    given = (redirect.uri, redirect.prefix_rewrite, redirect.authority, redirect.scheme)
    if redirect.uri and redirect.prefix_rewrite:
        yield Problem((), "redirect may only specify one of uri or prefix_rewrite")
    if not any(given) and redirect.port is None and redirect.derive_port is None:
        yield Problem((), "redirect must specify URI, authority, scheme, or port")


def _redirect_code(code: int) -> str | None:
    if code and not 300 <= code <= 399:
        return f"{code} is not a valid redirect code, must be 3xx"
    if code not in (0, 301, 302, 303, 307, 308):
        return "the lab refuses it: Envoy redirects with 301, 302, 303, 307 or 308"
    return None


def _body_size(response: HTTPDirectResponse) -> Iterator[Problem]:
    body = response.body
    data = (body.string or "").encode() if body else b""
    if body and body.bytes:
        try:
            data = base64.b64decode(body.bytes, validate=True)
        except ValueError:
            yield Problem(("body", "bytes"), "must be of type byte: it is not base64")
    size = len(data)
    if size > 1024 * 1024:
        reason = (
            "large direct_responses may impact control plane performance, must be less than 1MB"
        )
        yield Problem(("body",), reason)
    elif size > 100 * 1024:
        reason = "large direct_responses may impact control plane performance"
        yield Problem(("body",), reason, "warning")


def _rewrite(rewrite: HTTPRewrite) -> Iterator[Problem]:
    regex = rewrite.uri_regex_rewrite
    if rewrite.uri and regex is not None:
        yield Problem((), "rewrite may only contain one of URI or UriRegexRewrite")
    elif not (rewrite.uri or rewrite.authority) and regex is None:
        yield Problem(
            (),
            "rewrite must specify at least one of URI, UriRegexRewrite, or authority. "
            "Only one of URI or UriRegexRewrite may be specified",
        )
    elif regex is not None and not (regex.match and regex.rewrite):
        reason = "UriRegexRewrite requires both Rewrite and Match fields to be specified"
        yield Problem(("uriRegexRewrite",), reason)
    elif regex is not None and (problem := regex_problem(regex.match)):
        yield Problem(("uriRegexRewrite", "match"), problem)


def _status(status: int) -> str | None:
    if not 200 <= status <= 600:
        return f"HTTP status {status} is not in range 200-599"
    return "the lab refuses it: Envoy answers with no status of 600" if status == 600 else None


def _attempts(retries: HTTPRetry) -> bool:
    """Returns whether a policy has attempts, or gives nothing else either."""
    others = (retries.per_try_timeout, retries.retry_on or None, retries.retry_remote_localities)
    return retries.attempts != 0 or others == (None, None, None)


def retry_on_problems(conditions: str) -> Iterator[Problem]:
    for token in conditions.split(",") if conditions else ():
        status = token.isdecimal() and int(token) in {code.value for code in HTTPStatus}
        if token not in RETRY_POLICIES and not status:
            yield Problem((), f'"{token}" is not a valid retryOn policy')


def _destination_host(host: str) -> str | None:
    return f"invalid destination host {host}" if host == "*" else host_problem(host)


def _mirror_percent(percent: float) -> str | None:
    if percent > 100:
        return f"mirror_percentage must have a max value of 100 (it has {percent:f})"
    if percent < 0:
        return f"mirror_percentage must have a min value of 0 (it has {percent:f})"
    return None


def _is_authority(name: str) -> bool:
    return name.lower() in ("host", ":authority")


def _authority(route: HTTPRoute) -> Iterator[Problem]:
    """Checks that the authority of a request is set once."""
    current = (route.rewrite.authority if route.rewrite else None) or ""
    request = route.headers.request if route.headers else HeaderOperations()
    for field, values in (("set", request.set), ("add", request.add)):
        for name, value in values.items():
            if _is_authority(name) and current:
                reason = (
                    f'authority header cannot be set multiple times: have "{current}", attempting '
                    f'to set "{value}"'
                )
                yield Problem(("headers", "request", field, name), reason)
            if _is_authority(name):
                current = value


def _headers(headers: Headers) -> Iterator[Problem]:
    for direction, operations in (("request", headers.request), ("response", headers.response)):
        for verb, values in (("set", operations.set), ("add", operations.add)):
            for name, value in values.items():
                free = direction == "request" and _is_authority(name)
                for problem in (not free and _changed_name(name), header_value_problem(value)):
                    if problem:
                        yield Problem((direction, verb, name), problem)
        for index, name in enumerate(operations.remove):
            if problem := _changed_name(name):
                yield Problem((direction, "remove", index), problem)


def _changed_name(name: str) -> str | None:
    if not name:
        return "header name cannot be empty"
    if name.lower() == "host":
        return f'invalid header "{name}": cannot set Host header'
    if name.startswith(":"):
        return f'invalid header "{name}": header cannot have ":" prefix'
    if re.search(r"[\r\n\0]", name):
        return "the lab refuses it: Envoy takes no header name of several lines"
    return None


_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_QUOTED = r'"(\\.|[^"\\)])*"'
_ARGUMENTS = rf"\( *(\[ *{_QUOTED} *(, *{_QUOTED} *)*\] *|[^ \[](\\.|[^)\\])*)\)"
_VARIABLE = re.compile(rf"%%|%[^%(]*({_ARGUMENTS} *)?%", re.DOTALL)


def header_value_problem(value: str) -> str | None:
    """Returns why istiod refuses a header value, a format string of Envoy; None if it doesn't."""
    if _CONTROL.search(value):
        return f"header value configuration {value} is invalid"
    rest = _VARIABLE.sub("", value)
    if "%" not in rest:
        return None
    what = f"Un-terminated variable expression '{value}'"
    if rest.endswith("%"):
        what = "Un-escaped %"
    reason = f"header value configuration: invalid header configuration. {what}"
    return f"{reason}; a literal % is written %%"


def _unused(spec: VirtualServiceSpec) -> Iterator[Problem]:
    for found in unused(spec):
        yield Problem(found.path, f"virtualService {found.text}", "warning")


CHECKS = (
    refused("**.exponentialDelay", "Istio hides this field and does not implement it"),
    warned(
        "**.mirrorPercent|mirror_percent",
        'using deprecated setting "mirrorPercent", use "mirrorPercentage" instead',
    ),
    # Hosts and gateways.
    Check("spec", _hosts),
    Check("spec", _delegate),
    Check("spec", _delegation),
    Check("**.gateways", _gateways),
    Check("", export_to),
    Check(
        "spec",
        lambda spec: bool(spec.http or spec.tls or spec.tcp),
        "http, tcp or tls must be provided in virtual service",
    ),
    # Routes.
    Check("spec", _claims),
    Check("spec.http[].match[]", _match),
    Check("spec.http[].match[]|redirect.port", lambda port: port_problem(port) if port else None),
    Check("spec.http[].match[].sourceLabels", tag_problems),
    Check(
        "spec.http[].match[].sourceNamespace",
        lambda name: not name or is_dns_label(name),
        "sourceNamespace match {value} is invalid",
    ),
    Check("spec.http[].redirect", _redirect),
    Check("spec.http[]", _rewritten_prefixes),
    Check(
        "spec.http[].redirect.scheme",
        lambda scheme: scheme in ("", "http", "https"),
        'invalid redirect scheme, must be "http" or "https"',
    ),
    Check("spec.http[].redirect.redirectCode", _redirect_code),
    Check("**.directResponse|abort.status|httpStatus", _status),
    Check("**.directResponse", _body_size),
    Check("spec.http[].rewrite", _rewrite),
    # Faults and retries.
    Check(
        "**.fault",
        lambda fault: fault.delay is not None or fault.abort is not None,
        "HTTP fault injection must have an abort and/or a delay",
    ),
    Check("**.fault.delay|abort.percentage.value", percent_problem),
    Check(
        "**.delay.percent",
        within(0, 100),
        "the lab refuses it: a percentage is in the range 0..100",
    ),
    Check("**.abort.http2Error", never, "HTTP/2 abort fault injection not supported yet"),
    Check(
        "**.abort",
        exactly_one,
        "the lab remarks: abort configured, but error type not set",
        "warning",
    ),
    Check(
        "**.abort.grpcStatus",
        lambda status: status in GRPC_STATUSES,
        'gRPC status "{value}" is not supported. See '
        "https://github.com/grpc/grpc/blob/master/doc/statuscodes.md for a list of supported "
        "codes, for example 'NOT_FOUND'",
    ),
    Check(
        "**.fault.delay|abort",
        lambda part: part.percentage is not None or bool(getattr(part, "percent", None)),
        "the lab remarks: without percentage the {field} is never injected",
        "warning",
    ),
    Check("**.retries.attempts", lambda count: count >= 0, "attempts cannot be negative"),
    Check(
        "**.retries",
        _attempts,
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
        "max_age duration is accurate only to seconds precision",
    ),
    Check("**.corsPolicy.allowHeaders[]|exposeHeaders[]", _header_name),
    # Destinations, mirrors, headers.
    Check("**.destination|mirror.host", _destination_host),
    Check("**.destination|mirror.subset", lambda name: subset_problem(name) if name else None),
    Check("**.destination|mirror.port.number", port_problem),
    Check("**.route[].weight", lambda weight: weight >= 0, "weight {value} < 0"),
    Check("**.mirrors[].percentage.value", _mirror_percent),
    Check("**.mirrorPercentage.value", _mirror_percent),
    Check(
        "**.mirrorPercent|mirror_percent",
        lambda percent: percent <= 100,
        "mirror_percent must have a max value of 100 (it has {value})",
    ),
    Check("spec.http[].headers", _headers),
    Check("spec.http[].route[].headers", _headers),
    Check("spec.http[]", _authority),
    Check("spec", _unused),
    *CONNECTIONS,
)

KINDS = (kind("VirtualService", VirtualService, CHECKS),)
