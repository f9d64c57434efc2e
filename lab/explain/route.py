"""Steps of one route: faults, redirects, headers, retries, rate limits, shares."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import re2

from lab.envoy import routes
from lab.explain.interpret import matchers
from lab.explain.interpret.matchers import Request
from lab.explain.steps import Explanation, Step
from lab.kinds.virtual_service.becomes import CORS, FAULT
from lab.model import Json
from lab.resources.resource import Origin

RATE_LIMIT = "envoy.filters.http.ratelimit"


def add(route: Json, origin: Origin, request: Request, found: Explanation) -> bool:
    """Adds the steps of a route; returns whether it forwards the request."""
    rule = replace(origin, path=origin.path[:3])  # spec.http[i]
    filters = route.get("typed_per_filter_config", {})
    cors = filters.get(CORS) if "route" in route else None  # Envoy looks at no other action's.
    if cors is not None:
        found.add("CORS", "answers preflights, adds headers", rule.at("corsPolicy"))
    if (status := _fault(filters.get(FAULT, {}), rule, found)) is not None:
        found.answer("fault filter abort", rule.at("fault", "abort"), status=status)
    elif (answer := _preflight(cors, request)) is not None:
        found.answer(answer, rule.at("corsPolicy"), status=200)
    elif (redirect := route.get("redirect")) is not None:
        status = _REDIRECTS.get(redirect.get("response_code", ""), 301)
        found.answer(_redirect(redirect), rule.at("redirect"), status=status)
    elif (response := route.get("direct_response")) is not None:
        if found.virtual_host in routes.CATCH_ALLS:
            says, place = "unknown host and REGISTRY_ONLY (block_all)", origin.at()
        else:
            says, place = "from the proxy itself", rule.at("directResponse")
        found.answer(says, place, status=response["status"])
    else:
        for what, says, key in _modifiers(route):
            explicit = rule.source is not None and (*rule.path, key) in rule.source.lines
            found.add(what, says, rule.at(key) if explicit else "")
        return True
    return False


def _preflight(policy: Json | None, request: Request) -> str | None:
    """Returns the answer of the CORS filter to a preflight; None when the request goes on."""
    if policy is None or not request.preflight:
        return None
    origin = request.header("origin") or ""
    if any(matchers.string(one, origin) for one in policy.get("allow_origin_string_match", ())):
        return f"to a preflight, with access-control-allow-origin: {origin}"
    if policy.get("forward_not_matching_preflights", True):
        return None
    return "to a preflight, without access-control-allow-origin"


def forwarded(route: Json, request: Request) -> list[tuple[str, float, Request, tuple[Step, ...]]]:
    """Returns each cluster of a route with its share, and the request as it is sent there.

    A cluster of a split changes headers before the route does; the steps say so.
    """
    action = route.get("route", {})
    parts = action.get("weighted_clusters", {}).get("clusters") or [{}]
    shares, _ = clusters(action)
    return [
        (name, share, rewritten(route, _with_headers(part, request)), tuple(_headers(part)))
        for (name, share), part in zip(shares, parts, strict=True)
    ]


def _with_headers(part: Json, request: Request) -> Request:
    """Returns a request with the headers that a route, or a cluster of a split, sets."""
    headers = dict(request.headers)
    for name in part.get("request_headers_to_remove", ()):
        headers.pop(name.lower(), None)
    for item in part.get("request_headers_to_add", ()):
        name, value = item["header"]["key"].lower(), item["header"]["value"]
        overwrites = item.get("append_action", "").startswith("OVERWRITE")
        headers[name] = (value,) if overwrites else (*headers.get(name, ()), value)
    authority = part.get("host_rewrite_literal", request.authority)
    return replace(request, headers=headers, authority=authority)


def rewritten(route: Json, request: Request) -> Request:
    """Returns a request as a route sends it: with its own path, host and headers."""
    action, match = route.get("route", {}), route["match"]
    bare, rest = request.bare_path, request.path[len(request.bare_path) :]
    if "prefix_rewrite" in action:
        matched = len(match["prefix"]) if "prefix" in match else len(bare)
        bare = action["prefix_rewrite"] + bare[matched:]
    elif "regex_rewrite" in action:
        regex = action["regex_rewrite"]
        bare = re2.sub(regex["pattern"]["regex"], regex["substitution"], bare)
    authority = action.get("host_rewrite_literal", request.authority)
    return replace(_with_headers(route, request), path=bare + rest, authority=authority)


_REDIRECTS = {"FOUND": 302, "SEE_OTHER": 303, "TEMPORARY_REDIRECT": 307, "PERMANENT_REDIRECT": 308}


_Share = tuple[str, float]


def clusters(action: Json) -> tuple[list[_Share], list[_Share]]:
    """Returns the clusters of a route and those of its mirrors, each with its share of requests."""
    weighted = action.get("weighted_clusters", {}).get("clusters", ())
    total = sum(item["weight"] for item in weighted) or 1
    shares = [(item["name"], item["weight"] / total) for item in weighted]
    if "cluster" in action:
        shares = [(action["cluster"], 1.0)]
    mirrors = [
        (mirror["cluster"], _percent(mirror["runtime_fraction"]["default_value"]))
        for mirror in action.get("request_mirror_policies", ())
    ]
    return shares, mirrors


_DENOMINATORS = {"HUNDRED": 100, "TEN_THOUSAND": 10_000, "MILLION": 1_000_000}


def _percent(fraction: Json) -> float:
    share: float = fraction.get("numerator", 0)
    return share / _DENOMINATORS[fraction.get("denominator", "HUNDRED")]


def _fault(fault: Json, rule: Origin, found: Explanation) -> int | None:
    """Adds the steps of a fault; returns the status when it aborts every request."""
    delay, abort = fault.get("delay"), fault.get("abort")
    if delay is not None:
        says = f"{delay['fixed_delay']} for {_shown(delay)}"
        found.add("delay", says, rule.at("fault", "delay"))
    if abort is None:
        return None
    status = abort.get("http_status")
    shown = status if status is not None else f"gRPC status {abort.get('grpc_status')}"
    found.add("abort", f"{shown} for {_shown(abort)}", rule.at("fault", "abort"))
    return status if _percent(abort.get("percentage", {})) >= 1 else None


def _shown(fault: Json) -> str:
    return f"{_percent(fault.get('percentage', {})):.4%}".replace(".0000%", "%")


def _modifiers(route: Json) -> Iterator[tuple[str, str, str]]:
    """The kind and the text of each step of a route that forwards, with its field."""
    action = route.get("route", {})
    for key, says in (
        ("prefix_rewrite", "the path's matched part to {}"),
        ("host_rewrite_literal", "the host to {}"),
    ):
        if key in action:
            yield "rewrite", says.format(action[key]), "rewrite"
    if "regex_rewrite" in action:
        regex = action["regex_rewrite"]
        yield "rewrite", f"{regex['pattern']['regex']} to {regex['substitution']}", "rewrite"
    for step in _headers(route):
        yield step.what, step.says, "headers"
    timeout = action.get("timeout", "15s")
    says = "none" if timeout == "0s" else f"{timeout} for all tries together"
    yield "timeout", says, "timeout"
    if (retry := action.get("retry_policy")) is None:
        yield "retries", "none", "retries"
    else:
        says = f"{retry['num_retries']} more, on {retry['retry_on']}"
        if codes := retry.get("retriable_status_codes"):
            says += f" ({', '.join(map(str, codes))})"
        if "per_try_timeout" in retry:
            says += f", {retry['per_try_timeout']} a try"
        yield "retries", says, "retries"
    for policy in action.get("hash_policy", ()):
        yield "hash", str(policy), ""


def _headers(part: Json) -> Iterator[Step]:
    """The steps of the headers that a route, or a cluster of a split, changes."""
    for direction in ("request", "response"):
        added = [item["header"]["key"] for item in part.get(f"{direction}_headers_to_add", ())]
        removed = part.get(f"{direction}_headers_to_remove", ())
        if added or removed:
            parts = [f"sets {', '.join(added)}"] if added else []
            parts += [f"removes {', '.join(removed)}"] if removed else []
            yield Step(f"{direction} headers", "; ".join(parts))


def _redirect(redirect: Json) -> str:
    parts = {
        key.removesuffix("_redirect").replace("_", " "): value
        for key, value in redirect.items()
        if key.endswith(("_redirect", "_rewrite")) and value
    }
    return "redirect: " + ", ".join(f"{key} {value}" for key, value in parts.items())


def rate_limits(
    filters: Iterable[Json], host: Json, route: Json, request: Request
) -> Iterator[Step]:
    """Yields, for each rate limit filter, the descriptors it sends for a request."""
    own = route.get("route", {}).get("rate_limits", [])
    shared = host.get("rate_limits", [])
    included = route.get("route", {}).get("include_vh_rate_limits")
    limits = [*own, *(shared if included or not own else [])]
    for item in filters:
        if item["name"] != RATE_LIMIT:
            continue
        config = item["typed_config"]
        domain, stage = config["domain"], config.get("stage", 0)
        asked = [
            descriptor
            for limit in limits
            if limit.get("stage", 0) == stage
            and (descriptor := _descriptor(limit.get("actions", ()), request)) is not None
        ]
        says = " and ".join(", ".join(entries) for entries in asked)
        yield Step(
            "rate limit",
            f"domain {domain} is asked about {says}; 429 when it is used up"
            if asked
            else f"domain {domain} is not asked: the request has no descriptor",
        )


def _descriptor(actions: Iterable[Mapping[str, Json]], request: Request) -> list[str] | None:
    """The entries of a descriptor; None when the request lacks a header that one needs."""
    entries: list[str] = []
    for action in actions:
        if (header := action.get("request_headers")) is not None:
            value = request.header(header["header_name"])
            if value is not None:
                entries.append(f"{header['descriptor_key']}={value}")
            elif not header.get("skip_if_absent"):
                return None
        elif (generic := action.get("generic_key")) is not None:
            key = generic.get("descriptor_key", "generic_key")
            entries.append(f"{key}={generic['descriptor_value']}")
        else:
            entries += [f"{kind} (known only to Envoy)" for kind in action]
    return entries
