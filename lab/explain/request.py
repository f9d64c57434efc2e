"""What would happen to a request, without sending it: the answers of `guestbook route`.

The configuration of the caller's proxy is generated and read as Envoy would read it; every step
names the manifest, file and line, that it comes from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from lab import names
from lab.envoy import gateway, listeners, routes, translate
from lab.explain import filters as explain_filter
from lab.explain import interpret, server
from lab.explain import route as explain_route
from lab.explain.interpret import Request
from lab.explain.steps import Explanation, Step, Target
from lab.explain.target import ANY_ADDRESS, target
from lab.kinds import services
from lab.kinds.envoy_filter.matching import Context
from lab.kinds.gateway import becomes as gateways
from lab.kinds.services import Endpoint
from lab.kinds.virtual_service.becomes import Origin
from lab.kinds.visible import View, view
from lab.model import Json, Pod, ProxyConfig, Snapshot
from lab.resources.resource import Path


class QuestionError(ValueError):
    """The request makes no sense here; the message says why."""


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
        path=interpret.normalized(path),
        headers=given,
        scheme="https" if parts.scheme == "https" else "http",
        claims=claims,
    )
    seen = view(snapshot, pod)
    config = translate.proxy_config(snapshot, pod)
    if pod.proxy == "gateway":
        return _at_gateway(seen, config, request, port or {"https": 443}.get(parts.scheme, 80))
    if pod.proxy == "none":
        known_port = port or {"http": 80, "https": 443}.get(parts.scheme)
        return _without_proxy(seen, request, parts.scheme, parts.hostname, known_port)
    if parts.scheme == "tcp":
        return _tcp(seen, config, parts.hostname, port)
    if parts.scheme == "https":
        return _tunnelled(seen, config, parts.hostname, port or 443)
    return _at_sidecar(seen, config, request)


def _filters(listener: Json | None) -> list[Json]:
    """The HTTP filters of a listener's first filter chain."""
    chains = (listener or {}).get("filter_chains") or [{"filters": []}]
    return _chain_filters(chains[0])


def _chain_filters(chain: Json) -> list[Json]:
    last: Json = chain["filters"][-1]["typed_config"] if chain["filters"] else {}
    found: list[Json] = last.get("http_filters", [])
    return found


def _at_sidecar(seen: View, config: ProxyConfig, request: Request) -> Explanation:
    found = Explanation()
    place = f"{seen.pod.inside_address}:{names.OUTBOUND_PORT}"
    found.add("listener", f"{names.OUTBOUND_LISTENER} ({place}, the HTTP proxy of {seen.pod.name})")
    found.extend(explain_filter.of_listeners(seen, "SIDECAR_OUTBOUND"))
    hosts = {host.name: host for host in routes.sidecar_hosts(seen)}
    filters = _filters(interpret.by_name(config.listeners, names.OUTBOUND_LISTENER))
    return _routed(seen, config, request, request, names.OUTBOUND_ROUTES, hosts, filters, found)


def _published(pod: Pod, port: int) -> int | None:
    """The container port behind a port at which the lab publishes a gateway on its machine."""
    for container, places in pod.published.items():
        if port in (number for _, number in places):
            return container
    return None


def _at_gateway(seen: View, config: ProxyConfig, request: Request, port: int) -> Explanation:
    found = Explanation()
    target_port = _published(seen.pod, port) or gateways.target_port(seen.snapshot, seen.pod, port)
    servers = gateways.servers(seen.snapshot, seen.pod)
    bound = [item for item in servers if item.target == target_port]
    listener = interpret.by_name(config.listeners, f"0.0.0.0_{target_port}")
    if not bound or listener is None:
        return found.refuse(f"connection refused: no Gateway opens port {port} on {seen.pod.name}")
    found.add("listener", f"{listener['name']} (port {port})", bound[0].origin)
    if bound[0].secure:
        chain = interpret.server_name_chain(listener, request.authority.split(":")[0])
        if chain is None:
            return found.refuse("connection closed: no server has this host name")
    else:
        chain = listener["filter_chains"][0]
    name = chain["filters"][-1]["typed_config"]["rds"]["route_config_name"]
    own = [item for item in bound if item.route_name == name]
    hosts = {host.name: host for host in gateway.virtual_hosts(seen, own)}
    verdict = server.at_gateway(seen.snapshot, seen.pod, target_port or port, request)
    found.extend(verdict.steps)
    if verdict.status != 200:
        return found.answer(verdict.status, verdict.answer, verdict.place)
    found.extend(explain_filter.of_listeners(seen, "GATEWAY"))
    filters = _chain_filters(chain)
    return _routed(seen, config, verdict.request, verdict.forwarded, name, hosts, filters, found)


