"""What would happen to a request, without sending it: the answers of `guestbook route`.

The configuration of the caller's proxy is generated and read as Envoy would read it; every step
names the manifest, file and line, that it comes from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal
from urllib.parse import urlsplit

from lab.manifests.resource import Path
from lab.mesh import (
    destination_rule,
    endpoints,
    explain_server,
    gateway,
    listeners,
    names,
    route_match,
    routes,
    translate,
)
from lab.mesh.destination_rule import Rule
from lab.mesh.model import Json, Pod, ProxyConfig, Snapshot
from lab.mesh.registry import Host
from lab.mesh.route_match import Request
from lab.mesh.view import View, view
from lab.mesh.virtual_service import CORS, FAULT, Origin
from lab.mesh.xds import duration

Outcome = Literal["forwarded", "answered", "refused"]


class QuestionError(ValueError):
    """The request makes no sense here; the message says why."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing the request meets."""

    what: str
    """listener, virtual host, route, fault, timeout, destination, authorization, ..."""
    says: str
    place: str = ""
    """`file:line` of the manifest that says so; empty for Istio's defaults."""

    def json(self) -> Json:
        return {
            "what": self.what,
            "says": self.says,
            **({"place": self.place} if self.place else {}),
        }


@dataclass(frozen=True, slots=True)
class Target:
    """A destination of a route: a cluster, its share, and the pods behind it."""

    cluster: str
    share: float
    """Of the requests, 0 to 1."""
    pods: tuple[str, ...]
    steps: tuple[Step, ...] = ()

    def json(self) -> Json:
        return {
            "cluster": self.cluster,
            "share": self.share,
            "endpoints": list(self.pods),
            "steps": [step.json() for step in self.steps],
        }


@dataclass(slots=True)
class Explanation:
    """Everything that is known about a request in advance."""

    steps: list[Step] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    mirrors: list[Target] = field(default_factory=list)
    outcome: Outcome = "forwarded"
    status: int | None = None
    """The status when a proxy answers by itself, else None."""
    virtual_host: str = ""
    route: int | None = None
    """The index of the route in its virtual host."""

    def add(self, what: str, says: str, place: object = "") -> None:
        self.steps.append(Step(what, says, str(place)))

    def answer(self, status: int, says: str, place: object = "") -> Explanation:
        self.outcome, self.status = "answered", status
        self.add("answer", f"{status} {says}", place)
        return self

    def refuse(self, says: str, place: object = "") -> Explanation:
        self.outcome = "refused"
        self.add("answer", says, place)
        return self

    def json(self) -> Json:
        return {
            "outcome": self.outcome,
            **({"status": self.status} if self.status is not None else {}),
            "steps": [step.json() for step in self.steps],
            "targets": [target.json() for target in self.targets],
            "mirrors": [target.json() for target in self.mirrors],
        }


def explain(
    snapshot: Snapshot,
    pod: Pod,
    method: str,
    url: str,
    headers: Mapping[str, str] | None = None,
    claims: Mapping[str, Any] | None = None,
) -> Explanation:
    """What happens to a request that a pod's application sends (for a gateway's pod: that comes
    in from outside). `url` is http://, https:// or tcp://. Raises QuestionError.
    """
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError as error:
        raise QuestionError(f"{url}: {error}") from None
    if parts.scheme not in ("http", "https", "tcp") or not parts.hostname:
        raise QuestionError(f"{url} is no URL of the form http://HOST[:PORT]/PATH")
    given = {name.lower(): value for name, value in (headers or {}).items()}
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    host = parts.hostname if port in (None, 80, 443) else f"{parts.hostname}:{port}"
    request = Request(
        method=method.upper(),
        authority=given.pop("host", host),
        path=route_match.normalized(path),
        headers=given,
        scheme="https" if parts.scheme == "https" else "http",
        claims=claims,
    )
    seen = view(snapshot, pod)
    config = translate.proxy_config(snapshot, pod)
    if pod.proxy == "gateway":
        return _at_gateway(seen, config, request, port or {"https": 443}.get(parts.scheme, 80))
    if pod.proxy == "none":
        found = Explanation()
        found.add("proxy", f"{pod.name} has none: it connects to the pods itself, in plain text")
        return found
    if parts.scheme == "tcp":
        return _tcp(seen, parts.hostname, port)
    if parts.scheme == "https":
        return _tunnelled(seen, config, parts.hostname, port or 443)
    return _at_sidecar(seen, config, request)


