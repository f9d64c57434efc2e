"""The part of an explanation that a route decides: faults, redirects, headers, retries, shares."""

from __future__ import annotations

from collections.abc import Iterator

from lab.envoy import routes
from lab.explain.steps import Explanation
from lab.kinds.virtual_service.becomes import CORS, FAULT, Origin
from lab.kinds.visible import View
from lab.model import Json


def place_of(origin: Origin, *below: str | int) -> str:
    """`file:line` of a route or of a field below it; empty for what Istio does by itself."""
    return "" if origin.source is routes.NOWHERE else origin.source.at(*origin.path, *below)


def written(origin: Origin, *below: str | int) -> str:
    """The place of a field that the manifest itself has; empty for a default."""
    known = (*origin.path, *below) in origin.source.lines
    return origin.source.at(*origin.path, *below) if known else ""


def outbound_policy_place(seen: View) -> str:
    """Where the outboundTrafficPolicy that holds for a proxy is written."""
    own = seen.sidecar
    if own is not None and own.spec.outbound_traffic_policy is not None:
        return own.source.at("spec", "outboundTrafficPolicy")
    for operator in reversed(seen.snapshot.of("IstioOperator")):
        mesh = operator.spec.mesh_config
        if mesh is not None and "outbound_traffic_policy" in mesh.model_fields_set:
            return operator.source.at("spec", "meshConfig", "outboundTrafficPolicy")
    return ""


def answered(seen: View, route: Json, origin: Origin, found: Explanation) -> bool:
    """Adds what a route does before it forwards; whether the proxy answers by itself."""
    rule = Origin(origin.source, origin.path[:3], origin.resource)  # spec.http[i]
    filters = route.get("typed_per_filter_config", {})
    if CORS in filters:
        found.add("CORS", "answers preflights, adds headers", place_of(rule, "corsPolicy"))
    if (status := _fault(filters.get(FAULT), rule, found)) is not None:
        found.answer(status, "fault filter abort", place_of(rule, "fault", "abort"))
    elif (redirect := route.get("redirect")) is not None:
        found.answer(_redirect_status(redirect), _redirect(redirect), place_of(rule, "redirect"))
    elif (response := route.get("direct_response")) is not None:
        if origin.resource is not None and origin.resource.kind == "VirtualService":
            says, place = "from the proxy itself", place_of(rule, "directResponse")
        else:
            says, place = "unknown host and REGISTRY_ONLY (block_all)", outbound_policy_place(seen)
        found.answer(response["status"], says, place)
    return found.outcome != "forwarded"


def forwarding(route: Json, origin: Origin, found: Explanation) -> None:
    """Adds how a route forwards."""
    rule = Origin(origin.source, origin.path[:3], origin.resource)
    for what, says, below in _modifiers(route):
        found.add(what, says, written(rule, *below))


def mirrors(action: Json) -> Iterator[tuple[str, float]]:
    """The clusters that get a copy, each with its share of the requests."""
    for mirror in action.get("request_mirror_policies", ()):
        yield mirror["cluster"], _percent(mirror["runtime_fraction"]["default_value"])


_DENOMINATORS = {"HUNDRED": 100, "TEN_THOUSAND": 10_000, "MILLION": 1_000_000}


def _percent(fraction: Json | None) -> float:
    if not fraction:
        return 0.0
    share: float = fraction["numerator"] / _DENOMINATORS[fraction["denominator"]]
    return share


def _fault(fault: Json | None, rule: Origin, found: Explanation) -> int | None:
    """Adds what a fault does; the status when it aborts every request."""
    if fault is None:
        return None
    if (delay := fault.get("delay")) is not None:
        share = _percent(delay.get("percentage"))
        says = f"{delay['fixed_delay']} for {share:.4%}".replace(".0000%", "%")
        found.add("delay", says, place_of(rule, "fault", "delay"))
    if (abort := fault.get("abort")) is not None:
        share = _percent(abort.get("percentage"))
        status = abort.get("http_status")
        shown = status if status is not None else f"gRPC status {abort.get('grpc_status')}"
        says = f"{shown} for {share:.4%}".replace(".0000%", "%")
        found.add("abort", says, place_of(rule, "fault", "abort"))
        if share >= 1 and status is not None:
            return int(status)
    return None


def _modifiers(route: Json) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    action = route.get("route", {})
    for key, says in (
        ("prefix_rewrite", "the path's matched part to {}"),
        ("host_rewrite_literal", "the host to {}"),
    ):
        if key in action:
            yield "rewrite", says.format(action[key]), ("rewrite",)
    if "regex_rewrite" in action:
        regex = action["regex_rewrite"]
        yield "rewrite", f"{regex['pattern']['regex']} to {regex['substitution']}", ("rewrite",)
    for direction in ("request", "response"):
        added = [item["header"]["key"] for item in route.get(f"{direction}_headers_to_add", ())]
        removed = route.get(f"{direction}_headers_to_remove", ())
        if added or removed:
            parts = [f"sets {', '.join(added)}"] if added else []
            parts += [f"removes {', '.join(removed)}"] if removed else []
            yield f"{direction} headers", "; ".join(parts), ("headers",)
    timeout = action.get("timeout", "15s")
    yield (
        "timeout",
        "none" if timeout == "0s" else f"{timeout} for all tries together",
        ("timeout",),
    )
    if (retry := action.get("retry_policy")) is None:
        yield "retries", "none", ("retries",)
    else:
        says = f"{retry['num_retries']} more, on {retry['retry_on']}"
        if codes := retry.get("retriable_status_codes"):
            says += f" ({', '.join(map(str, codes))})"
        if "per_try_timeout" in retry:
            says += f", {retry['per_try_timeout']} a try"
        yield "retries", says, ("retries",)
    for policy in action.get("hash_policy", ()):
        yield "hash", str(policy), ()


def _redirect_status(redirect: Json) -> int:
    return {
        "FOUND": 302,
        "SEE_OTHER": 303,
        "TEMPORARY_REDIRECT": 307,
        "PERMANENT_REDIRECT": 308,
    }.get(redirect.get("response_code", ""), 301)


def _redirect(redirect: Json) -> str:
    parts = {
        key.removesuffix("_redirect"): value
        for key, value in redirect.items()
        if key.endswith("_redirect") and value
    }
    return "redirect: " + ", ".join(f"{key} {value}" for key, value in parts.items())


def shares(action: Json) -> list[tuple[str, float]]:
    """The clusters of a route, each with its share of the requests."""
    if "cluster" in action:
        return [(action["cluster"], 1.0)]
    weighted = action.get("weighted_clusters", {}).get("clusters", ())
    total = sum(item["weight"] for item in weighted) or 1
    return [(item["name"], item["weight"] / total) for item in weighted]