def _routed(
    seen: View,
    config: ProxyConfig,
    request: Request,
    forwarded: Request,
    name: str,
    hosts: Mapping[str, routes.VirtualHost],
    filters: Iterable[Json],
    found: Explanation,
) -> Explanation:
    """What the routes of a proxy do with a request, which goes on as `forwarded`."""
    configuration = interpret.by_name(config.routes, name)
    host = interpret.virtual_host(configuration, request.authority) if configuration else None
    if host is None:
        return found.answer(404, "no virtual host fits")
    found.virtual_host = host["name"]
    origins = _origins(hosts.get(host["name"]))
    context: Context = "GATEWAY" if seen.pod.proxy == "gateway" else "SIDECAR_OUTBOUND"
    found.add("virtual host", host["name"], _host_place(seen, host["name"]))
    found.extend(explain_filter.of_routes(seen, context, host))
    if host.get("require_tls") == "ALL" and request.scheme == "http":
        return found.answer(301, f"to https://{request.authority}{request.path}")
    index = interpret.route(host, request)
    if index is None:
        return found.answer(404, "no route fits the request (flag NR)")
    found.route = index
    route = host["routes"][index]
    origin = origins.get(repr(route["match"]), Origin(routes.NOWHERE))
    place = (
        explain_route.outbound_policy_place(seen)
        if host["name"] in routes.CATCH_ALLS
        else explain_route.place_of(origin)
    )
    found.add("route", _route_text(route, origin), place)
    found.extend(explain_filter.rate_limits(filters, host, route, request))
    if explain_route.answered(seen, route, origin, found):
        return found
    explain_route.forwarding(route, origin, found)
    action = route.get("route", {})
    for cluster, share in explain_route.shares(action):
        found.targets.append(target(seen, config, forwarded, cluster, share))
    for cluster, share in explain_route.mirrors(action):
        found.mirrors.append(target(seen, config, forwarded, cluster, share))
    return found.settle()


def _origins(host: routes.VirtualHost | None) -> dict[str, Origin]:
    """Where the routes of a virtual host come from, by match; the first of equals is the one."""
    result: dict[str, Origin] = {}
    for item in host.routes if host else ():
        result.setdefault(repr(item.config["match"]), item.origin)
    return result


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


def _tunnelled(seen: View, config: ProxyConfig, host: str, port: int) -> Explanation:
    """HTTPS, which passes through the sidecar unread: only its server name is known."""
    found = Explanation()
    place = f"{seen.pod.inside_address}:{names.OUTBOUND_PORT}"
    found.add("listener", f"{names.OUTBOUND_LISTENER} ({place}, by CONNECT)")
    request = Request("CONNECT", f"{host}:{port}", "", connect=True)
    configuration = interpret.by_name(config.routes, names.OUTBOUND_ROUTES) or {}
    virtual_host = interpret.virtual_host(configuration, request.authority)
    index = interpret.route(virtual_host, request) if virtual_host else None
    if virtual_host is None or index is None:
        return found.answer(404, "the mesh takes this port for plain HTTP")
    name = virtual_host["routes"][index]["route"]["cluster"]
    listener = interpret.by_name(config.listeners, name) or {}
    chain = interpret.server_name_chain(listener, host) or {}
    found.add("server name", f"{host} at {name}")
    cluster = chain["filters"][-1]["typed_config"]["cluster"]
    if cluster == names.BLACK_HOLE:
        place = explain_route.outbound_policy_place(seen)
        return found.refuse("connection reset: unknown host and REGISTRY_ONLY", place)
    found.targets.append(target(seen, config, request, cluster, 1.0))
    return found.settle()


def _tcp(seen: View, config: ProxyConfig, host: str, port: int | None) -> Explanation:
    found = Explanation()
    if port is None:
        raise QuestionError("a TCP destination needs a port: tcp://HOST:PORT")
    owner = listeners.outbound_tcp_ports(seen).get(port)
    if owner is None or host not in routes.domains(seen, owner[0]):
        raise QuestionError(f"no TCP service {host} has port {port} for {seen.pod.name}")
    found.add("listener", f"{seen.pod.inside_address}:{port}", owner[0].source.at())
    cluster = names.cluster(port, owner[0].name)
    found.targets.append(target(seen, config, Request("", host, ""), cluster, 1.0))
    return found.settle()


def _without_proxy(
    seen: View, request: Request, scheme: str, name: str, port: int | None
) -> Explanation:
    """A pod outside the mesh: it connects to the pods by itself, and they decide."""
    found = Explanation()
    found.add("proxy", f"{seen.pod.name} has none: it connects to the pods by itself")
    if port is None:
        raise QuestionError("a TCP destination needs a port: tcp://HOST:PORT")
    ends = _addressed(seen, name, port)
    if ends is None:
        found.targets.append(Target(f"{name}:{port}", 1.0, (), (Step("endpoints", ANY_ADDRESS),)))
        return found
    if not ends:
        return found.refuse(f"connection refused: nothing serves port {port} of {name}")
    spoken: server.Transport = "TLS" if scheme == "https" else "plain text"
    said: dict[Step, None] = {}
    for end in ends:
        for item in server.at_pod(seen.snapshot, seen.pod, end, request, spoken):
            said[item] = None
    pods = tuple(end.pod.name for end in ends if end.pod is not None)
    found.targets.append(Target(f"{name}:{port}", 1.0, pods, tuple(said)))
    return found.settle()


def _addressed(seen: View, name: str, port: int) -> list[Endpoint] | None:
    """The pods that a Service's name or a pod's address leads to; None when it is neither."""
    for host in seen.hosts.values():
        if host.service is not None and name in routes.domains(seen, host):
            return seen.endpoints(host, port)
    for pod in seen.snapshot.pods:
        if pod.address == name:
            return [services.pod_endpoint(pod, port)]
    return None