def _at_sidecar(seen: View, config: ProxyConfig, request: Request) -> Explanation:
    found = Explanation()
    place = f"{seen.pod.inside_address}:{names.OUTBOUND_PORT}"
    found.add("listener", f"{names.OUTBOUND_LISTENER} ({place}, the HTTP proxy of {seen.pod.name})")
    hosts = {host.name: host for host in routes.sidecar_hosts(seen)}
    return _routed(seen, config, request, names.OUTBOUND_ROUTES, hosts, found)


def _at_gateway(seen: View, config: ProxyConfig, request: Request, port: int) -> Explanation:
    found = Explanation()
    target = gateway.target_port(seen.snapshot, seen.pod, port)
    bound = [item for item in gateway.servers(seen.snapshot, seen.pod) if item.target == target]
    listener = route_match.by_name(config.listeners, f"0.0.0.0_{target}")
    if not bound or listener is None:
        return found.refuse(f"connection refused: no Gateway opens port {port} on {seen.pod.name}")
    found.add("listener", f"{listener['name']} (port {port})", gateway.origin(bound[0]))
    if bound[0].secure:
        chain = route_match.server_name_chain(listener, request.authority.split(":")[0])
        if chain is None:
            return found.refuse("connection closed: no server has this host name")
    else:
        chain = listener["filter_chains"][0]
    name = chain["filters"][-1]["typed_config"]["rds"]["route_config_name"]
    own = [item for item in bound if item.route_name == name]
    hosts = {host.name: host for host in gateway.virtual_hosts(seen, own)}
    denial = explain_server.gateway_policies(seen.snapshot, seen.pod, target or port, request)
    for step in denial.steps:
        found.add(*step)
    if not denial.allowed:
        return found.answer(403, "RBAC: access denied", denial.place)
    return _routed(seen, config, request, name, hosts, found)


def _routed(
    seen: View,
    config: ProxyConfig,
    request: Request,
    name: str,
    hosts: Mapping[str, routes.VirtualHost],
    found: Explanation,
) -> Explanation:
    configuration = route_match.by_name(config.routes, name)
    host = route_match.virtual_host(configuration, request.authority) if configuration else None
    if host is None:
        return found.answer(404, "no virtual host fits")
    found.virtual_host = host["name"]
    origins = _origins(hosts.get(host["name"]))
    found.add("virtual host", host["name"], _host_place(seen, host["name"]))
    if host.get("require_tls") == "ALL" and request.scheme == "http":
        return found.answer(301, f"to https://{request.authority}{request.path}")
    index = route_match.route(host, request)
    if index is None:
        return found.answer(404, "no route fits the request (flag NR)")
    found.route = index
    route = host["routes"][index]
    origin = origins.get(repr(route["match"]), Origin(routes.NOWHERE))
    found.add("route", _route_text(route, origin), _place(origin))
    return _acted(seen, config, request, route, origin, found)


def _origins(host: routes.VirtualHost | None) -> dict[str, Origin]:
    """Where the routes of a virtual host come from, by match; the first of equals is the one."""
    result: dict[str, Origin] = {}
    for item in host.routes if host else ():
        result.setdefault(repr(item.config["match"]), item.origin)
    return result


def _place(origin: Origin, *below: str | int) -> str:
    return "" if origin.source is routes.NOWHERE else origin.source.at(*origin.path, *below)


def _written(origin: Origin, *below: str | int) -> str:
    """The place of a field that the manifest itself has; empty for a default."""
    known = (*origin.path, *below) in origin.source.lines
    return origin.source.at(*origin.path, *below) if known else ""


def _host_place(seen: View, name: str) -> str:
    host = seen.hosts.get(name.rpartition(":")[0])
    return host.source.at() if host else ""


def _route_text(route: Json, origin: Origin) -> str:
    resource = origin.resource
    name = f" “{route['name']}”" if route.get("name") else ""
    if resource is None or resource.kind != "VirtualService":
        return f"{route.get('name') or 'unnamed'}, not from a VirtualService"
    return f"VirtualService {resource.namespace}/{resource.name}, {_dotted(origin.path[1:])}{name}"


def _dotted(path: Path) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(
        "."
    )


def _acted(
    seen: View,
    config: ProxyConfig,
    request: Request,
    route: Json,
    origin: Origin,
    found: Explanation,
) -> Explanation:
    rule = Origin(origin.source, origin.path[:3], origin.resource)  # spec.http[i]
    filters = route.get("typed_per_filter_config", {})
    if CORS in filters:
        found.add("CORS", "answers preflights, adds headers", _place(rule, "corsPolicy"))
    if (status := _fault(filters.get(FAULT), rule, found)) is not None:
        return found.answer(status, "fault filter abort", _place(rule, "fault", "abort"))
    if (redirect := route.get("redirect")) is not None:
        return found.answer(
            _redirect_status(redirect), _redirect(redirect), _place(rule, "redirect")
        )
    if (response := route.get("direct_response")) is not None:
        return found.answer(
            response["status"],
            "from the proxy itself"
            if origin.resource and origin.resource.kind == "VirtualService"
            else "unknown host and REGISTRY_ONLY (block_all)",
            _place(rule, "directResponse"),
        )
    for what, says, below in _modifiers(route):
        found.add(what, says, _written(rule, *below))
    action = route.get("route", {})
    for cluster, share in _shares(action):
        found.targets.append(_target(seen, config, request, cluster, share))
    _settle(found)
    for mirror in action.get("request_mirror_policies", ()):
        fraction = mirror["runtime_fraction"]["default_value"]
        share = fraction["numerator"] / _DENOMINATORS[fraction["denominator"]]
        found.mirrors.append(_target(seen, config, request, mirror["cluster"], share))
    return found


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
        found.add("delay", says, _place(rule, "fault", "delay"))
    if (abort := fault.get("abort")) is not None:
        share = _percent(abort.get("percentage"))
        status = abort.get("http_status")
        shown = status if status is not None else f"gRPC status {abort.get('grpc_status')}"
        says = f"{shown} for {share:.4%}".replace(".0000%", "%")
        found.add("abort", says, _place(rule, "fault", "abort"))
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


def _shares(action: Json) -> list[tuple[str, float]]:
    if "cluster" in action:
        return [(action["cluster"], 1.0)]
    weighted = action.get("weighted_clusters", {}).get("clusters", ())
    total = sum(item["weight"] for item in weighted) or 1
    return [(item["name"], item["weight"] / total) for item in weighted]


def _target(
    seen: View, config: ProxyConfig, request: Request, cluster: str, share: float
) -> Target:
    if cluster == names.PASSTHROUGH:
        step = Step("endpoints", "whatever address the host name resolves to, in plain text")
        return Target(cluster, share, (), (step,))
    if cluster == names.BLACK_HOLE:
        return Target(cluster, share, (), (Step("endpoints", "none: the connection is closed"),))
    if route_match.by_name(config.clusters, cluster) is None:
        step = Step("answer", "503, empty: there is no such host, port or subset (flag NC)")
        return Target(cluster, share, (), (step,))
    _, number, subset, name = cluster.split("|") if cluster.count("|") == 3 else ("", "0", "", "")
    host = seen.hosts.get(name)
    port = host.port(int(number)) if host else None
    if host is None or port is None:
        return Target(cluster, share, ())
    steps = list(_policies(seen, host, int(number), subset))
    found = endpoints.members(seen, host, port, subset)
    if host.resolution in ("NONE", "DYNAMIC_DNS"):
        steps.append(Step("endpoints", "whatever address the host name resolves to"))
    elif host.resolution in ("DNS", "DNS_ROUND_ROBIN"):
        steps.append(Step("endpoints", "by DNS", host.source.at()))
    elif not found:
        steps.append(Step("answer", "503 no healthy upstream (flag UH): no ready pod fits"))
    steps += [Step(*step) for step in explain_server.steps(seen, host, port, subset, request)]
    shown = tuple(
        endpoint.pod.name if endpoint.pod else f"{endpoint.address}:{endpoint.port}"
        for endpoint in found
    )
    return Target(cluster, share, shown, tuple(steps))


def _policies(seen: View, host: Host, port: int, subset: str) -> Iterator[Step]:
    rule = seen.rules.get(host.name)
    if subset:
        chosen = (
            next((item for item in rule.subsets if item[0].name == subset), None) if rule else None
        )
        if chosen is not None:
            entry, resource, index = chosen
            labels = ", ".join(f"{key}={value}" for key, value in entry.labels.items())
            yield Step(
                "subset",
                f"{subset} ({labels or 'all'})",
                resource.source.at("spec", "subsets", index),
            )
    if rule is None:
        return
    policy = seen.policy(host.name, port, subset or None)
    for what, key, value in (
        ("load balancing", "loadBalancer", policy.load_balancer),
        ("connection pool", "connectionPool", policy.connection_pool),
        ("outlier detection", "outlierDetection", policy.outlier_detection),
        ("TLS", "tls", policy.tls),
    ):
        if value is not None:
            given = value.model_dump(by_alias=True, exclude_unset=True)
            yield Step(what, _flat(given), policy_place(rule, port, subset, key))


def _flat(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(
            f"{key} {{{_flat(item)}}}" if isinstance(item, dict) else f"{key} {_flat(item)}"
            for key, item in value.items()
        )
    return duration(value) if isinstance(value, timedelta) else str(value)


def policy_place(rule: Rule, port: int, subset: str, key: str) -> str:
    """Where the effective value of one traffic policy field is written."""
    chosen = next((item for item in rule.subsets if item[0].name == subset), None)
    candidates: list[tuple[Any, Any, Path]] = []
    if chosen is not None and chosen[0].traffic_policy is not None:
        where: Path = ("spec", "subsets", chosen[2], "trafficPolicy")
        candidates.append((chosen[1], chosen[0].traffic_policy, where))
    for resource in rule.resources:
        if resource.spec.traffic_policy is not None:
            candidates.append((resource, resource.spec.traffic_policy, ("spec", "trafficPolicy")))
            break
    for resource, policy, where in candidates:
        for index, settings in enumerate(policy.port_level_settings):
            if settings.port and settings.port.number == port:
                return str(resource.source.at(*where, "portLevelSettings", index, key))
        if destination_rule.written(policy, key):
            return str(resource.source.at(*where, key))
    return ""


def _settle(found: Explanation) -> None:
    """When no destination would take the request, the answer is a proxy's."""
    answers = [
        step.says for target in found.targets for step in target.steps if step.what == "answer"
    ]
    if answers and all(any(s.what == "answer" for s in t.steps) for t in found.targets):
        found.outcome = "answered"
        found.status = int(answers[0][:3]) if answers[0][:3].isdecimal() else None


def _tunnelled(seen: View, config: ProxyConfig, host: str, port: int) -> Explanation:
    """HTTPS, which passes through the sidecar unread: only its server name is known."""
    found = Explanation()
    place = f"{seen.pod.inside_address}:{names.OUTBOUND_PORT}"
    found.add("listener", f"{names.OUTBOUND_LISTENER} ({place}, by CONNECT)")
    request = Request("CONNECT", f"{host}:{port}", "", connect=True)
    configuration = route_match.by_name(config.routes, names.OUTBOUND_ROUTES) or {}
    virtual_host = route_match.virtual_host(configuration, request.authority)
    index = route_match.route(virtual_host, request) if virtual_host else None
    if virtual_host is None or index is None:
        return found.answer(404, "the mesh takes this port for plain HTTP")
    name = virtual_host["routes"][index]["route"]["cluster"]
    listener = route_match.by_name(config.listeners, name) or {}
    chain = route_match.server_name_chain(listener, host) or {}
    found.add("server name", f"{host} at {name}")
    cluster = chain["filters"][-1]["typed_config"]["cluster"]
    if cluster == names.BLACK_HOLE:
        origin = seen.sidecar.source.at("spec", "outboundTrafficPolicy") if seen.sidecar else ""
        return found.refuse("connection reset: unknown host and REGISTRY_ONLY", origin)
    found.targets.append(_target(seen, config, request, cluster, 1.0))
    _settle(found)
    return found


def _tcp(seen: View, host: str, port: int | None) -> Explanation:
    found = Explanation()
    if port is None:
        raise QuestionError("a TCP destination needs a port: tcp://HOST:PORT")
    owner = listeners.outbound_tcp_ports(seen).get(port)
    if owner is None or host not in routes.domains(seen, owner[0]):
        raise QuestionError(f"no TCP service {host} has port {port} for {seen.pod.name}")
    found.add("listener", f"{seen.pod.inside_address}:{port}", owner[0].source.at())
    config = translate.proxy_config(seen.snapshot, seen.pod)
    cluster = names.cluster(port, owner[0].name)
    request = Request("", host, "")
    found.targets.append(_target(seen, config, request, cluster, 1.0))
    _settle(found)
    return found
